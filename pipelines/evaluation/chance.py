"""What chance may have done: intervals of means, and whether two rows differ. All is seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the mean over queries, by the percentile bootstrap (Efron 1979)."""
    from scipy import stats  # optional: the extra `evaluate`

    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2 or np.ptp(data) == 0:
        return float(data.mean()), float(data.mean())
    found = stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely a difference of means at least as large is, were the two rows alike: a paired permutation test.

    Two-sided, over the same queries in the same order (Smucker et al. 2007, "A comparison of statistical significance
    tests for information retrieval evaluation").
    """
    from scipy import stats

    pairs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if np.array_equal(*pairs):
        return 1.0
    return float(
        stats.permutation_test(
            pairs,
            lambda one, other, axis: np.mean(one - other, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=500,
            rng=np.random.default_rng(SEED),
        ).pvalue
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for how many tests there were (Holm 1979, "A simple sequentially rejective test")."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return [float(one) for one in corrected]
