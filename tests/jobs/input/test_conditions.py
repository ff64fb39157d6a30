"""Conditions on columns: how they are read, which rows pass, and which row groups need not be read for that."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.input.conditions import OPERATORS, Condition, check_condition_columns, parse_condition
from jobs.input.cutting import planned_ranges, read_plan
from jobs.input.reading import read_rows
from jobs.input.selection import Selection
from jobs.records import Unit
from pipelines.errors import ConfigError

PYTHON: dict[str, Callable[[Any, list[Any]], bool]] = {
    "=": lambda cell, values: cell == values[0],
    "!=": lambda cell, values: cell != values[0],
    "<": lambda cell, values: operator.lt(cell, values[0]),
    "<=": lambda cell, values: operator.le(cell, values[0]),
    ">": lambda cell, values: operator.gt(cell, values[0]),
    ">=": lambda cell, values: operator.ge(cell, values[0]),
    "in": lambda cell, values: cell in values,
}
"""The operators as Python has them."""

halves = st.integers(-20, 20).map(lambda number: number / 2)  # exact in every width
days = st.dates(date(2026, 10, 28), date(2026, 11, 4))
moments = st.datetimes(datetime(2026, 11, 1), datetime(2026, 11, 1, 0, 0, 9)).map(lambda t: t.replace(microsecond=0))
zoned = moments.map(lambda moment: moment.replace(tzinfo=UTC))
texts = st.sampled_from(["", "a", "b", "de", "en", "é", "x, y"])
COLUMNS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    *[(data_type, texts) for data_type in (pa.string(), pa.large_string(), pa.string_view())],
    (pa.dictionary(pa.int32(), pa.string()), texts),
    *[(data_type, st.integers(0, 9)) for data_type in (pa.int8(), pa.int64(), pa.uint8(), pa.uint32(), pa.uint64())],
    (pa.int32(), st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3)),
    *[(data_type, halves) for data_type in (pa.float16(), pa.float32())],
    (pa.float64(), st.sampled_from([0.0, -0.0, 0.5]) | halves | st.sampled_from([float("nan"), float("inf")])),
    (pa.bool_(), st.booleans()),
    *[(data_type, days) for data_type in (pa.date32(), pa.date64())],
    *[(pa.timestamp(unit), moments) for unit in ("s", "ms", "us", "ns")],
    (pa.timestamp("us", "Europe/Berlin"), zoned),
]


def as_text(value: Any) -> str:
    """As a user would write it."""
    return value.isoformat() if isinstance(value, date) else str(value)


@st.composite
def filtered_columns(draw: st.DrawFn) -> tuple[pa.Array, list[Any], str, list[Any], int]:
    data_type, cells = draw(st.sampled_from(COLUMNS))
    values = draw(st.lists(st.none() | cells, min_size=1, max_size=12))
    sign = draw(st.sampled_from(list(OPERATORS)))
    wanted = draw(
        st.lists(cells.filter(lambda cell: str(cell) != "nan"), min_size=1, max_size=3 if sign == "in" else 1)
    )
    return pa.array(values, data_type), values, sign, wanted, draw(st.integers(1, 5))


@given(filtered_columns())
def test_the_rows_that_are_read_are_those_that_pass(
    tmp_path_factory: pytest.TempPathFactory, filtered: tuple[pa.Array, list[Any], str, list[Any], int]
) -> None:
    """In every type, with nulls, whatever statistics say and however the file is cut."""
    column, cells, sign, wanted, row_group_size = filtered
    path = str(tmp_path_factory.getbasetemp() / "filtered.parquet")
    table = pa.table({"value": column, "number": range(len(cells))})
    pq.write_table(table, path, row_group_size=row_group_size)
    selection = Selection(where=(Condition("value", sign, tuple(map(as_text, wanted))),))
    plan = read_plan(path, selection)
    units = [Unit(path, *rows) for rows in planned_ranges(plan, 64, 0, plan.rows)]
    read = [number for unit in units for number in read_rows(unit, selection)["number"].to_pylist()]
    expected = [i for i, cell in enumerate(cells) if cell is not None and PYTHON[sign](cell, wanted)]
    assert read == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("language = de", Condition("language", "=", ("de",))),
        ("language=de", Condition("language", "=", ("de",))),
        ("a b != c d", Condition("a b", "!=", ("c d",))),
        ("day >= 2026-11-01", Condition("day", ">=", ("2026-11-01",))),
        ("n<=-3", Condition("n", "<=", ("-3",))),
        ("name = ' a '", Condition("name", "=", (" a ",))),
        ('name = ""', Condition("name", "=", ("",))),
        ("name = '= x'", Condition("name", "=", ("= x",))),
        ("text = it's", Condition("text", "=", ("it's",))),
        ("lang in de,fr", Condition("lang", "in", ("de", "fr"))),
        ("lang in (de, 'a, b', \"\")", Condition("lang", "in", ("de", "a, b", ""))),
        ("lang in(de)", Condition("lang", "in", ("de",))),
        ("main in x", Condition("main", "in", ("x",))),
        ("in = 5", Condition("in", "=", ("5",))),
    ],
)
def test_conditions_as_they_are_written(text: str, expected: Condition) -> None:
    assert parse_condition(text) == expected
    assert parse_condition(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("language", "--where is 'language'; give COLUMN OPERATOR VALUE with one of =, !=, <, <=, >, >=, in, such as"),
        ("= de", "give COLUMN OPERATOR VALUE"),
        ("language like d%", "give COLUMN OPERATOR VALUE"),
        ("language == de", "the operator is one of =, !=,"),
        ("language <> de", "the operator is one of =, !=,"),
        ("language =", "after `=` comes a value; an empty one is ''"),
        ("lang in a,,b", "after `in` comes values with commas between"),
        ("lang in ()", "after `in` comes values with commas between"),
        ("lang in 'a", "after `in` comes values with commas between"),
    ],
)
def test_what_is_no_condition_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_condition(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("data_type", "value", "message"),
    [
        (pa.int32(), "x", "`c` of f is int32, and 'x' is no such value; give an integer in its range, such as 17"),
        (pa.int32(), "3.5", "'3.5' is no such value; give an integer"),
        (pa.uint8(), "256", "'256' is no such value; give an integer in its range"),
        (pa.uint8(), "-1", "'-1' is no such value; give an integer in its range"),
        (pa.float64(), "much", "'much' is no such value; give a number, such as 0.5"),
        (pa.float64(), "nan", "'nan' is no such value (nothing equals it); give a number"),
        (pa.bool_(), "yes", "'yes' is no such value; give true or false"),
        (pa.date32(), "2026-13-01", "'2026-13-01' is no such value; give a date, such as 2026-11-01"),
        (pa.timestamp("ms"), "noon", "'noon' is no such value; give a time, such as 2026-11-01T12:30:00"),
        (pa.timestamp("ms"), "2026-11-01T00:00:00Z", "(the column has no time zone); give a time"),
        (pa.timestamp("s"), "2026-11-01T00:00:00.5", "'2026-11-01T00:00:00.5' is no such value; give a time"),
        (pa.list_(pa.string()), "a", "`c` of f is list<item: string>; conditions can be put on texts, integers,"),
        (pa.decimal128(5, 1), "1", "`c` of f is decimal128(5, 1); conditions can be put on"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_its_column_is_a_usage_error(
    data_type: pa.DataType, value: str, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        Condition("c", "=", (value,)).check(data_type, "f")
    assert message in str(error.value)
    assert str(error.value).startswith("--where 'c = ")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("value = 2026-11-27", [1, 2]),
        ("value != 2026-11-27", [0, 3]),
        ("value < 2026-11-27", [0]),
        ("value <= 2026-11-27", [0, 1, 2]),
        ("value > 2026-11-27", [3]),
        ("value >= 2026-11-27", [1, 2, 3]),
        ("value in 2026-11-26, 2026-11-28T00:00:00", [0, 3]),
        ("value = 2026-11-27T00:00:00", [1]),
        ("value <= 2026-11-27T00:00:00", [0, 1]),
    ],
)
def test_a_date_means_the_whole_day_of_a_column_of_times(
    tmp_path: Path, unit: str, zone: str | None, condition: str, rows: list[int]
) -> None:
    """In UTC, where the column has a zone; and in statistics, too."""
    days = [datetime(2026, 11, 26, 23, 59, 59), datetime(2026, 11, 27), datetime(2026, 11, 27, 23, 59, 59)]
    values = pa.array([*days, datetime(2026, 11, 28)], pa.timestamp(unit)).cast(pa.timestamp(unit, zone and "UTC"))
    column = values.cast(pa.timestamp(unit, zone))
    assert parse_condition(condition).passing(column).to_pylist() == [i in rows for i in range(4)]
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"value": column}), path, row_group_size=1, version="2.6")
    kept = [start for start, _ in read_plan(path, Selection(where=(parse_condition(condition),))).kept]
    assert kept == rows


def test_a_time_without_zone_is_utc_where_the_column_has_one() -> None:
    column = pa.array([datetime(2026, 11, 1, 12, tzinfo=UTC)], pa.timestamp("ms", "Europe/Berlin"))
    for value in ("2026-11-01T12:00:00", "2026-11-01T13:00:00+01:00", "2026-11-01T12:00:00Z"):
        assert Condition("c", "=", (value,)).passing(column).to_pylist() == [True]


def test_a_column_of_nulls_only_matches_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"c": pa.nulls(3), "n": [1, 2, 3]}), path)
    for sign in OPERATORS:
        condition = Condition("c", sign, ("1",))
        condition.check(pa.null(), path)
        assert read_rows(Unit(path, 0, 3), Selection(where=(condition,))).num_rows == 0


@pytest.mark.parametrize("condition", ["value in 0, 3", "value in -0.0, 3", "value = 0", "value = -0.0"])
@pytest.mark.parametrize("data_type", [pa.float16(), pa.float32(), pa.float64()])
def test_both_zeros_are_equal(condition: str, data_type: pa.DataType) -> None:
    column = pa.array([0.0, -0.0, None, 1.0]).cast(data_type)
    assert parse_condition(condition).passing(column).to_pylist() == [True, True, None, False]


def test_a_column_that_no_file_has_is_a_usage_error() -> None:
    schemas = [pa.schema({"a": pa.int32()}), pa.schema({"b": pa.int32()})]
    check_condition_columns([Condition("b", "=", ("1",))], schemas)
    with pytest.raises(ConfigError, match="--where 'c = 1': there is no column `c`; there are `a`, `b`"):
        check_condition_columns([Condition("c", "=", ("1",))], schemas)


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "data_type", "condition", "rows_planned"),
    [
        ([7] * 4 + [8, 7, None, 7], pa.int64(), "value != 7", 4),
        ([True] * 4, pa.bool_(), "value != true", 0),
        ([date(2026, 11, 1)] * 4, pa.date32(), "value != 2026-11-01", 0),
        ([datetime(2026, 11, 1)] * 4, pa.timestamp("us"), "value != 2026-11-01", 0),
        ([7.0, 7.0, NAN, 7.0], pa.float64(), "value != 7", 4),
        (["de"] * 4, pa.string(), "value != de", 4),
        ([1.0, NAN, NAN, 9.0], pa.float64(), "value > 8", 4),
        ([NAN] * 4, pa.float64(), "value != 7", 4),
    ],
)
def test_row_groups_that_statistics_may_leave_out(
    tmp_path: Path, values: list[Any], data_type: pa.DataType, condition: str, rows_planned: int
) -> None:
    """`!=` leaves out a group of one value, where no NaN and no shortened text can be behind it."""
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"value": pa.array(values, data_type)}), path, row_group_size=4)
    assert sum(rows for _, rows in read_plan(path, Selection(where=(parse_condition(condition),))).kept) == rows_planned
