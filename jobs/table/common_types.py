"""Finds a type that holds the values of a column whose type is not the same in all files. No value may change in it."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from jobs.table.column_types import WHOLE_BITS, is_list

DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
"""Decimal digits of an integer of so many bits."""


class NoCommonTypeError(ValueError):
    """Two files have types of which no type holds all values."""


def common_type(types: Mapping[str, pa.DataType]) -> pa.DataType:
    """A type that holds the values of a column in all files; raises NoCommonTypeError, which names two of them."""
    (path, common), *others = types.items()
    for other, data_type in others:
        both = type_of_both(common, data_type)
        if both is None:
            raise NoCommonTypeError(f"is {common} in {path} and {data_type} in {other}")
        path, common = (path, common) if both == common else (other, both)
    return common


def type_of_both(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that holds the values of both types; None where there is none."""
    types = [one, other]
    if any(map(pa.types.is_decimal, types)):  # Arrow gives an integer beside a decimal too few digits
        types = [pa.decimal128(DIGITS[kind.bit_width]) if pa.types.is_integer(kind) else kind for kind in types]
    schemas = [pa.schema([pa.field("column", data_type)]) for data_type in types]
    try:
        both = pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except pa.ArrowException:
        return None
    return both if holds(both, one) and holds(both, other) else None


def holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether a cast from `narrow` to `wide`, which Arrow takes for a promotion, keeps every value."""
    types = pa.types
    if wide == narrow or types.is_null(narrow):
        return True
    if types.is_integer(narrow):
        return holds_integers(wide, narrow)
    if types.is_floating(narrow):
        return bool(types.is_floating(wide) and wide.bit_width >= narrow.bit_width)
    if types.is_decimal(narrow):
        is_longer = types.is_decimal(wide) and wide.precision - wide.scale >= narrow.precision - narrow.scale
        return bool(is_longer and wide.scale >= narrow.scale)
    if types.is_timestamp(narrow) or types.is_duration(narrow):
        return bool(wide.unit != "ns")  # which end in 2262; coarser units hold all years that a calendar has
    if types.is_struct(narrow):
        fields = {field.name: field.type for field in wide}
        return len(fields) == wide.num_fields and all(holds(fields[field.name], field.type) for field in narrow)
    if types.is_map(narrow):
        return holds(wide.key_type, narrow.key_type) and holds(wide.item_type, narrow.item_type)
    if is_list(narrow):
        return holds(wide.value_type, narrow.value_type)
    return True  # texts, bytes, dates and times of day


def holds_integers(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether a type holds all integers of another one."""
    types = pa.types
    if types.is_floating(wide):
        return bool(narrow.bit_width <= WHOLE_BITS[wide.bit_width])
    if types.is_decimal(wide):
        return bool(DIGITS[narrow.bit_width] <= wide.precision - wide.scale)
    has_sign = types.is_signed_integer(narrow)
    if has_sign == types.is_signed_integer(wide):
        return bool(wide.bit_width >= narrow.bit_width)
    return bool(not has_sign and wide.bit_width > narrow.bit_width)
