"""`--where`: conditions on a column, which are checked against rows, statistics of row groups, and values in paths.

Nulls never match, as in SQL; neither do the rows of a file that lacks the column.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import reduce
from math import isnan
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.table.column_types import plain_type
from pipelines.errors import ConfigError

CONDITION = re.compile(
    r"\s*(?P<column>.+?)\s*(?P<operator>!=|<=|>=|=|<|>|(?<=\s)in(?=[\s(]))\s*(?P<value>.*?)\s*", re.DOTALL
)
ITEM = re.compile(r"""\s*('[^']*'|"[^"]*"|[^,'"\s][^,'"]*?)\s*(?:,|$)""")
"""An item of the list of `in`, up to its comma."""

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "in": pc.is_in,
}
"""Of a column with the one value, or with the array of values; null where the column is null, or false."""

WITHIN: dict[str, Callable[[Any, Any, Any], bool]] = {
    "=": lambda low, high, value: low <= value <= high,
    "!=": lambda low, high, value: not low == high == value,
    "<": lambda low, _, value: operator.lt(low, value),
    "<=": lambda low, _, value: operator.le(low, value),
    ">": lambda _, high, value: operator.gt(high, value),
    ">=": lambda _, high, value: operator.ge(high, value),
    "in": lambda low, high, value: low <= value <= high,
}
"""Whether something between `low` and `high` may match the value."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, `COLUMN OPERATOR VALUE`. Its values are texts until the type of a file's column is known."""

    column: str
    operator: str
    values: tuple[str, ...]
    """One, or several for `in`."""

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {', '.join(map(quoted, self.values))}"

    def check(self, data_type: pa.DataType, path: str) -> None:
        """Raises ConfigError when the column of a file cannot be compared with the values."""
        comparable = comparable_type(data_type)
        if comparable is None:
            raise ConfigError(
                f"--where {str(self)!r}: `{self.column}` of {path} is {data_type}; conditions can be put on texts, "
                "integers, floats, booleans, dates and timestamps"
            )
        if pa.types.is_null(comparable):
            return
        for value in self.values:
            try:
                typed(value, comparable)
            except (ValueError, KeyError, OverflowError, pa.ArrowException) as error:
                why = f" ({error})" if isinstance(error, UnfitError) else ""
                raise ConfigError(
                    f"--where {str(self)!r}: `{self.column}` of {path} is {data_type}, and {value!r} is no such "
                    f"value{why}; give {example(comparable)}"
                ) from None

    def passing(self, column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
        """For each value of a checked column whether it passes: true, or else false or null."""
        comparable = comparable_type(column.type)
        if pa.types.is_null(comparable):
            return pa.array([False] * len(column))
        values = self._typed_values(comparable)
        if self.operator == "in" and pa.types.is_floating(comparable):  # is_in tells 0.0 from -0.0
            floats = column.cast(comparable)
            return reduce(pc.or_, (pc.equal(floats, value) for value in values))
        compare = COMPARISONS[self.operator]
        return compare(column.cast(comparable), values if self.operator == "in" else values[0])

    def may_match(self, statistics: pq.Statistics | None, data_type: pa.DataType) -> bool:
        """False where the statistics of a row group say that no row passes; true where they say nothing of use."""
        comparable = comparable_type(data_type)
        if statistics is None or not statistics.has_min_max or pa.types.is_null(comparable):
            return True
        try:
            low, high = (pa.scalar(bound, comparable).as_py() for bound in (statistics.min, statistics.max))
            if self.operator == "!=" and not has_exact_bounds(comparable):
                return True
            values = self._typed_values(comparable).to_pylist()
            if any(isinstance(bound, float) and isnan(bound) for bound in (low, high)):
                return True
            return any(WITHIN[self.operator](low, high, value) for value in values)
        except (ValueError, TypeError, OverflowError, pa.ArrowException):  # bounds that cannot be read as values
            return True

    def _typed_values(self, comparable: pa.DataType) -> pa.Array:
        return pa.array([typed(value, comparable) for value in self.values], comparable)


class UnfitError(ValueError):
    """A value is well formed and still does not fit its column."""


def parse_condition(text: str) -> Condition:
    """Parses a condition such as `language = de`, `day >= 2026-11-01` or `name in 'a b', c`; raises ConfigError."""
    found = CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--where is {text!r}; give COLUMN OPERATOR VALUE with one of {', '.join(COMPARISONS)}, such as "
            "'language = de'"
        )
    column, sign, value = found["column"], found["operator"], found["value"]
    values = list_items(value) if sign == "in" else (unquoted(value),)
    if not value or values is None:
        raise ConfigError(f"--where is {text!r}; after `{sign}` comes {VALUE_RULES[sign == 'in']}")
    if value[0] in "=<>!":
        raise ConfigError(f"--where is {text!r}; the operator is one of {', '.join(COMPARISONS)}")
    return Condition(column, sign, values)


