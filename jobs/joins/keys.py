"""Values by which rows find each other, as bytes, and a hash of them that is the same in every process and version.

Two values are the same key when they are the same text: the integer 17 and the text `17` are, `017` and `17` are not.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from jobs.table.column_types import is_uuid
from jobs.table.id_texts import id_texts

WORD = 8
"""Bytes that are mixed at once."""
SEED, MULTIPLIER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
"""The golden ratio of 2^64, and a multiplier of MurmurHash3's finalizer (Austin Appleby, public domain)."""
HALF = np.uint64(32)
SHOWN_CHARACTERS = 80
"""Of a key in an error."""


def as_bytes(array: pa.Array) -> pa.Array:
    """Texts, bytes, ids of other types, or nulls as large_binary, whatever is around them; not checked to be UTF-8."""
    if isinstance(array, pa.ExtensionArray) and not is_uuid(array.type):
        return as_bytes(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return as_bytes(array.dictionary).take(array.indices)
    return id_texts(array).cast(pa.large_binary())


def column_as_bytes(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table as `as_bytes` gives it, in one array."""
    chunks = [as_bytes(chunk) for chunk in column.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.nulls(0, pa.large_binary())


def hashes(keys: pa.Array) -> np.ndarray:
    """A uint64 for each of an array of large_binary; nulls count as empty.

    All keys are hashed at once, eight bytes a turn; the last turns see only the longest of them.
    """
    if not len(keys):
        return np.empty(0, np.uint64)
    keys = keys.fill_null(b"")
    offsets = np.frombuffer(keys.buffers()[1], np.int64, len(keys) + 1, offset=8 * keys.offset)
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    words = overlapping_words(keys.buffers()[2], int(offsets[0]), int(offsets[-1] - offsets[0]))
    mixed = SEED ^ lengths.astype(np.uint64)
    position, rest = 0, np.flatnonzero(lengths > 0)
    while len(rest):
        word = words[starts[rest] + position]
        missing = np.maximum(0, WORD - (lengths[rest] - position)).astype(np.uint64)
        word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> (missing * np.uint64(8))
        mixed[rest] = mix(mixed[rest] ^ word)
        position += WORD
        rest = rest[lengths[rest] > position]
    return mix(mixed)


def overlapping_words(data: pa.Buffer | None, start: int, size: int) -> np.ndarray:
    """The eight bytes from each position on as a little-endian number, with zeros behind the end."""
    padded = np.zeros(size + WORD, np.uint8)
    if data is not None and size:
        padded[:size] = np.frombuffer(data, np.uint8, size, offset=start)
    words: np.ndarray = np.ndarray(size + 1, "<u8", padded, strides=(1,))
    return words


def mix(values: np.ndarray) -> np.ndarray:
    """Spreads every bit over all others."""
    for _ in range(2):
        values = (values ^ (values >> HALF)) * MULTIPLIER
    mixed: np.ndarray = values ^ (values >> HALF)
    return mixed


def without_wrapping(array: pa.Array) -> pa.Array:
    """The values themselves, without dictionaries and extension types around them; UUIDs stay."""
    if isinstance(array, pa.ExtensionArray) and not is_uuid(array.type):
        return without_wrapping(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return without_wrapping(array.dictionary).take(array.indices)
    return array


def shown(key: pa.Scalar) -> str:
    """A key in quotes, shortened."""
    text = key.as_py().decode(errors="replace") if key.is_valid else "null"
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
