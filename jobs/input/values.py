"""Tells which values the columns of conditions have, where no row passes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import StoreError, UnreadableFileError
from jobs.input.selection import Selection
from jobs.records import InputFile
from jobs.storage import read_parquet

FILES, ROWS_OF_EACH = 20, 1000
"""How many are looked at: the first ones."""
VALUES_SHOWN = 5


def values_there(selection: Selection, files: Sequence[InputFile]) -> Iterator[str]:
    """For each condition the first different values of its column, as a line for people."""
    for condition in selection.where:
        column = condition.column
        found = chain.from_iterable(first_values(column, selection, file) for file in files[:FILES])
        values = list(islice(dict.fromkeys(found), VALUES_SHOWN + 1))
        shown = ", ".join(map(repr, values[:VALUES_SHOWN])) + (", ..." if len(values) > VALUES_SHOWN else "")
        yield f"--where {str(condition)!r}; the first values of `{column}` are {shown or 'all null'}"


def first_values(column: str, selection: Selection, file: InputFile) -> list[str]:
    """The different values of a file's first rows, as texts without nulls; none where it cannot be read."""

    def read(opened: pq.ParquetFile) -> pa.Table:
        names = [name for name in opened.schema_arrow.names if name == column]
        batches = opened.iter_batches(ROWS_OF_EACH, columns=names)
        first = next(batches, opened.schema_arrow.empty_table())
        return selection.with_partitions(pa.table(first), file.path)

    try:
        table = read_parquet(file.path, read)
    except (UnreadableFileError, StoreError):
        return []
    if column not in table.column_names:
        return []
    return [str(value) for value in dict.fromkeys(table[column].to_pylist()) if value is not None]
