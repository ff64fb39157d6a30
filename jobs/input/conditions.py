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
from typing import Any, NamedTuple

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

OPERATORS = ("=", "!=", "<", "<=", ">", ">=", "in")


class Span(NamedTuple):
    """What one value of a condition means: all from `first` to `last`. They differ for a date among times only."""

    first: pa.Scalar
    last: pa.Scalar


def is_one_value(span: Span) -> bool:
    """Whether there is nothing between the ends of a span."""
    return bool(span.first.equals(span.last))


def equals(column: Any, span: Span) -> Any:
    """Which values lie in a span."""
    if is_one_value(span):
        return pc.equal(column, span.first)
    return pc.and_(pc.greater_equal(column, span.first), pc.less_equal(column, span.last))


PASSING: dict[str, Callable[[Any, Span], Any]] = {
    "=": equals,
    "!=": lambda column, span: pc.invert(equals(column, span)),
    "<": lambda column, span: pc.less(column, span.first),
    "<=": lambda column, span: pc.less_equal(column, span.last),
    ">": lambda column, span: pc.greater(column, span.last),
    ">=": lambda column, span: pc.greater_equal(column, span.first),
    "in": equals,
}
"""Which values of a column pass; null where the column is null. With `in`, one of several spans is enough."""

WITHIN: dict[str, Callable[[Any, Any, Any, Any], bool]] = {
    "=": lambda low, high, first, last: low <= last and first <= high,
    "!=": lambda low, high, first, last: not first <= low <= high <= last,
    "<": lambda low, _, first, __: operator.lt(low, first),
    "<=": lambda low, _, __, last: operator.le(low, last),
    ">": lambda _, high, __, last: operator.gt(high, last),
    ">=": lambda _, high, first, __: operator.ge(high, first),
    "in": lambda low, high, first, last: low <= last and first <= high,
}
"""Whether something between `low` and `high` may pass, where a span goes from `first` to `last`."""


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
                span_of(value, comparable)
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
        values = column.cast(comparable)
        spans = self._spans(comparable)
        # is_in tells 0.0 from -0.0, and knows no days.
        if self.operator == "in" and not pa.types.is_floating(comparable) and all(map(is_one_value, spans)):
            return pc.is_in(values, pa.array([span.first for span in spans], comparable))
        return reduce(pc.or_, (PASSING[self.operator](values, span) for span in spans))

    def may_match(self, statistics: pq.Statistics | None, data_type: pa.DataType) -> bool:
        """False where the statistics of a row group say that no row passes; true where they say nothing of use."""
        comparable = comparable_type(data_type)
        if statistics is None or not statistics.has_min_max or pa.types.is_null(comparable):
            return True
        try:
            low, high = (in_python(pa.scalar(bound, comparable)) for bound in (statistics.min, statistics.max))
            if self.operator == "!=" and not has_exact_bounds(comparable):
                return True
            if any(isinstance(bound, float) and isnan(bound) for bound in (low, high)):
                return True
            return any(WITHIN[self.operator](low, high, *map(in_python, span)) for span in self._spans(comparable))
        except (ValueError, TypeError, OverflowError, pa.ArrowException):  # bounds that cannot be read as values
            return True

    def _spans(self, comparable: pa.DataType) -> list[Span]:
        return [span_of(value, comparable) for value in self.values]


class UnfitError(ValueError):
    """A value is well formed and still does not fit its column."""


def parse_condition(text: str) -> Condition:
    """Parses a condition such as `language = de`, `day >= 2026-11-01` or `name in 'a b', c`; raises ConfigError."""
    found = CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--where is {text!r}; give COLUMN OPERATOR VALUE with one of {', '.join(OPERATORS)}, such as "
            "'language = de'"
        )
    column, sign, value = found["column"], found["operator"], found["value"]
    values = list_items(value) if sign == "in" else (unquoted(value),)
    if not value or values is None:
        raise ConfigError(f"--where is {text!r}; after `{sign}` comes {VALUE_RULES[sign == 'in']}")
    if value[0] in "=<>!":
        raise ConfigError(f"--where is {text!r}; the operator is one of {', '.join(OPERATORS)}")
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


def span_of(text: str, comparable: pa.DataType) -> Span:
    """What a text means in a column; a date means the whole day among times. Raises what `typed` does."""
    first = typed(text, comparable)
    if not pa.types.is_timestamp(comparable) or not is_date(text):
        return Span(first, first)
    day = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[comparable.unit] * 24 * 60 * 60
    return Span(first, pa.scalar(first.value + day - 1, pa.int64()).cast(comparable))


def in_python(value: pa.Scalar) -> Any:
    """The value, to be compared; a time is a number in its column's unit, since Python has no nanoseconds."""
    return value.value if pa.types.is_timestamp(value.type) else value.as_py()


def is_date(text: str) -> bool:
    """Whether a text is a date without a time."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


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
