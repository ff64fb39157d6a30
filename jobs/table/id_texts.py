"""Gives ids of other types the one text that they have: integers, decimals without a fraction, UUIDs, whole floats."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.table.column_types import WHOLE_BITS, is_uuid


def id_texts(array: pa.Array) -> pa.Array:
    """Texts of an array of ids, in its order; one of texts or bytes comes back as it is.

    A float that is not whole, or too large to stand for one integer, becomes a text that no other type has, such as
    `17.5` or `1e+17`.
    """
    types = pa.types
    if is_uuid(array.type):
        return pa.array([None if value is None else uuid_text(value) for value in array.storage.to_pylist()])
    if types.is_integer(array.type) or types.is_decimal(array.type):
        return array.cast(pa.string())
    if types.is_floating(array.type):
        values, whole = array.cast(pa.float64()), is_whole(array)
        integers = pa.array(np.where(whole, values.fill_null(0).to_numpy(), 0).astype(np.int64)).cast(pa.string())
        texts = integers.to_pylist()
        for i in np.flatnonzero(~whole).tolist():
            texts[i] = None if values[i].as_py() is None else repr(values[i].as_py())
        return pa.array(texts, pa.string())
    return array


def is_whole(array: pa.Array) -> np.ndarray:
    """For each of an array of floats whether it stands for one integer; a null does not."""
    largest = 1 << WHOLE_BITS[array.type.bit_width]  # beyond it a float stands for several
    values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(values) <= largest) & (values == np.floor(values)))


def uuid_text(value: bytes) -> str:
    """A UUID in lower case with its four hyphens (RFC 9562)."""
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
