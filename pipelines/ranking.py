"""Chunk logits -> relevance scores -> the ranking of a candidate list. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .chunking import max_over_chunks
from .errors import NoScore
from .records import CandidateList, RankedDocument, Ranking, Usage


def rank(
    candidates: CandidateList,
    chunk_logits: np.ndarray,
    chunks_per_document: Sequence[int],
    usage: Usage,
    top_n: int | None = None,
    raw_scores: bool = False,
) -> Ranking:
    """The documents by the best of their chunks, ties in their order; `chunk_logits` is float32, side by side.

    A logit that is not finite makes the ranking an error: NaN never leaves.
    """
    logits = max_over_chunks(chunk_logits, chunks_per_document)
    broken = np.flatnonzero(~np.isfinite(logits))
    if len(broken):
        error = f"{NoScore.NON_FINITE_SCORE}: the model gave {logits[broken[0]]} for documents[{broken[0]}]"
        return Ranking([], usage, error)
    scores = logits if raw_scores else sigmoid(logits)
    best_first = np.argsort(-logits, kind="stable")[:top_n]  # by logit: the sigmoid is 1.0 from 17 on
    documents = [RankedDocument(int(i), float(scores[i]), candidates.documents[i]) for i in best_first]
    return Ranking(documents, usage)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float32; computed in float64, so that small scores keep their digits."""
    exact = np.clip(logits.astype(np.float64), -700, 700)  # exp overflows at 709
    return (1 / (1 + np.exp(-exact))).astype(np.float32)
