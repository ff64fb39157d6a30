"""Windows over long documents, and the one logit that a document's chunks leave."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.chunking import chunk_windows, count_windows, max_over_chunks


@pytest.mark.parametrize(
    ("num_tokens", "window", "overlap_tokens", "expected"),
    [
        (3000, 1002, 80, [(0, 1002), (922, 1924), (1844, 2846), (1998, 3000)]),
        (0, 10, 2, [(0, 0)]),
        (10, 10, 2, [(0, 10)]),
        (11, 10, 2, [(0, 10), (1, 11)]),
        (30, 12, 80, [(0, 12), (9, 21), (18, 30)]),
        (4, 1, 80, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
    ids=["worked example", "empty", "just fits", "one over", "overlap capped at a quarter", "window of one"],
)
def test_windows(num_tokens: int, window: int, overlap_tokens: int, expected: list[tuple[int, int]]) -> None:
    assert chunk_windows(num_tokens, window, overlap_tokens) == expected


@given(num_tokens=st.integers(0, 5000), window=st.integers(1, 1100), overlap_tokens=st.integers(0, 1200))
def test_windows_cover_every_token_in_order(num_tokens: int, window: int, overlap_tokens: int) -> None:
    windows = chunk_windows(num_tokens, window, overlap_tokens)

    assert windows[0][0] == 0
    assert windows[-1][1] == num_tokens
    for (start, end), (next_start, next_end) in pairwise(windows):
        assert start < next_start <= end < next_end


@given(num_tokens=st.integers(0, 5000), window=st.integers(1, 1100), overlap_tokens=st.integers(0, 1200))
def test_windows_are_counted_without_making_them(num_tokens: int, window: int, overlap_tokens: int) -> None:
    assert count_windows(num_tokens, window, overlap_tokens) == len(chunk_windows(num_tokens, window, overlap_tokens))


@given(num_tokens=st.integers(0, 5000), window=st.integers(1, 1100), overlap_tokens=st.integers(0, 1200))
def test_every_window_of_a_long_document_is_of_full_width(num_tokens: int, window: int, overlap_tokens: int) -> None:
    widths = {end - start for start, end in chunk_windows(num_tokens, window, overlap_tokens)}

    assert widths == {min(num_tokens, window)}


@given(excess=st.integers(1, 5000), window=st.integers(1, 1100), overlap_tokens=st.integers(0, 1200))
def test_the_number_of_windows_is_jinas(excess: int, window: int, overlap_tokens: int) -> None:
    """1 + ceil((n - w) / (w - overlap)) for n tokens that do not fit a window w."""
    overlap = min(overlap_tokens, window // 4)

    windows = chunk_windows(window + excess, window, overlap_tokens)

    assert len(windows) == 1 + math.ceil(excess / (window - overlap))


@given(num_tokens=st.integers(0, 5000), window=st.integers(1, 1100), overlap_tokens=st.integers(0, 1200))
def test_windows_are_those_of_jinas_loop(num_tokens: int, window: int, overlap_tokens: int) -> None:
    """The loop that jina-reranker-v2 describes: step on by w - overlap; what reaches the end becomes the last w."""
    expected = []
    start = 0
    while start + window < num_tokens:
        expected.append((start, start + window))
        start += window - min(overlap_tokens, window // 4)
    expected.append((max(0, num_tokens - window), num_tokens))

    assert chunk_windows(num_tokens, window, overlap_tokens) == expected


@given(st.lists(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=5), max_size=8))
def test_a_document_has_the_maximum_over_its_chunks(documents: list[list[float]]) -> None:
    chunk_logits = np.array([logit for chunks in documents for logit in chunks], dtype=np.float32)

    actual = max_over_chunks(chunk_logits, [len(chunks) for chunks in documents])

    assert actual.tolist() == [max(chunks) for chunks in documents]
    assert actual.dtype == np.float32


def test_nan_in_one_chunk_shows_in_its_document_alone() -> None:
    logits = np.array([1, np.nan, 3, 4], dtype=np.float32)

    np.testing.assert_array_equal(max_over_chunks(logits, [1, 2, 1]), [1, np.nan, 4])
