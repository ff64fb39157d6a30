"""Types that hold the values of a column in all files."""

from __future__ import annotations

import pyarrow as pa
import pytest

from jobs.table.common_types import NoCommonTypeError, common_type

EVENTS = pa.struct({"at": pa.timestamp("us"), "number": pa.int32()})


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int8(), pa.uint8(), pa.int16()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.uint64(), pa.uint64()),
        (pa.decimal128(10, 2), pa.int32(), pa.decimal128(12, 2)),
        (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.date64(), pa.date64()),
        (pa.time32("s"), pa.time64("ns"), pa.time64("ns")),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (
            pa.struct({"number": pa.int64()}),
            EVENTS,
            pa.struct({"number": pa.int64(), "at": pa.timestamp("us")}),
        ),
    ],
    ids=str,
)
def test_the_type_of_both(one: pa.DataType, other: pa.DataType, both: pa.DataType) -> None:
    assert common_type({"a": one, "b": other}) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.timestamp("us"), pa.timestamp("ns")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.duration("ms"), pa.duration("ns")),
        (pa.uint64(), pa.int64()),
        (pa.int64(), pa.float64()),
        (pa.int64(), pa.float32()),
        (pa.decimal128(10, 2), pa.float64()),
        (pa.decimal256(76, 70), pa.int64()),
        (pa.date32(), pa.timestamp("us")),
        (pa.string(), pa.int64()),
        (pa.list_(pa.uint64()), pa.list_(pa.int64())),
        (pa.struct({"at": pa.timestamp("ns")}), EVENTS),
        (pa.map_(pa.string(), pa.uint64()), pa.map_(pa.string(), pa.int64())),
    ],
    ids=str,
)
def test_where_no_type_holds_both_the_error_names_both(one: pa.DataType, other: pa.DataType) -> None:
    for first, second in ((one, other), (other, one)):
        with pytest.raises(NoCommonTypeError) as error:
            common_type({"a.parquet": first, "b.parquet": second})
        assert str(error.value) == f"is {first} in a.parquet and {second} in b.parquet"
