"""What the driver settles before a run starts: absolute paths, files, stretches of rows, and the manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from jobs import storage
from jobs.driver.resolution import JOB_ENVIRONMENT
from jobs.errors import RefusedError, UnreadableFileError
from jobs.records import InputFile
from jobs.screen import say_left_out
from jobs.storage import absolute
from jobs.training.train.config import Source, TrainConfig
from jobs.training.train.paths import RunFiles, base_model
from jobs.training.train.shards import ShardReport
from jobs.training.train.stretches import Stretch
from pipelines.config import EMBEDDED_MODELS
from pipelines.errors import ConfigError
from pipelines.stores import is_uri

STRETCH_ROWS = 20_000
STRETCH_BYTES = 64 << 20
"""Rows of a shard, and bytes of theirs as the file's footer counts them: one task has them all in memory, several times
over. Whichever is less, for passages may be long."""
FREE_TO_CHANGE = ("output", "workers", "name")
"""Keys of the config that another call of the same run may change."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, with what its footer says or why it could not be read."""

    source: int
    file: InputFile
    row_groups: tuple[int, ...] = ()
    """Rows of each row group."""
    stretch_rows: int = STRETCH_ROWS
    """Rows of a stretch, by the mean size of the file's rows."""
    unreadable: str | None = None


def with_definite_paths(config: TrainConfig, config_file: Path) -> TrainConfig:
    """The config with absolute paths, and a name for each source.

    `data` counts from the folder of the config file, sources count from `data`, and `output` from where the command
    runs.

    Raises ConfigError for relative paths in a submitted job, RefusedError for a base that is an unfinished run.
    """
    submitted = JOB_ENVIRONMENT in os.environ
    folder = config_file.resolve().parent

    def definite(path: str, what: str, start: str) -> str:
        return absolute(path if is_uri(path) else os.path.join(start, path), what, allow_relative=not submitted)

    data = definite(config.data, "data", str(folder)) if config.data else str(folder)
    output = absolute(config.output, "output", allow_relative=not submitted)
    base = definite_base(config.base, folder)
    sources = []
    for source in config.sources:
        path = definite(source.path, f"path of source {source.name or source.path!r}", data)
        sources.append(replace(source, path=path, name=source.name or default_name(source.path)))
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two sources are called {twice[0]!r}; give each its own name")
    return replace(
        config, base=base, data=data, output=output, sources=tuple(sources), name=config.name or PurePath(output).name
    )


def default_name(path: str) -> str:
    """The name of a source that is given none: that of its file; of a glob for all files, that of the folder."""
    last = PurePath(path)
    return last.stem if last.stem.strip("*?") else last.parent.name or last.stem


def definite_base(base: str, folder: Path) -> str:
    """The model that training begins from: a directory beside the config file, else one where the command runs.

    Anything else stays as it is: a uri, a hub name, and an embedded model, whatever directories there are. Raises
    RefusedError for the output of a run that is not complete.
    """
    if base in EMBEDDED_MODELS:
        return base
    if is_uri(base):
        return base_model(base)
    if (folder / base).is_dir():
        return base_model(str(folder / base))
    return base_model(os.path.abspath(base)) if os.path.isdir(base) else base


def source_files(sources: Sequence[Source], console: Console) -> list[SourceFile]:
    """Every file of every source with its row groups, and says which are no Parquet.

    Raises ConfigError for a source without files.
    """
    found = []
    for number, source in enumerate(sources):
        files = storage.list_input(source.path, f"source {source.name!r}:")
        say_left_out(console, source.path, files.left_out)
        found += [file_of(number, file) for file in files]
    return found


