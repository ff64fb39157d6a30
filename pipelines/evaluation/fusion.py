"""How rankers with scores of different kinds (BM25's sums, cosines, logits) are added up: by z-scores."""

import numpy as np


def z_scores(scores: np.ndarray) -> np.ndarray:
    """The z-scores of one list, float64 [documents]; zeros where all scores are equal, NaN where there is no score."""
    known = ~np.isnan(scores)
    z = np.full(len(scores), np.nan)
    if known.any():
        values = scores[known].astype(np.float64)
        # Equality, not a deviation of 0: the mean of equal numbers can be off by a rounding, and z would be noise.
        z[known] = 0.0 if np.ptp(values) == 0 else (values - values.mean()) / values.std()
    return z
