"""What scores say besides an order: how they lie for relevant and other pairs, and whether 0.8 means 8 of 10."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RELIABILITY_BINS = 15
"""As in Guo et al. 2017, "On Calibration of Modern Neural Networks"."""
NORMAL_QUANTILE = 1.959963984540054
"""Of a two-sided interval of 95%."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The pairs whose probabilities lie in one bin."""

    count: int
    probability: float
    """The mean of what the model said."""
    relevant: float
    """The share of pairs that are relevant."""
    low: float
    high: float
    """The 95% interval of that share (Wilson 1927)."""


def reliability(
    probabilities: Sequence[float] | np.ndarray, relevant: Sequence[bool] | np.ndarray, bins: int = RELIABILITY_BINS
) -> list[ReliabilityBin]:
    """The bins, of equal width in 0..1, that have a pair in them, lowest first."""
    said, came = np.asarray(probabilities, dtype=np.float64), np.asarray(relevant, dtype=bool)
    places = np.clip(np.ceil(said * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for place in np.unique(places):
        inside = places == place
        count, hits = int(inside.sum()), int(came[inside].sum())
        found.append(ReliabilityBin(count, float(said[inside].mean()), hits / count, *wilson_interval(hits, count)))
    return found


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """The mean over pairs of |share that is relevant - mean probability| of their bin (Naeini et al. 2015)."""
    pairs = sum(one.count for one in bins)
    return sum(one.count * abs(one.relevant - one.probability) for one in bins) / pairs if pairs else 0.0


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927), which stays within 0..1 also where all or none are hits."""
    z, share = NORMAL_QUANTILE, hits / count
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((middle + side * reach) / (1 + z * z / count) for side in (-1, 1))
    return min(max(low, 0.0), share), max(min(high, 1.0), share)  # by rounding alone could it leave out the share


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """The sigmoid, in which no logit overflows."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64))))
