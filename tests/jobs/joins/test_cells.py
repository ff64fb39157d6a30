"""Cells: what was put into a bucket comes out of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.joins.cells import CellSize, cell_sizes, read_cell, write_cells

TABLE = pa.table(
    {
        "number": range(6),
        "text": pa.array(["a", None, "c", "d", "e", "f"], pa.large_string()),
        "bytes": pa.array([b"\xff"] * 6),
        "struct": [{"x": i} for i in range(6)],
    }
)


def test_each_cell_has_the_rows_of_its_bucket_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "cells.parquet")
    write_cells(path, TABLE, np.array([5, 0, 5, 9, 0, 5]))
    assert [cell["number"].to_pylist() for cell in (read_cell(path, bucket) for bucket in (0, 5, 9)) if cell] == [
        [1, 4],
        [0, 2, 5],
        [3],
    ]
    cell = read_cell(path, 9)
    assert cell is not None
    assert cell.equals(TABLE.slice(3, 1))
    assert read_cell(path, 1) is None
    assert {bucket: size.rows for bucket, size in cell_sizes(path).items()} == {0: 2, 5: 3, 9: 1}


def test_no_rows_are_no_cells(tmp_path: Path) -> None:
    path = str(tmp_path / "cells.parquet")
    write_cells(path, TABLE.slice(0, 0), np.array([], np.int64))
    assert cell_sizes(path) == {}
    assert read_cell(path, 0) is None


def test_sizes_are_what_a_cell_takes_decoded(tmp_path: Path) -> None:
    path = str(tmp_path / "cells.parquet")
    table = pa.table({"text": ["x" * 1000] * 100})
    write_cells(path, table, np.zeros(100, np.int64))
    assert cell_sizes(path) == {0: CellSize(100, pytest.approx(100_000, rel=0.05))}