VALUE_RULES = {
    False: "a value; an empty one is ''",
    True: "values with commas between, such as de, fr; one with a comma or a quote of its own is put in quotes",
}


def list_items(value: str) -> tuple[str, ...] | None:
    """The values of `a, 'b c'` or `(a, 'b c')`; None where it is no such list."""
    inner = value[1:-1] if value.startswith("(") and value.endswith(")") else value
    items, position = [], 0
    while position < len(inner):
        found = ITEM.match(inner, position)
        if found is None:
            return None
        items.append(unquoted(found[1]))
        position = found.end()
    return tuple(items) or None


def unquoted(value: str) -> str:
    """The value without the quotes around it, if there are any."""
    return value[1:-1] if re.fullmatch(r"'[^']*'|\"[^\"]*\"", value) else value


def quoted(value: str) -> str:
    """The value as it may be written, in quotes where it needs them."""
    if re.fullmatch(r"[\w.:+-]+", value):
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


def check_condition_columns(conditions: Iterable[Condition], schemas: Iterable[pa.Schema]) -> None:
    """Raises ConfigError when a condition's column is in none of the schemas."""
    names = sorted({name for schema in schemas for name in schema.names})
    for condition in conditions:
        if condition.column not in names:
            listed = ", ".join(f"`{name}`" for name in names)
            raise ConfigError(
                f"--where {str(condition)!r}: there is no column `{condition.column}`; there are {listed}"
            )


def comparable_type(data_type: pa.DataType) -> pa.DataType | None:
    """The type in which a column's values are compared; None where they cannot be. All nulls stay null."""
    types, plain = pa.types, plain_type(data_type)
    if types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain):
        return pa.large_string()
    if types.is_float16(plain):
        return pa.float32()
    is_ordered = (types.is_integer, types.is_floating, types.is_boolean, types.is_date, types.is_timestamp)
    return plain if types.is_null(plain) or any(is_type(plain) for is_type in is_ordered) else None


def has_exact_bounds(comparable: pa.DataType) -> bool:
    """Whether statistics of such a column bound all of its values.

    They leave NaN out, which `!=` lets pass, and writers shorten those of texts.
    """
    types = pa.types
    is_exact = (types.is_integer, types.is_boolean, types.is_date, types.is_timestamp)
    return any(is_type(comparable) for is_type in is_exact)


def typed(text: str, comparable: pa.DataType) -> pa.Scalar:
    """The value that a text stands for; raises ValueError and its like, KeyError, OverflowError or ArrowException."""
    types = pa.types
    if types.is_boolean(comparable):
        return pa.scalar({"true": True, "false": False}[text.lower()])
    if types.is_integer(comparable):
        return pa.scalar(int(text), comparable)
    if types.is_floating(comparable):
        if isnan(float(text)):
            raise UnfitError("nothing equals it")
        return pa.scalar(float(text), comparable)
    if types.is_date(comparable):
        return pa.scalar(date.fromisoformat(text), comparable)
    if types.is_timestamp(comparable):
        return timestamp(text, comparable)
    return pa.scalar(text, comparable)


def timestamp(text: str, comparable: pa.TimestampType) -> pa.TimestampScalar:
    """The moment that a text stands for; where the column has a time zone, a text without one is in UTC."""
    moment = datetime.fromisoformat(text)
    if comparable.tz is None and moment.tzinfo is not None:
        raise UnfitError("the column has no time zone")
    if comparable.tz is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return pa.scalar(moment, pa.timestamp("us", comparable.tz)).cast(comparable)  # which refuses to round


def example(comparable: pa.DataType) -> str:
    """An example of a value of a type, for messages."""
    types = pa.types
    if types.is_boolean(comparable):
        return "true or false"
    if types.is_integer(comparable):
        return "an integer in its range, such as 17"
    if types.is_floating(comparable):
        return "a number, such as 0.5"
    if types.is_date(comparable):
        return "a date, such as 2026-11-01"
    return "a time, such as 2026-11-01T12:30:00" + ("" if comparable.tz is None else "+01:00")
