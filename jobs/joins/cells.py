"""Files by which rows with the same key come together: one for each piece of the input, a cell for each bucket of keys.

A cell is a row group of one row, whose `content` is its table as an Arrow stream: no type is changed, and to read one
cell takes the file's footer and one page. Files are whole or not there, so a pass goes on where it was stopped.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import read_parquet, write_table
from jobs.table.streams import from_stream, to_stream

CELLS = pa.schema([("bucket", pa.int32()), ("content", pa.large_binary())])
SIZES_KEY = b"crossray_cells"


class CellSize(NamedTuple):
    """What a cell holds."""

    rows: int
    bytes: int
    """Decoded."""


def write_cells(location: str, table: pa.Table, buckets: np.ndarray) -> None:
    """The rows of a table by their bucket; those of a bucket stay in order."""
    order = np.argsort(buckets, kind="stable")
    present, starts = np.unique(buckets[order], return_index=True)
    lengths = np.diff(starts, append=len(order)).tolist()
    table = table.take(pa.array(order))
    cells = [table.slice(start, length) for start, length in zip(starts.tolist(), lengths, strict=True)]
    sizes = {int(bucket): CellSize(cell.num_rows, cell.nbytes) for bucket, cell in zip(present, cells, strict=True)}
    contents = [to_stream(cell).to_pybytes() for cell in cells]
    file = pa.table([pa.array(present, pa.int32()), pa.array(contents, pa.large_binary())], schema=CELLS)
    write_table(location, file.replace_schema_metadata({SIZES_KEY: json.dumps(sizes)}), row_group_size=1)


def cell_sizes(location: str) -> dict[int, CellSize]:
    """What the cells of a file hold, by bucket."""
    return read_parquet(location, lambda file: sizes_in(file.metadata))


def read_cell(location: str, bucket: int) -> pa.Table | None:
    """The rows of one bucket; None where the file has none."""

    def read(file: pq.ParquetFile) -> pa.Table | None:
        buckets = sorted(sizes_in(file.metadata))
        if bucket not in buckets:
            return None
        content = file.read_row_group(buckets.index(bucket), columns=["content"]).column(0)[0]
        return from_stream(content.as_buffer())

    return read_parquet(location, read)


def sizes_in(metadata: pq.FileMetaData) -> dict[int, CellSize]:
    """What a footer says of its cells."""
    return {int(bucket): CellSize(*size) for bucket, size in json.loads(metadata.metadata[SIZES_KEY]).items()}
