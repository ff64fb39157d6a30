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


@pytest.mark.parametrize(("pairs", "gap"), [(20, 1.0), (200, 3.0), (2000, 0.2)])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_scale_stays_finite_where_logits_tell_all_pairs_apart(pairs: int, gap: float, balanced: bool) -> None:
    """The mean of the chances is that of Platt's targets, and not of 0 and 1."""
    spread = torch.rand(pairs, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([gap / 2 + spread, *[-gap / 2 - spread] * 7])
    labels = torch.cat([torch.ones(pairs), torch.zeros(7 * pairs)])
    scale, bias = platt(logits, labels, balanced=balanced)
    chances = torch.sigmoid(scale * logits.double() + bias)
    right, wrong = (float(chances[labels == label].mean()) for label in (1, 0))
    share = 0.5 if balanced else 1 / 8
    wanted = share * (pairs + 1) / (pairs + 2) + (1 - share) / (7 * pairs + 2)
    assert 0 < scale < 150
    assert share * right + (1 - share) * wrong == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("offset", "spread"), [(150, 1), (-1000, 1), (0, 1e-4), (1e5, 300)])
def test_logits_of_any_offset_and_spread_get_the_same_chances(offset: float, spread: float, balanced: bool) -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy((rng.random(5000) < 0.1).astype(float))
    logits = torch.from_numpy(rng.normal(size=5000)) + 1.5 * labels
    scale, bias = platt(logits, labels, balanced=balanced)
    moved_scale, moved_bias = platt(offset + spread * logits, labels, balanced=balanced)
    assert moved_scale == pytest.approx(scale / spread, rel=1e-4)
    assert moved_bias == pytest.approx(bias - scale / spread * offset, rel=1e-4)


def test_logits_that_are_all_the_same_have_no_scale() -> None:
    scale, bias = platt(torch.full((100,), 7.0), torch.tensor([1.0] * 25 + [0.0] * 75), balanced=False)
    assert scale == 0
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("balanced", [True, False])
def test_the_sign_of_the_scale_is_that_of_the_difference_of_the_means(balanced: bool) -> None:
    """What the card says of a scale of 0 or less."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(60, generator=generator)
        labels = (torch.rand(60, generator=generator) < 0.3).float()
        scale, _ = platt(logits, labels, balanced=balanced)
        assert (scale > 0) == bool(logits[labels > 0].mean() > logits[labels == 0].mean())
