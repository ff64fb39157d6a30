"""Scores of different kinds are added up as z-scores, and where there is nothing to tell apart, as zeros."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.fusion import z_scores


def test_a_document_without_a_score_is_left_out() -> None:
    assert np.array_equal(z_scores(np.array([1.0, np.nan, 3.0])), [-1.0, np.nan, 1.0], equal_nan=True)
    assert np.isnan(z_scores(np.array([np.nan, np.nan]))).all()


def test_equal_scores_have_no_z_score() -> None:
    """The mean of three 0.1 is not 0.1 in floats; divided by a deviation as small, that would be noise."""
    assert z_scores(np.array([0.1, 0.1, 0.1])).tolist() == [0.0] * 3
    assert z_scores(np.full(7, 0.1, dtype=np.float32)).tolist() == [0.0] * 7