def file_of(source: int, file: InputFile) -> SourceFile:
    """Reads the footer of a file of a source."""

    def read(parquet: pq.ParquetFile) -> tuple[tuple[int, ...], int]:
        groups = [parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups)]
        return tuple(group.num_rows for group in groups), sum(group.total_byte_size for group in groups)

    try:
        rows, size = storage.read_parquet(file.path, read)
    except UnreadableFileError as error:
        return SourceFile(source, file, unreadable=error.why.splitlines()[0])
    return SourceFile(source, file, rows, max(1, min(STRETCH_ROWS, STRETCH_BYTES * sum(rows) // max(size, 1))))


def stretches(files: Sequence[SourceFile], sources: Sequence[Source], output: RunFiles) -> list[Stretch]:
    """Cuts the rows of all files into stretches; a source's `lists` are spread evenly over its rows."""
    rows_of: dict[int, int] = {}
    for one in files:
        rows_of[one.source] = rows_of.get(one.source, 0) + sum(one.row_groups)
    done: dict[int, int] = dict.fromkeys(rows_of, 0)
    found: list[Stretch] = []
    for one in files:
        for groups, skip, first, rows in cut_row_groups(one.row_groups, one.stretch_rows):
            all_rows = rows_of[one.source]
            wanted = min(sources[one.source].lists or all_rows, all_rows)
            before = done[one.source]
            done[one.source] += rows
            take = done[one.source] * wanted // all_rows - before * wanted // all_rows
            shard = f"{output.lists}/{len(found):06d}.npz"
            if take:
                found.append(Stretch(one.source, one.file.path, groups, skip, first, rows, take, shard))
    return found


def cut_row_groups(row_groups: Sequence[int], stretch_rows: int) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Yields (row groups, rows of them to skip, number of the first row, rows) for each stretch of a file."""
    run: list[int] = []
    first = rows = 0
    for number, size in enumerate(row_groups):
        if run and rows + size > stretch_rows:
            yield tuple(run), 0, first, rows
            run, first, rows = [], first + rows, 0
        if size > stretch_rows:
            for skip in range(0, size, stretch_rows):
                yield (number,), skip, first + skip, min(stretch_rows, size - skip)
            first += size
        else:
            run.append(number)
            rows += size
    if rows:
        yield tuple(run), 0, first, rows


def unreadable_reports(files: Sequence[SourceFile]) -> list[ShardReport]:
    """Reports of files whose footer could not be read."""
    return [ShardReport(one.source, one.file.path, unreadable=one.unreadable) for one in files if one.unreadable]


def manifest_of(config: TrainConfig, base_digest: str, files: Sequence[SourceFile]) -> dict[str, Any]:
    """All that decides the result of a run, as JSON types."""
    asked = {name: value for name, value in asdict(config).items() if name not in FREE_TO_CHANGE}
    return {
        "asked": asked,
        "base": base_digest,
        "files": [
            asdict(one.file) | {"row_groups": list(one.row_groups), "stretch_rows": one.stretch_rows} for one in files
        ],
    }


def check_outside_output(config: TrainConfig, files: Sequence[SourceFile]) -> None:
    """Raises RefusedError where the run would read what lies in its own output, and --overwrite removes."""
    read = [(f"source {config.sources[one.source].name!r}:", one.file.path) for one in files]
    if is_uri(config.base) or os.path.isabs(config.base):
        read.insert(0, ("base", config.base))
    for what, path in read:
        if storage.real_path(path).is_relative_to(storage.real_path(config.output)):
            raise RefusedError(f"{what} {path} lies in the output {config.output}; give another output")


def change_of(output: RunFiles, manifest: dict[str, Any]) -> str | None:
    """Says in words where the output was begun with something else, by the first difference; None where it was not."""
    before: dict[str, Any] = storage.read_json(output.manifest)
    difference = first_difference(before, manifest)
    if difference is None:
        return None
    where, old, new = difference
    if where.startswith("files["):
        number = int(where.partition("[")[2].partition("]")[0])
        where = f"{manifest['files'][number]['path']}: {where.partition('.')[2]}"
    return (
        f"{output.path} was begun with {where} = {old!r}, and now it is {new!r}; take the old value, another output, "
        "or --overwrite"
    )


def first_difference(before: Any, now: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """(where, before, now) of the first value that differs in two JSON structures; a tuple counts as a list."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            found = first_difference(before.get(key), now.get(key), f"{where}.{key}".removeprefix(".asked").lstrip("."))
            if found:
                return found
        return None
    if isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            found = first_difference(one, other, f"{where}[{i}]")
            if found:
                return found
        return None
    return None if before == now else (where, before, now)
