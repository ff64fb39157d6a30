"""What readers of all formats stand on: the files that were given, and their lines with the place where each stands.

A file ends in `.gz` or not, whatever its publisher packs. What cannot be read is noted with its place and left out.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import ConfigError
from ..sets import Problem, split_lines

FIELD_LIMIT = 2**24
"""Characters of a field of a table of texts; the csv module's own limit is less than a long document."""

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")

Note = Callable[[Problem], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: Path
    line: int
    """From 1; of Parquet files the row, of JSON arrays the entry."""
    called: str = "line"

    def problem(self, what: str) -> Problem:
        """What is wrong there."""
        return Problem(str(self.file), self.line, what, self.called)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants of the files."""

    split: str | None = None
    """Such as test; None is the format's own."""
    languages: tuple[str, ...] = ()
    part: str | None = None
    document_language: str | None = None
    """Of MKQA: the language of the documents, whose answers are looked for in them."""
    queries: Path | None = None
    qrels: Path | None = None
    run: Path | None = None
    """A first stage, as TREC writes it."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files and folders of a benchmark, as its publisher lays them out."""

    paths: tuple[Path, ...]
    note: Note
    found: set[Path] = field(default_factory=set)
    """The files that were asked for, and are there."""

    def files(self, pattern: str, at_any_depth: bool = False) -> list[Path]:
        """All files whose names match, or the ends of their paths, packed or not; of a folder the least deep ones."""
        found: dict[Path, None] = {}
        for path in self.paths:
            if path.is_file():
                name = pattern.rpartition("/")[2]
                inside = [path] if fnmatch(path.name, name) or fnmatch(path.name, f"{name}.gz") else []
            else:
                inside = sorted(one for one in {*path.rglob(pattern), *path.rglob(f"{pattern}.gz")} if one.is_file())
            least = min((len(one.parts) for one in inside), default=0)
            found |= dict.fromkeys(one for one in inside if at_any_depth or len(one.parts) == least)
        self.found.update(found)
        return list(found)

    def unread(self) -> list[Path]:
        """What was given and has nothing that was asked for."""
        return [path for path in self.paths if not any(path == one or path in one.parents for one in self.found)]

    def some(self, pattern: str, at_any_depth: bool = False) -> list[Path]:
        """The files that match; raises ConfigError where there is none."""
        found = self.files(pattern, at_any_depth)
        if not found:
            packed = [path for path in self.paths if path.name.endswith(ARCHIVES)]
            told = f"; unpack {packed[0]}, and give the folder" if packed else ""
            raise ConfigError(f"there is no {pattern} in {', '.join(map(str, self.paths))}{told}")
        return found

    def file(self, pattern: str) -> Path:
        """The only file that matches; raises ConfigError where there is none, or are several."""
        first, *others = self.some(pattern)
        if others:
            raise ConfigError(f"{first} and {others[0]} are both a {pattern}; give the one that is meant")
        return first

    def raw_lines(self, path: Path) -> Iterator[tuple[Place, bytes]]:
        """The lines as they are; raises ConfigError where the file cannot be read."""
        with readable(path), opened(path) as file:
            for number, line in enumerate(split_lines(file), 1):
                yield Place(path, number), line

    def lines(self, path: Path, *, blank: bool = False, mended: bool = False) -> Iterator[tuple[Place, str]]:
        """The lines without their ends, blank ones if they matter; raises ConfigError where the file cannot be read.

        A line that is no UTF-8 is left out, or is read without the bytes that are none if it is to be mended.
        """
        for place, line in self.raw_lines(path):
            encoding = "utf-8-sig" if place.line == 1 else "utf-8"
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                if not mended:
                    self.note(place.problem(f"is no UTF-8 ({error.reason})"))
                    continue
                self.note(place.problem("bytes that are no UTF-8 are left out, and U+FFFD stands in their place"))
                text = line.decode(encoding, "replace")
            if blank or text.strip():
                yield place, text.rstrip("\r\n")

    def objects(self, path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
        """The objects of a file with one JSON object a line."""
        for place, line in self.lines(path):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                self.note(place.problem(f"is no JSON ({error})"))
                continue
            if isinstance(value, dict):
                yield place, value
            else:
                self.note(place.problem("is no JSON object"))

    def table(self, path: Path, columns: int) -> Iterator[tuple[Place, list[str]]]:
        """The rows of a table with tabs, whose fields may stand in quotes and then go over several lines.

        Quotes are taken strictly: else one that is not closed would make a single field of all lines below it.
        """
        csv.field_size_limit(FIELD_LIMIT)
        numbers: list[int] = []

        def texts() -> Iterator[str]:
            for place, line in self.lines(path, blank=True):
                numbers.append(place.line)
                yield f"{line}\n"

        rows = csv.reader(texts(), delimiter="\t", strict=True)
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                first, *others = numbers
                taken = f"; a quote takes in the lines up to {others[-1]}, which are left out, too" if others else ""
                self.note(Place(path, first).problem(f"is no row of a table ({error}){taken}"))
                numbers.clear()
                continue
            if row is None:
                return
            place = Place(path, numbers[0])
            numbers.clear()
            if not row:
                continue
            if len(row) == columns:
                yield place, row
            else:
                self.note(place.problem(f"has {len(row)} fields, and {columns} are needed"))

    def rows(self, path: Path, *columns: str) -> Iterator[tuple[Place, tuple[Any, ...]]]:
        """The values of these columns of a Parquet file; None for a column that is not there and ends in `?`."""
        with readable(path):
            file = pq.ParquetFile(path)
            there = [name.removesuffix("?") for name in columns]
            for given, name in zip(columns, there, strict=True):
                if given == name and name not in file.schema_arrow.names:
                    raise ConfigError(f"{path} has no column {name!r}; it has {', '.join(file.schema_arrow.names)}")
            number = 0
            for batch in file.iter_batches(1000, columns=[one for one in there if one in file.schema_arrow.names]):
                for row in batch.to_pylist():
                    number += 1
                    yield Place(path, number), tuple(row.get(name) for name in there)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that can be read."""

    files: str
    """What is given: the files, and where they come from."""
    publisher: str
    """The address of the file or loader that this reader follows."""
    measure: str
    """The measure that the benchmark is known for."""
    split: str | None = None
    """The split that is read unless another is asked for."""
    flags: tuple[str, ...] = ()
    """The fields of Asked that it takes beside `run`."""
    languages: tuple[str, ...] = ()
    """The codes that the publisher uses; none where any may be."""
    ignores_identical_ids: bool = False
    """Whether the benchmark takes a document with the id of its query out of the results before it measures."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raises ConfigError where a file cannot be read to its end."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield file  # type: ignore[misc]  # GzipFile is one where it matters: it has lines


def with_title(title: object, text: object) -> str | None:
    """The text that a document with a title is ranked by, as BEIR joins them; None where there is no text.

    https://github.com/beir-cellar/beir/blob/main/beir/retrieval/models/sentence_bert.py, `encode_corpus`
    """
    if not isinstance(text, str) or not (title is None or isinstance(title, str)):
        return None
    return f"{title or ''} {text}".strip()


def one_language(asked: Asked, otherwise: str | None) -> str | None:
    """The language of a benchmark that has only one; raises ConfigError where several are asked for."""
    if len(asked.languages) > 1:
        raise ConfigError(f"--language is given {len(asked.languages)} times; a set of this format has one language")
    return asked.languages[0] if asked.languages else otherwise
