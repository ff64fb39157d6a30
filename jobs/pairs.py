"""`crossray pairs INPUT OUTPUT`: writes each pair that several work units of a log have once, to be scored beforehand.

    crossray pairs logs/ pairs/
    crossray rerank pairs/ pairs-scored/ --scores scores/
    crossray rerank logs/ ranked/ --scores scores/

Each replica remembers only the pairs that it scored itself. Without this command a pair that several replicas meet is
scored by each of them. The second command is a job like any other, which can be stopped and resumed. Without the first
two the third one writes the same scores and takes longer.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import typer
from rich.console import Console

from jobs import errors, storage
from jobs.endings import exit_code, resume_command
from jobs.errors import RefusedError, UnreadableFileError, disk_failures_as_stops
from jobs.flags import Flags, with_flags
from jobs.input.reading import read_rows
from jobs.records import Unit
from jobs.runtime.signals import signals_as_exceptions
from jobs.runtime.threads import read_ahead
from jobs.screen import say, say_left_out
from jobs.settings import RerankSettings
from jobs.storage import check_apart
from jobs.table.columns import ColumnMapping, Layout
from jobs.table.parsing import parse_rows

FILES = "pairs-*.parquet"
ROWS_OF_A_FILE = 100_000
READING_THREADS = 4

TextPair = tuple[str, str]

EXAMPLES = (
    "crossray pairs logs/ pairs/",
    "crossray rerank pairs/ scored-pairs/ --scores scores/     # then, each pair once",
    "crossray rerank logs/ ranked/ --scores scores/            # and the log",
)
SHARED_FIELDS = ("layout", "query_column", "documents_column", "text_field", "document_column")
FLAGS = (
    Flags.of(RerankSettings)
    .only("input", "output", *SHARED_FIELDS)
    .but(
        input={"help": "What `rerank` takes as its INPUT."},
        output={"help": "The directory for the pairs; what it held is replaced."},
    )
)


@with_flags(FLAGS)
def command(**given: Any) -> None:
    """Write the pairs that several work units of INPUT have, each once, as pair rows for `rerank --scores`.

    Exit codes: 0 done, 2 usage, 3 refused, 4 stopped, 130/143 stopped by a signal.
    """

    def work() -> int:
        console, settings = Console(), FLAGS.settings(given)
        with signals_as_exceptions(), disk_failures_as_stops():
            found = write_repeated_pairs(settings, console)
        if found.repeated:
            once = f"crossray rerank {settings.output} SCORED --scores SCORES"
            say(console, f"score them with `{once}`, then INPUT with the same --scores, --model and lengths", "next: ")
        return errors.DONE

    raise typer.Exit(exit_code(work, resume_command("jobs.cli")))


@dataclass(frozen=True, slots=True)
class RepeatedPairs:
    """How many pairs a log holds, and how many of them repeat."""

    pairs: int
    """The different pairs of each unit, added up: what replicas without a memory would score."""
    distinct: int
    """The different pairs of the whole log."""
    repeated: int
    """The different pairs that several units have."""


def write_repeated_pairs(
    settings: RerankSettings, console: Console, rows_of_a_file: int = ROWS_OF_A_FILE
) -> RepeatedPairs:
    """Reads INPUT twice: for the digests of all pairs, 8 bytes each, and for the texts of those that repeat.

    Raises ConfigError, RefusedError or OSError.
    """
    from jobs.driver.planning import new_manifest  # ray: a second, and not for --help
    from jobs.driver.resolution import with_absolute_paths

    settings = with_absolute_paths(settings)
    files = storage.list_input(settings.input)
    say_left_out(console, settings.input, files.left_out)
    check_apart(settings.input, settings.output, files)
    manifest = new_manifest(settings, {}, files)
    prepare_directory(settings.output)
    layout, units = manifest.options.layout, manifest.units()
    digests = [np.unique(digests_of(pairs)) for pairs in pairs_of(units, settings.mapping, layout, console)]
    distinct, counts = np.unique(np.concatenate([*digests, np.empty(0, np.uint64)]), return_counts=True)
    repeated = distinct[counts > 1]
    found = RepeatedPairs(sum(map(len, digests)), len(distinct), len(repeated))
    del digests, distinct, counts
    if found.repeated:
        quiet = Console(quiet=True)
        texts = texts_of(repeated, pairs_of(units, settings.mapping, layout, quiet))
        write_pair_files(settings.output, texts, rows_of_a_file)
    console.print(
        f"{found.pairs:,} pairs in {len(units):,} units, {found.distinct:,} distinct; "
        f"{found.repeated:,} in several units: {settings.output}",
        soft_wrap=True,
    )
    return found


def prepare_directory(output: str) -> None:
    """Makes the directory and removes what this command wrote there before.

    Raises RefusedError where files lie in it that this command did not write.
    """
    if storage.exists(output):
        raise RefusedError(f"OUTPUT {output} is a file; give a directory")
    storage.make_directory(output)
    names = storage.names(output)
    foreign = [name for name in names if not fnmatch.fnmatch(name, FILES) and not storage.is_temporary(name)]
    if foreign:
        raise RefusedError(
            f"OUTPUT {output} holds {sorted(foreign)[0]}, which this command did not write; give another"
        )
    storage.remove(*(os.path.join(output, name) for name in names))


def pairs_of(
    units: Sequence[Unit], mapping: ColumnMapping, layout: Layout, console: Console
) -> Iterator[list[TextPair]]:
    """Yields the pairs of each unit that can be scored; a unit that cannot be read is named and left out."""

    def read(unit: Unit) -> pa.Table | str:
        try:
            return read_rows(unit)
        except UnreadableFileError as error:
            return error.why

    for unit, table in zip(units, read_ahead(read, units, READING_THREADS), strict=True):
        if isinstance(table, str):
            say(console, f"{unit}: {table}", "cannot be read: ")
        else:
            lists = [row.candidates for row in parse_rows(table, layout, mapping) if row.candidates is not None]
            yield [(one.query, document) for one in lists for document in one.documents]


def digests_of(pairs: Sequence[TextPair]) -> np.ndarray:
    """A digest of 64 bits for each pair, uint64 [n].

    Where two different pairs share a digest, one of them is not written and is scored later, with the log.
    """
    digests = bytearray()
    for query, document in pairs:
        content = query.encode()
        digest = hashlib.blake2b(len(content).to_bytes(8, "little") + content, digest_size=8)
        digest.update(document.encode())
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype=np.uint64)


def texts_of(repeated: np.ndarray, units: Iterator[list[TextPair]]) -> Iterator[TextPair]:
    """Yields the first pair that has each of these digests; the digests are sorted, and there is at least one."""
    is_written = np.zeros(len(repeated), dtype=bool)
    for pairs in units:
        digests = digests_of(pairs)
        places = np.minimum(np.searchsorted(repeated, digests), len(repeated) - 1)
        for i in np.flatnonzero(repeated[places] == digests).tolist():
            if not is_written[places[i]]:
                is_written[places[i]] = True
                yield pairs[i]


def write_pair_files(output: str, pairs: Iterator[TextPair], rows_of_a_file: int) -> None:
    """Writes the pairs as files of so many rows; the same pairs give the same files."""
    some: list[TextPair] = []
    number = 0
    for pair in pairs:
        some.append(pair)
        if len(some) == rows_of_a_file:
            write_file(output, number, some)
            some, number = [], number + 1
    if some:
        write_file(output, number, some)


def write_file(output: str, number: int, pairs: Sequence[TextPair]) -> None:
    """Writes one file, sorted, so that pairs with the same query lie side by side."""
    queries, documents = zip(*sorted(pairs), strict=True)
    table = pa.table({"query": pa.array(queries, pa.string()), "document": pa.array(documents, pa.string())})
    storage.write_table(os.path.join(output, f"pairs-{number:06d}.parquet"), table)
