"""How much two orders of the same documents agree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

PERSISTENCE = 0.9
"""How likely somebody who reads the list goes on to the next place: the first ten places weigh some 86%."""


def kendall_tau(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b of two arrays of scores of the same documents, -1..1; NaN below two documents, or all alike.

    Kendall 1945, "The treatment of ties in ranking problems": ties take away from what can be reached.
    """
    from scipy import stats  # optional: the extra `evaluate`

    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    method = "exact" if len(first) == 2 else "asymptotic"  # of the p-value, whose asymptotic formula divides by n - 2
    return float(stats.kendalltau(first, second, method=method).statistic)


def overlap_at(depth: int, first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """The share of the first `depth` documents of two orders that both have there; NaN where both are empty."""
    places = min(depth, max(len(first), len(second)))
    return len(set(first[:depth]) & set(second[:depth])) / places if places else float("nan")


def rank_biased_overlap(
    first: Sequence[Hashable], second: Sequence[Hashable], persistence: float = PERSISTENCE
) -> float:
    """How much two orders agree, 0..1, the first places counting most; NaN where one of them is empty.

    Webber, Moffat and Zobel 2010, "A similarity measure for indefinite rankings", equation 32 (RBO_EXT): what is below
    the end of the lists is taken to agree as much as what is above it. No document may come twice in an order.
    """
    shorter, longer = sorted((first, second), key=len)
    if not shorter:
        return float("nan")
    s, l = len(shorter), len(longer)  # noqa: E741  # the names of the paper
    in_shorter: set[Hashable] = set()
    in_longer: set[Hashable] = set()
    common, common_at_s, total = 0, 0, 0.0
    for depth in range(1, l + 1):
        new = longer[depth - 1]
        in_longer.add(new)
        common += new in in_shorter
        if depth <= s:
            other = shorter[depth - 1]
            in_shorter.add(other)
            common += other in in_longer
            common_at_s = common
        agreement = common / depth
        if depth > s:
            agreement += common_at_s * (depth - s) / (s * depth)
        total += agreement * persistence**depth
    at_end = (common - common_at_s) / l + common_at_s / s
    return (1 - persistence) / persistence * total + at_end * persistence**l
