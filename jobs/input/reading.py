"""Reads the rows of a unit: those that `--where` lets through, with all their columns and those of the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.errors import UnreadableFileError
from jobs.input.row_groups import RowGroups, walk_once
from jobs.input.selection import EVERYTHING, Selection, filtered
from jobs.records import Unit
from jobs.storage import faults_of_file, read_as_planned


def read_rows(unit: Unit, selection: Selection = EVERYTHING, groups: RowGroups | None = None) -> pa.Table:
    """The unit's rows that pass, with all their columns and those of the path.

    Reads only the row groups that it touches, and goes on where an earlier unit left a walk of `groups`.

    Raises UnreadableFileError, also when the file has fewer rows than planned, or is another than was planned.
    """
    try:
        table = read_as_planned(unit.path, unit.file_state, lambda file: rows_between(file, unit, selection, groups))
    except UnreadableFileError:
        if groups is not None:
            groups.forget(unit.path)  # what was kept may be of the changed file
        raise
    with faults_of_file(unit.path):
        return selection.with_partitions(table, unit.path)


def rows_between(file: pq.ParquetFile, unit: Unit, selection: Selection, groups: RowGroups | None) -> pa.Table:
    """The unit's rows that the selection lets through; raises ValueError when the file has fewer rows than planned."""

    def read(columns: Sequence[str] | None = None) -> pa.Table:
        return read_columns(file, unit, columns, groups)

    return read_passing(read, selection, file.schema_arrow)


def read_columns(
    file: pq.ParquetFile, unit: Unit, columns: Sequence[str] | None = None, groups: RowGroups | None = None
) -> pa.Table:
    """All rows of the unit; raises ValueError when the file has fewer than planned."""
    first_row = 0
    wanted, skipped, read = [], 0, 0
    for i in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(i).num_rows
        if first_row + rows <= unit.start:
            skipped = first_row + rows
        elif first_row < unit.start + unit.rows:
            wanted.append(i)
            read += rows
        first_row += rows
    if first_row < unit.start + unit.rows:
        raise ValueError(f"{unit.path} has no rows {unit.start} to {unit.start + unit.rows} any more")
    if groups is None or read == unit.rows:  # no other unit needs them
        walk = walk_once(file, wanted, columns, unit.rows)
    else:
        walk = groups.walk(file, unit.path, wanted, columns, unit.rows, unit.file_state)
    return walk.rows(unit.start - skipped, unit.rows)


def read_passing(read: Callable[..., pa.Table], selection: Selection, own: pa.Schema) -> pa.Table:
    """The rows that pass, read by `read`: first the columns that conditions look at, then all if any row passes."""
    checked = selection.checked_columns(own)
    if not checked:
        return read()
    passing = selection.passing(read(checked))
    return filtered(read(), passing) if pc.any(passing).as_py() else own.empty_table()
