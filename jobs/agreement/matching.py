"""Which row of one run is which row of the other: by file and place, or by the value of a column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.agreement.runs import Run
from jobs.runtime.threads import in_threads
from pipelines.errors import ConfigError

BY_PLACE = ("file", "start", "row_of_file")
"""A row's key without --key: the number of its file, then its place there. `start` is that of its unit where --where
leaves rows out, so that places count from it, and else 0."""
BY_VALUE = ("value",)


@dataclass(frozen=True, slots=True)
class Matched:
    """The rows that both runs have."""

    rows: pa.Table
    """int64 `part_a`, `row_a`, `part_b`, `row_b`, sorted: numbers of units in each run, and of rows in their parts."""
    only_first: int
    only_second: int
    unusable: Mapping[str, int]
    """Rows that cannot be matched by their value, by what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where all rows of a run are."""

    table: pa.Table
    """Key columns, then `part` and `row`."""
    unusable: Mapping[str, int]


def match(first: Run, second: Run, key: str | None) -> Matched:
    """The rows that both have; raises ConfigError for a column that cannot match rows."""
    names = BY_PLACE if key is None else BY_VALUE
    if key is None:
        files = {planned.file.path: number for number, planned in enumerate(first.manifest.files)}
        one, other = (places_in_files(run, files) for run in (first, second))
    else:
        one, other = (places_by_value(run, key) for run in (first, second))
    left = one.table.rename_columns([*names, "part_a", "row_a"])
    right = other.table.rename_columns([*names, "part_b", "row_b"])
    both = left.join(right, list(names), join_type="inner").select(["part_a", "row_a", "part_b", "row_b"])
    unusable = {name: one.unusable.get(name, 0) + other.unusable.get(name, 0) for name in {*one.unusable}}
    return Matched(
        both.sort_by([("part_a", "ascending"), ("row_a", "ascending")]),  # a join has no order of its own
        one.table.num_rows - both.num_rows,
        other.table.num_rows - both.num_rows,
        {name: rows for name, rows in unusable.items() if rows},
    )


def places_in_files(run: Run, files: Mapping[str, int]) -> Places:
    """All rows by file and place there; those of a file without a number have numbers of their own."""
    filtered = bool(run.manifest.options.where)
    rows = in_threads(lambda number: run.read_part(number, lambda file: file.metadata.num_rows), range(len(run.units)))
    numbers = dict(files)
    parts = []
    for part, (unit, count) in enumerate(zip(run.units, rows, strict=True)):
        file = numbers.setdefault(unit.path, len(numbers))
        within = np.arange(count, dtype=np.int64)
        place = within if filtered else within + unit.start
        start = unit.start if filtered else 0
        parts.append([np.full(count, file), np.full(count, start), place, np.full(count, part), within])
    columns = [np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)]
    return Places(pa.table(dict(zip([*BY_PLACE, "part", "row"], columns, strict=True))), {})


def places_by_value(run: Run, key: str) -> Places:
    """All rows by the text of a value that no other row has."""
    tables = []
    for part, column in enumerate(in_threads(lambda number: values_of(run, number, key), range(len(run.units)))):
        within = np.arange(len(column), dtype=np.int64)
        tables.append(pa.table({"value": column, "part": np.full(len(column), part, np.int64), "row": within}))
    every = pa.concat_tables(tables)
    known = every.filter(pc.is_valid(every["value"]))
    counted = known.group_by("value").aggregate([([], "count_all")])
    once = counted.filter(pc.equal(counted["count_all"], 1)).select(["value"])
    unique = known.join(once, "value", join_type="left semi")
    unusable = {"null": every.num_rows - known.num_rows, "twice": known.num_rows - unique.num_rows}
    return Places(unique.select(["value", "part", "row"]), unusable)


def values_of(run: Run, number: int, key: str) -> pa.ChunkedArray:
    """The values of the column in a part, as texts; raises ConfigError where that cannot be."""
    table = run.columns(number, [key])
    if key not in table.column_names:
        raise ConfigError(f"--key is {key!r}, which is no column of {run.path}/{run.units[number].name}")
    try:
        return table[key].cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"--key is {key!r}, whose values are {table[key].type}: {error}") from None
