"""Reliability diagrams against computations of other kinds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.evaluation.calibration import (
    expected_calibration_error,
    probabilities_of,
    reliability,
    wilson_interval,
)

# 997 is a prime: no probability but 0 and 1 lies on the edge of one of 15 bins.
PAIRS = st.lists(st.tuples(st.integers(0, 997).map(lambda one: one / 997), st.booleans()), min_size=1, max_size=60)


@given(PAIRS)
def test_the_calibration_error_is_that_of_its_formula(pairs: list[tuple[float, bool]]) -> None:
    """Guo et al. 2017, equation 3, over bins ((m - 1) / 15, m / 15]; the first one has 0 in it."""
    expected = 0.0
    for m in range(1, 16):
        inside = [(said, came) for said, came in pairs if (m - 1) / 15 < said <= m / 15 or (m == 1 and said == 0)]
        if inside:
            accuracy = sum(came for _, came in inside) / len(inside)
            confidence = sum(said for said, _ in inside) / len(inside)
            expected += len(inside) / len(pairs) * abs(accuracy - confidence)
    bins = reliability([said for said, _ in pairs], [came for _, came in pairs])
    assert expected_calibration_error(bins) == pytest.approx(expected)
    assert sum(one.count for one in bins) == len(pairs)
    assert all(one.low <= one.relevant <= one.high for one in bins)


def test_a_model_that_says_what_comes_true_has_no_error() -> None:
    bins = reliability([0.25] * 4 + [1.0] * 3, [True, False, False, False, True, True, True])
    assert [(one.count, one.probability, one.relevant) for one in bins] == [(4, 0.25, 0.25), (3, 1.0, 1.0)]
    assert expected_calibration_error(bins) == 0.0
    assert expected_calibration_error([]) == 0.0


@given(st.integers(1, 500).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_of_a_share_is_scipys(case: tuple[int, int]) -> None:
    hits, count = case
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_no_logit_overflows() -> None:
    found = probabilities_of(np.array([-1e6, -2.0, 0.0, 2.0, 1e6]))
    assert found == pytest.approx([0.0, 1 / (1 + math.e**2), 0.5, 1 / (1 + math.e**-2), 1.0])
