"""Measures of agreement, against values that were computed by hand or by brute force."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from pipelines.evaluation.agreement import kendall_tau, overlap_at, rank_biased_overlap


def rbo_by_definition(first: list[str], second: list[str], p: float) -> float:
    """The infinite sum for lists of one length, whose agreement stays as it is at their end."""
    k = len(first)
    agreements = [len(set(first[:d]) & set(second[:d])) / d for d in range(1, k + 1)]
    return (1 - p) * sum(p ** (d - 1) * agreements[min(d, k) - 1] for d in range(1, 5000))


@pytest.mark.parametrize("persistence", [0.5, 0.9])
@pytest.mark.parametrize("other", ["abcd", "dcba", "abdc", "wxyz", "axby"])
def test_rank_biased_overlap_is_the_infinite_sum(other: str, persistence: float) -> None:
    expected = rbo_by_definition(list("abcd"), list(other), persistence)
    assert math.isclose(rank_biased_overlap("abcd", other, persistence), expected, abs_tol=1e-9)


def test_rank_biased_overlap_of_lists_of_two_lengths() -> None:
    """Equation 32 by hand, s = 1, l = 3, p = 0.5, both begin alike: the depths 2 and 3 are taken to agree fully."""
    assert rank_biased_overlap("a", "abc", 0.5) == pytest.approx(1.0)
    assert rank_biased_overlap("abc", "a", 0.5) == pytest.approx(1.0)
    # X = 0, 1, 1 and X_s = 0: (0.5 / 0.5) * (1/2 * 1/4 + 1/3 * 1/8) + (1/3) * 1/8
    assert rank_biased_overlap("b", "abc", 0.5) == pytest.approx(1 / 8 + 1 / 24 + 1 / 24)
    assert math.isnan(rank_biased_overlap("", "abc"))


def test_kendall_tau_counts_pairs_and_ties() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 30).astype(float), random.integers(0, 5, 30).astype(float)
    signs = [np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in combinations(range(30), 2)]
    untied = [sum(x[i] != x[j] for i, j in combinations(range(30), 2)) for x in (a, b)]
    assert kendall_tau(a, b) == pytest.approx(sum(signs) / math.sqrt(untied[0] * untied[1]))
    assert kendall_tau(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)
    assert math.isnan(kendall_tau(np.ones(3), np.arange(3.0)))
    assert math.isnan(kendall_tau(np.ones(1), np.ones(1)))


@pytest.mark.parametrize(("first", "second", "tau"), [((0.9, 0.1), (0.8, 0.2), 1), ((0.9, 0.1), (0.2, 0.8), -1)])
def test_kendall_tau_of_two_documents_is_that_of_their_pair(
    first: tuple[float, ...], second: tuple[float, ...], tau: int
) -> None:
    assert kendall_tau(np.array(first), np.array(second)) == tau


def test_overlap_is_of_the_places_that_there_are() -> None:
    assert overlap_at(1, "ab", "ba") == 0
    assert overlap_at(10, "ab", "ba") == 1
    assert overlap_at(3, "abcd", "a") == pytest.approx(1 / 3)
    assert math.isnan(overlap_at(3, "", ""))
