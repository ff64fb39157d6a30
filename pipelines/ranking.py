"""Chunk logits -> relevance scores -> the ranking of a candidate list. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .calibration import Calibration
from .chunking import max_over_chunks
from .errors import ConfigError, NoScore
from .records import CandidateList, RankedDocument, Ranking, Usage


def rank(
    candidates: CandidateList,
    chunk_logits: np.ndarray,
    chunks_per_document: Sequence[int],
    usage: Usage,
    top_n: int | None = None,
    raw_scores: bool = False,
    score_threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Ranking:
    """The documents by the best of their chunks, ties in their order; `chunk_logits` is float32, side by side.

    Those whose relevance score, which is in 0..1 also with `raw_scores`, is below the threshold are left out. A logit
    that is not finite makes the ranking an error: NaN never leaves.
    """
    logits = max_over_chunks(chunk_logits, chunks_per_document)
    broken = np.flatnonzero(~np.isfinite(logits))
    if len(broken):
        error = f"{NoScore.NON_FINITE_SCORE}: the model gave {logits[broken[0]]} for documents[{broken[0]}]"
        return Ranking([], usage, error)
    scores = relevance_scores(logits, calibration)
    best_first = np.argsort(-logits, kind="stable")  # by logit: the sigmoid is 1.0 from 17 on
    if score_threshold is not None:  # compared as float32: who repeats a score of ours keeps its document
        best_first = best_first[scores[best_first] >= np.float32(score_threshold)]
    below_threshold = len(logits) - len(best_first)
    best_first = best_first[:top_n]
    scores = logits if raw_scores else scores
    documents = [RankedDocument(int(i), float(scores[i]), candidates.documents[i]) for i in best_first]
    return Ranking(documents, usage, below_threshold=below_threshold)


def relevance_scores(logits: np.ndarray, calibration: Calibration | None = None) -> np.ndarray:
    """The scores of float32 logits, in 0..1, by the model's calibration where it has one."""
    if calibration is None or calibration.is_identity:
        return sigmoid(logits)
    return sigmoid(logits.astype(np.float64) * calibration.scale + calibration.bias)


def check_threshold(score_threshold: float | None, calibration: Calibration | None, allow_uncalibrated: bool) -> None:
    """Raises ConfigError for a threshold beyond 0..1, and for one of scores that are not calibrated."""
    if score_threshold is None:
        return
    given: object = score_threshold
    if isinstance(given, bool) or not isinstance(given, int | float | np.floating) or not 0 <= given <= 1:
        raise ConfigError(f"score_threshold is {score_threshold!r}; it lies in 0..1, also where raw scores are given")
    if calibration is None and not allow_uncalibrated:
        raise ConfigError(
            f"score_threshold is {score_threshold}, and the scores of this model are not calibrated, so that it means "
            "nothing; fit it with `crossray calibrate`, or allow it with allow_uncalibrated"
        )


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float32; computed in float64, so that small scores keep their digits."""
    exact = np.clip(logits.astype(np.float64), -700, 700)  # exp overflows at 709
    return (1 / (1 + np.exp(-exact))).astype(np.float32)
