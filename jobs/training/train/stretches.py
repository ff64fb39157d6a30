"""The stretches that a file is cut into, each to become a shard, and how the rows of one are read and drawn."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, takewhile

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.input.row_groups import walk_once
from jobs.table.parsing import Text, column_texts
from jobs.training.train.config import Columns, Source
from jobs.training.train.rows import TrainingLayout, layout_of, needed_columns

ROWS_BEYOND = 1000
"""Rows that are looked at at once for the end of a stretch's last run."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The rows from `first` to `first + rows` of a file, of which `take` are drawn; of graded pairs, whole queries."""

    source: int
    path: str
    row_groups: tuple[int, ...]
    skip: int
    """Rows of these row groups before its first one."""
    first: int
    """Number of its first row in the file."""
    rows: int
    take: int
    shard: str
    """Where the token lists are written."""

    @property
    def report(self) -> str:
        """Where the report is written, after the shard."""
        return self.shard.removesuffix(".npz") + ".json"


def read_stretch(stretch: Stretch, source: Source) -> tuple[pa.Table, int]:
    """The rows of a stretch with the needed columns, and the number of the first one in the file.

    Of graded pairs a stretch has the runs of a query that begin in it, to their ends. Raises UnreadableFileError, also
    for a wrong schema.
    """

    def read(file: pq.ParquetFile) -> tuple[pa.Table, int]:
        columns = needed_columns(file.schema_arrow, source.columns)
        if layout_of(file.schema_arrow, source.columns) is TrainingLayout.PAIRS:
            return whole_runs(file, stretch, columns, source.columns.query)
        walk = walk_once(file, stretch.row_groups, columns, stretch.rows)
        return walk.rows(stretch.skip, stretch.rows), stretch.first

    return storage.read_parquet(stretch.path, read)


def whole_runs(file: pq.ParquetFile, stretch: Stretch, columns: list[str], query: str) -> tuple[pa.Table, int]:
    """The runs of neighbouring rows with one query that begin in a stretch, and the number of their first row."""
    metadata = file.metadata
    starts = [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))]
    before, end = max(stretch.first - 1, 0), stretch.first + stretch.rows
    group = bisect_right(starts, before) - 1
    walk = walk_once(file, range(group, metadata.num_row_groups), columns, stretch.rows)

    def rows(start: int, stop: int) -> tuple[pa.Table, list[Text]]:
        table = walk.rows(start - starts[group], min(stop, metadata.num_rows) - start)
        return table, list(column_texts(table.column(query)))

    table, queries = rows(before, end)
    first = 0
    if stretch.first:  # the run of the row before began in another stretch
        first = sum(1 for _ in takewhile(lambda one: one == queries[0], queries))
    tables = [table.slice(first)]
    while first < len(queries) and end < metadata.num_rows:
        table, more = rows(end, end + ROWS_BEYOND)
        same = sum(1 for _ in takewhile(lambda one: one == queries[-1], more))
        tables.append(table.slice(0, same))
        end += same
        if same < len(more):
            break
    return pa.concat_tables(tables), before + first


def query_runs(table: pa.Table, columns: Columns) -> list[range]:
    """The rows of each run of neighbours with one query."""
    queries = column_texts(table.column(columns.query))
    runs = (list(run) for _, run in groupby(range(len(queries)), key=lambda row: queries[row]))
    return [range(run[0], run[-1] + 1) for run in runs]


def drawn_rows(runs: Sequence[range], wanted: int, rng: random.Random) -> list[int]:
    """The rows of runs that are drawn until there are `wanted` rows, in order."""
    drawn: list[int] = []
    for run in rng.sample(runs, len(runs)):
        if len(drawn) >= wanted:
            break
        drawn.extend(run)
    return sorted(drawn)
