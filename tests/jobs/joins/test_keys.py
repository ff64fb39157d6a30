"""Keys: what counts as the same, and a hash that tells the rest apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.joins.keys import as_bytes, column_as_bytes, hashes

Keys = st.lists(st.none() | st.binary(max_size=40) | st.sampled_from([b"", b"a", b"a\0", b"\0"]))


@given(Keys, st.data())
def test_equal_keys_have_equal_hashes_wherever_they_stand_and_others_differ(
    keys: list[bytes | None], data: st.DataObject
) -> None:
    array = pa.array(keys, pa.large_binary())
    found = hashes(array)
    by_key = {key or b"": int(one) for key, one in zip(keys, found, strict=True)}
    assert found.tolist() == [by_key[key or b""] for key in keys]
    assert len(set(by_key.values())) == len(by_key)
    start = data.draw(st.integers(0, len(keys)))
    assert hashes(array[start:]).tolist() == found.tolist()[start:]


def test_hashes_are_the_same_in_every_version() -> None:
    """What one run partitioned another reads."""
    keys = pa.array([b"", b"d17", b"a document id of many letters"], pa.large_binary())
    assert hashes(keys).tolist() == [2960229369484007188, 5282602769494596673, 12971711106165187390]


def test_hashes_of_numbers_in_a_row_spread_over_few_buckets() -> None:
    counts = np.bincount(hashes(as_bytes(pa.array(range(64_000)))) % np.uint64(64), minlength=64)
    assert 800 < counts.min() <= counts.max() < 1_200


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["17", None, "x"]),
        pa.array(["17", None, "x"], pa.large_string()),
        pa.array(["17", None, "x"], pa.string_view()),
        pa.array([b"17", None, b"x"]),
        pa.array([b"17", None, b"x"], pa.binary_view()),
        pa.array(["17", None, "x"]).dictionary_encode(),
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(["17", None, "x"])),
    ],
    ids=lambda array: str(array.type)[:20],
)
def test_texts_of_any_type_are_the_same_keys(array: pa.Array) -> None:
    assert as_bytes(array).equals(pa.array([b"17", None, b"x"], pa.large_binary()))


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.int64()])
def test_an_integer_is_its_decimal_text_and_a_null_stays_null(kind: pa.DataType) -> None:
    assert as_bytes(pa.array([17, None], kind)).to_pylist() == [b"17", None]
    assert column_as_bytes(pa.chunked_array([[1], [], [2]], kind)).to_pylist() == [b"1", b"2"]
    assert column_as_bytes(pa.chunked_array([], pa.null())).to_pylist() == []
