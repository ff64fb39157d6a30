"""What a run takes of its input: which rows of a file, and with which columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.input.conditions import Condition
from jobs.input.partitions import Partitions
from jobs.input.shards import Shard
from jobs.records import InputFile
from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a run takes: all rows of all files, unless a condition, a share or a limit says otherwise.

    The driver makes the selection, and gives it to the replicas.
    """

    partitions: Partitions = field(default_factory=Partitions)
    where: tuple[Condition, ...] = ()
    """Rows have to pass all of them."""
    shard: Shard | None = None
    limit: int | None = None
    """The first so many rows of what is this run's, before `where`."""

    # For the plan.

    def schema(self, path: str, own: pa.Schema) -> pa.Schema:
        """The schema of a file's rows: its own columns and those of its path."""
        for one in self.partitions.fields(path, own):
            own = own.append(one)
        return own

    def excluded_row_groups(self, path: str, own: pa.Schema, metadata: pq.FileMetaData) -> frozenset[int]:
        """The row groups without a row that passes, as far as their statistics and the path tell.

        Raises ConfigError when a condition does not fit its column in this file.
        """
        everything = frozenset(range(metadata.num_row_groups))
        excluded: frozenset[int] = frozenset()
        by_path = {one.name: column for one, column in self.partitions.columns(path, own, rows=1)}
        for condition in self.where:
            name = condition.column
            if own.names.count(name) > 1:
                raise ConfigError(f"--where {str(condition)!r}: {path} has more than one column `{name}`")
            if name in own.names:
                condition.check(own.field(name).type, path)
                excluded |= excluded_by_statistics(condition, own.field(name).type, metadata)
            elif name not in by_path:
                excluded = everything  # as if it were null
            else:
                condition.check(by_path[name].type, path)
                passes = condition.passing(by_path[name])[0].as_py()
                excluded |= frozenset() if passes else everything
        return excluded

    def rows_of(self, file: InputFile, rows: int, kept: Sequence[tuple[int, int]], taken: int) -> tuple[int, int]:
        """This run's rows (start, end) in a file of `rows` rows, when `taken` rows come from the files before it.

        `kept` are the (start, rows) of the row groups that are not excluded.
        """
        start, end = 0, rows
        if self.shard is not None:
            name = file.path.removeprefix(self.partitions.root)
            start, end = self.shard.rows_of(name, file.size, rows, kept)
        return start, end if self.limit is None else min(end, start + max(0, self.limit - taken))

    # For the replicas.

    def checked_columns(self, own: pa.Schema) -> list[str]:
        """The file's columns that conditions look at; the path's are settled in the plan."""
        return [name for name in dict.fromkeys(one.column for one in self.where) if name in own.names]

    def passing(self, table: pa.Table) -> pa.ChunkedArray:
        """For each row whether it passes the conditions on the columns that the table has."""
        masks = [one.passing(table.column(one.column)) for one in self.where if one.column in table.column_names]
        passing = masks[0]
        for mask in masks[1:]:
            passing = pc.and_(passing, mask)
        return pc.fill_null(passing, False)

    def with_partitions(self, table: pa.Table, path: str) -> pa.Table:
        """The table with the columns of the file's path."""
        for one, column in self.partitions.columns(path, table.schema, table.num_rows):
            table = table.append_column(one, column)
        return table


EVERYTHING = Selection()


def excluded_by_statistics(condition: Condition, data_type: pa.DataType, metadata: pq.FileMetaData) -> frozenset[int]:
    """The row groups whose statistics say that no value of the condition's column passes."""
    leaves = [i for i in range(metadata.num_columns) if metadata.schema.column(i).path == condition.column]
    if len(leaves) != 1:  # a field `b` of a struct `a` has the path of a column `a.b`
        return frozenset()
    return frozenset(
        group
        for group in range(metadata.num_row_groups)
        if not condition.may_match(metadata.row_group(group).column(leaves[0]).statistics, data_type)
    )


def filtered(table: pa.Table, passing: pa.ChunkedArray) -> pa.Table:
    """The rows of a table that pass, whatever the types of their columns."""
    try:
        return table.filter(passing)
    except pa.ArrowNotImplementedError:  # views, so far
        rows = (i for i, passes in enumerate(passing.to_pylist()) if passes)
        return pa.concat_tables([table.slice(0, 0), *(table.slice(row, 1) for row in rows)])
