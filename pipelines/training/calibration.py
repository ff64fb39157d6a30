"""Fits a scale and bias of the logits with which a score of 0.5 means an even chance, and measures calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..encoder import PackedEncoder


def platt(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Scale and bias of Platt's sigmoid (1999), both classes weighted equally, so that 0.5 means an even chance."""
    scale_bias = torch.tensor([1.0, 0.0], requires_grad=True)
    weights = torch.where(labels > 0, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    optimizer = torch.optim.LBFGS([scale_bias], max_iter=100)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * scale_bias[0] + scale_bias[1], labels, weight=weights)
        value.backward()
        return value

    optimizer.step(loss)
    scale, bias = scale_bias.detach().tolist()
    return scale, bias


def fold_in(encoder: PackedEncoder, scale: float, bias: float) -> None:
    """Makes the classifier give `scale` times its logit plus `bias`, so that Platt's sigmoid is the plain one."""
    with torch.no_grad():
        encoder.head_out.weight.mul_(scale)
        encoder.head_out.bias.mul_(scale).add_(bias)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well scores match labels: for each tenth of 0..1 the mean score, the share of positives, and the weight."""

    bins: tuple[tuple[float, float, float], ...]
    error: float
    """Expected calibration error: the mean distance of the two, weighted (Guo et al. 2017)."""
    pairs: int


def calibration(logits_P: np.ndarray, labels_P: np.ndarray, bins: int = 10) -> Calibration | None:
    """The calibration of labelled pairs, None where a class is missing; each class counts half, as in `platt`."""
    is_positive = labels_P > 0
    if is_positive.all() or not is_positive.any():
        return None
    scores = 1 / (1 + np.exp(-logits_P.astype(np.float64)))
    weights = np.where(is_positive, 0.5 / is_positive.sum(), 0.5 / (~is_positive).sum())
    place = np.minimum((scores * bins).astype(int), bins - 1)
    weight = np.bincount(place, weights, bins)
    filled = weight > 0
    mean_score = np.bincount(place, weights * scores, bins)[filled] / weight[filled]
    share = np.bincount(place, weights * is_positive, bins)[filled] / weight[filled]
    table = tuple(zip(mean_score.tolist(), share.tolist(), weight[filled].tolist(), strict=True))
    return Calibration(table, float(np.abs(mean_score - share) @ weight[filled]), len(labels_P))
