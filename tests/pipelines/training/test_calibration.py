"""Platt's fit finds scale and bias, and the calibration error is what it is by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipelines.training.calibration import calibration, platt


def test_platt_recovers_scale_and_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, generator=generator) * 2
    labels = (torch.rand(20_000, generator=generator) < torch.sigmoid(0.5 * logits)).float()

    scale, bias = platt(logits, labels)

    assert scale == pytest.approx(0.5, abs=0.05)
    assert bias == pytest.approx(0.0, abs=0.05)


def test_calibration_of_scores_that_are_true_and_of_scores_that_are_not() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    labels = (rng.random(200_000) < scores).astype(np.float32)
    logits = np.log(scores / (1 - scores)).astype(np.float32)
    true = calibration(logits, labels)
    false = calibration(np.where(scores > 0.5, 5.0, -5.0).astype(np.float32), labels)
    assert true is not None
    assert false is not None
    assert true.error < 0.01
    # Beyond one half 3/4 are right, and below 1/4: both are 0.2433 from the sigmoid of 5 and -5.
    assert false.error == pytest.approx(1 / (1 + math.exp(-5)) - 0.75, abs=0.01)
    assert sum(weight for _, _, weight in true.bins) == pytest.approx(1)
    assert calibration(logits, np.ones_like(labels)) is None


def test_both_classes_count_for_one_half() -> None:
    found = calibration(np.zeros(100, dtype=np.float32), np.array([1.0] + [0.0] * 99, dtype=np.float32))
    assert found is not None
    assert found.bins == ((0.5, pytest.approx(0.5), pytest.approx(1.0)),)
