"""A long document -> overlapping chunks, and chunk logits -> one logit per document. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def chunk_windows(num_tokens: int, window: int, overlap_tokens: int) -> list[tuple[int, int]]:
    """Token ranges that cover a document of `num_tokens`, each at most `window` (>= 1) long.

    The rule of jina-reranker-v2's `rerank`: neighbours share min(overlap_tokens, window // 4) tokens, and the last
    chunk is always of full width, so it may share more. A document that fits is one range, an empty one too.
    """
    if num_tokens <= window:
        return [(0, num_tokens)]
    starts = starts_before_last(num_tokens, window, overlap_tokens)
    return [*((start, start + window) for start in starts), (num_tokens - window, num_tokens)]


def count_windows(num_tokens: int, window: int, overlap_tokens: int) -> int:
    """How many ranges `chunk_windows` gives."""
    return len(starts_before_last(num_tokens, window, overlap_tokens)) + 1


def starts_before_last(num_tokens: int, window: int, overlap_tokens: int) -> range:
    """Where the ranges begin, without the last."""
    return range(0, num_tokens - window, window - min(overlap_tokens, window // 4))


def max_over_chunks(chunk_logits: np.ndarray, chunks_per_document: Sequence[int]) -> np.ndarray:
    """Logit of each document: the maximum over its chunks, which lie side by side; float32 [documents].

    NaN in a chunk stays NaN in its document.
    """
    if not len(chunks_per_document):
        return np.zeros(0, dtype=np.float32)
    firsts = np.concatenate([[0], np.cumsum(chunks_per_document)[:-1]])
    return np.maximum.reduceat(chunk_logits, firsts)
