"""Types of columns with INT96 at any depth."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import read_parquet

TIME = pa.timestamp("us", "UTC")
MOMENT = 253_402_214_400_000_000
"""In 9999."""


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (TIME, MOMENT),
        (pa.list_(TIME), [MOMENT, None]),
        (pa.large_list(TIME), [MOMENT]),
        (pa.list_(TIME, 2), [MOMENT, 0]),
        (pa.struct({"a": pa.string(), "at": TIME, "b": pa.list_(pa.struct({"c": TIME, "d": pa.int8()}))}), None),
        (pa.struct({"a": pa.string(), "at": TIME}), {"a": "x", "at": MOMENT}),
        (pa.map_(pa.string(), TIME), [("key", MOMENT)]),
        (pa.map_(TIME, pa.string()), [(MOMENT, "value")]),
    ],
    ids=str,
)
def test_a_column_of_any_type_comes_back(tmp_path: Path, kind: pa.DataType, value: object) -> None:
    """Between others, whose types must not change."""
    path = tmp_path / "a.parquet"
    column = pa.array([value, None, value], kind) if not pa.types.is_map(kind) else pa.array([value, [], value], kind)
    before, after = pa.array([None, {"x": [1]}, {"x": []}]), pa.array(["a", "b", None])
    table = pa.table({"before": before, "column": column, "after": after})
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, row_group_size=2)
    assert "INT96" in {
        pq.read_metadata(path).schema.column(i).physical_type for i in range(pq.read_metadata(path).num_columns)
    }
    read = read_parquet(str(path), lambda file: file.read())
    assert read["before"].to_pylist() == table["before"].to_pylist()
    assert read["after"].to_pylist() == table["after"].to_pylist()
    assert read["column"].to_pylist() == table["column"].to_pylist()
    assert read.schema == read_parquet(str(path), lambda file: file.schema_arrow)
