"""Tells which types a column may have that holds texts, ids, or lists of them."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

WHOLE_BITS = {16: 11, 32: 24, 64: 53}
"""Integers of so many bits are exact in a float of 16, 32, 64 bits."""


def plain_type(data_type: pa.DataType) -> pa.DataType:
    """The type of the values themselves, without dictionary encoding and extension types around them; UUIDs stay."""
    while True:
        if isinstance(data_type, pa.BaseExtensionType) and not is_uuid(data_type):
            data_type = data_type.storage_type
        elif pa.types.is_dictionary(data_type):
            data_type = data_type.value_type
        else:
            return data_type


def may_be_text(data_type: pa.DataType) -> bool:
    """Whether a column of this type can hold texts: strings, bytes (read as UTF-8), or nothing but nulls."""
    types = pa.types
    return any(
        is_type(data_type)
        for is_type in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            is_bytes,
            types.is_null,
        )
    )


def is_bytes(data_type: pa.DataType) -> bool:
    """Whether this is a type of bytes of any length, which may be read as UTF-8 or may be no text."""
    types = pa.types
    return any(is_type(data_type) for is_type in (types.is_binary, types.is_large_binary, types.is_binary_view))


def is_uuid(data_type: pa.DataType) -> bool:
    """Whether this is the type of UUIDs, and not only of 16 bytes."""
    return isinstance(data_type, pa.UuidType)


def may_be_key(data_type: pa.DataType) -> bool:
    """Whether each value of this type has one obvious text: texts, integers, UUIDs, decimals without a fraction."""
    types = pa.types
    is_whole = types.is_integer(data_type) or (types.is_decimal(data_type) and data_type.scale == 0)
    return is_whole or may_be_text(data_type) or is_uuid(data_type)


def may_be_id(data_type: pa.DataType) -> bool:
    """Whether a column of this type can hold ids. Floats can, as far as they are whole, which their values decide."""
    return may_be_key(data_type) or bool(pa.types.is_floating(data_type))


def may_be_texts(data_type: pa.DataType) -> bool:
    """Whether a column of this type can hold lists of texts, or lists of structs."""
    return _may_be_list_of(data_type, may_be_text)


def has_texts(data_type: pa.DataType, text_field: str) -> bool:
    """Whether a column of this type can hold lists of texts, or of structs with a text in `text_field`."""
    struct_type = struct_of(data_type)
    if struct_type is None:
        return may_be_texts(data_type)
    kinds = [field.type for field in struct_type if field.name == text_field]
    return may_be_texts(data_type) and len(kinds) == 1 and may_be_text(plain_type(kinds[0]))


def may_be_ids(data_type: pa.DataType) -> bool:
    """Whether a column of this type can hold lists of ids, or lists of structs."""
    return _may_be_list_of(data_type, may_be_id)


def _may_be_list_of(data_type: pa.DataType, fits: Callable[[pa.DataType], bool]) -> bool:
    if pa.types.is_null(data_type):
        return True
    if not is_list(data_type):
        return False
    item_type = plain_type(data_type.value_type)
    return fits(item_type) or pa.types.is_struct(item_type)


def struct_of(list_type: pa.DataType) -> pa.StructType | None:
    """The type of the document structs; None where documents are texts or always null."""
    list_type = plain_type(list_type)
    item_type = plain_type(list_type.value_type) if is_list(list_type) else list_type
    return item_type if pa.types.is_struct(item_type) else None


def is_list(data_type: pa.DataType) -> bool:
    """Whether this is a list type of any kind."""
    types = pa.types
    return any(
        is_type(data_type)
        for is_type in (
            types.is_list,
            types.is_large_list,
            types.is_list_view,
            types.is_large_list_view,
            types.is_fixed_size_list,
        )
    )
