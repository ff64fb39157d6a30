"""What chance may have done: intervals of means, and whether two rows differ. All is seeded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
VALUES_AT_ONCE = 1 << 22
"""Of resamples that are in memory at once."""
ROUNDING = 1e-12
"""Sums that differ by less are the same sum, added up in another order."""
SURE = 0.05
"""The corrected p-value below which a difference is more than chance."""
RESAMPLES_A_TEST = 200
"""With so many for each of many tests, the smallest p-value that there can be stays far below SURE when corrected."""


def at_once(queries: int) -> int:
    """How many resamples of so many queries are in memory at once."""
    return max(1, min(500, VALUES_AT_ONCE // queries))


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
        batch=at_once(len(data)),
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely a difference of means at least as large is, were the two rows alike: a paired permutation test.

    Two-sided, over the same queries in the same order (Smucker et al. 2007, "A comparison of statistical significance
    tests for information retrieval evaluation"). 1 where there is one query.
    """
    from scipy import stats

    pairs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(pairs[0]) < 2 or np.array_equal(*pairs):
        return 1.0
    return float(
        stats.permutation_test(
            pairs,
            lambda one, other, axis: np.mean(one - other, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=at_once(len(pairs[0])),
            rng=np.random.default_rng(SEED),
        ).pvalue
    )


def p_value_of_fall(before: Sequence[float], after: Sequence[float], resamples: int = RESAMPLES) -> float:
    """How likely a fall of the mean at least as large is, were the two alike: a paired permutation test, one-sided.

    By random changes of sides, of which the pairs as they are count as one (Phipson and Smyth 2010, "Permutation
    p-values should never be zero"). 1 where there is one query.
    """
    falls = np.asarray(before, dtype=np.float64) - np.asarray(after, dtype=np.float64)
    if len(falls) < 2:
        return 1.0
    found = sums_with_changed_sides(falls, resamples, np.random.default_rng(SEED))
    return float((1 + np.count_nonzero(found >= falls.sum() - ROUNDING)) / (1 + resamples))


def least_p_value_of_fall(queries: int, resamples: int = RESAMPLES) -> float:
    """About the smallest p-value that `p_value_of_fall` can give for so many queries, however deep the fall."""
    return 1.0 if queries < 2 else max(0.5**queries, 1 / (1 + resamples))


def resamples_for(tests: int) -> int:
    """How many changes of sides each of so many tests needs, so that the correction for their number spares some."""
    return max(RESAMPLES, RESAMPLES_A_TEST * tests)


def sums_with_changed_sides(differences: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The sums of the differences of pairs, each of which changes sides or not, float64 [resamples]."""
    found = np.empty(resamples)
    step = at_once(len(differences))
    for start in range(0, resamples, step):
        sides = rng.choice((-1.0, 1.0), size=(min(step, resamples - start), len(differences)))
        found[start : start + step] = sides @ differences
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, corrected for how many tests there were (Holm 1979, "A simple sequentially rejective test")."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return [float(one) for one in corrected]


def shown(p: float) -> str:
    """A p-value as people write it: `0.012`, or `< 0.001`."""
    return "< 0.001" if p < 0.0005 else f"{p:.3f}"


def interval_over_sets(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The 95% interval of the mean of several sets' means: the queries of each set are drawn anew, the sets stay.

    By the percentile bootstrap, as `interval`; what is said of the mean holds for these sets, and no others.
    """
    rng = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for of_set in values:
        data = np.asarray(of_set, dtype=np.float64)
        step = at_once(len(data))
        for start in range(0, RESAMPLES, step):
            drawn = rng.integers(len(data), size=(min(step, RESAMPLES - start), len(data)))
            means[start : start + step] += data[drawn].mean(axis=1) / len(values)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def p_value_over_sets(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """As `p_value`, for the difference of the means of several sets' means: each query changes sides on its own.

    By random changes of sides, as `p_value_of_fall`. Of one set, it is the p-value there.
    """
    if len(first) == 1:
        return p_value(first[0], second[0])
    rng = np.random.default_rng(SEED)
    seen, found = 0.0, np.zeros(RESAMPLES)
    for one, other in zip(first, second, strict=True):
        differences = (np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)) / len(one) / len(first)
        seen += float(differences.sum())
        found += sums_with_changed_sides(differences, RESAMPLES, rng)
    return float((1 + np.count_nonzero(np.abs(found) >= abs(seen) - ROUNDING)) / (1 + RESAMPLES))
