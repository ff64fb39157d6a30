"""Scores of different kinds are added up as z-scores, and where there is nothing to tell apart, as zeros."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.fusion import z_scores


def test_a_document_without_a_score_is_left_out() -> None:
    assert np.array_equal(z_scores(np.array([1.0, np.nan, 3.0])), [-1.0, np.nan, 1.0], equal_nan=True)
    assert np.isnan(z_scores(np.array([np.nan, np.nan]))).all()


def test_a_score_that_is_no_finite_number_is_none() -> None:
    assert np.array_equal(z_scores(np.array([1.0, np.inf, 3.0])), [-1.0, np.nan, 1.0], equal_nan=True)


def test_equal_scores_have_no_z_score() -> None:
    """The mean of three 0.1 is not 0.1 in floats; divided by a deviation as small, that would be noise."""
    assert z_scores(np.array([0.1, 0.1, 0.1])).tolist() == [0.0] * 3
    assert z_scores(np.full(7, 0.1, dtype=np.float32)).tolist() == [0.0] * 7


def test_scores_that_only_rounding_tells_apart_are_equal() -> None:
    """The cosines of the same text several times differ by a rounding, where a multiplication adds in another order."""
    cosine = np.float32(0.7)
    assert z_scores(np.array([cosine, np.nextafter(cosine, np.float32(1)), cosine])).tolist() == [0.0] * 3
    assert z_scores(np.array([0.7, 0.70001, 0.7])).max() > 1
