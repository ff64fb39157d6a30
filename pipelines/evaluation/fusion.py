"""How rankers with scores of different kinds (BM25's sums, cosines, logits) are added up: by z-scores."""

import numpy as np

NOISE = 8 * float(np.finfo(np.float32).eps)
"""Scores count as equal if they differ by no more than this share of them, as can the cosines of one text twice."""


def z_scores(scores: np.ndarray) -> np.ndarray:
    """The z-scores of one list, float64 [documents]; zeros where all scores are equal, NaN where one is not finite."""
    known = np.isfinite(scores)
    z = np.full(len(scores), np.nan)
    if known.any():
        values = scores[known].astype(np.float64)
        is_flat = np.ptp(values) <= NOISE * np.abs(values).max()
        z[known] = 0.0 if is_flat else (values - values.mean()) / values.std()
    return z
