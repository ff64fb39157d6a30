"""Fits a scale and bias of the logits with which a score of 0.5 means an even chance, and measures calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..encoder import PackedEncoder

FOLDED_IN = (
    "Scale and bias are folded into the classifier. They were fitted (Platt 1999) on lists that were held back from "
    "the training, with relevant and other passages weighted equally: 0.5 is the even bet between the two."
)
"""What the calibration.json of a trained model says of itself."""


def platt(logits: torch.Tensor, labels: torch.Tensor, *, balanced: bool = True) -> tuple[float, float]:
    """Scale and bias of Platt's sigmoid (1999), with which 0.5 means an even chance.

    With `balanced` both classes are weighted equally: 0.5 is the even bet between a relevant passage and another one.
    Without, every pair counts the same: 0.5 is the score of which half the pairs are relevant, in data like these.
    Platt's targets, which are not quite 0 and 1, keep the scale finite where the logits tell all pairs apart. It is 0
    or less where relevant passages have on average no higher logits than others.

    Logits are standardized for the search, which far from zero and from a spread of 1 does not converge.
    """
    logits, labels = logits.double(), labels.double()
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = torch.where(labels > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    weights = torch.ones_like(labels)
    if balanced:
        weights = torch.where(labels > 0, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    middle, spread = logits.mean(), logits.std(correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    standard = (logits - middle) / spread
    scale_bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scale_bias], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(standard * scale_bias[0] + scale_bias[1], targets, weight=weights)
        value.backward()
        return value

    optimizer.step(loss)
    scale, bias = scale_bias.detach()
    scale = scale / spread
    return float(scale), float(bias - scale * middle)


def fold_in(encoder: PackedEncoder, scale: float, bias: float) -> None:
    """Makes the classifier give `scale` times its logit plus `bias`, so that Platt's sigmoid is the plain one.

    The scale is above 0, or the order would be another.
    """
    with torch.no_grad():
        encoder.head_out.weight.mul_(scale)
        encoder.head_out.bias.mul_(scale).add_(bias)


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well scores match labels: for each tenth of 0..1 the mean score, the share of positives, and the weight."""

    bins: tuple[tuple[float, float, float], ...]
    error: float
    """Expected calibration error: the mean distance of the two, weighted (Guo et al. 2017)."""
    pairs: int


def calibration(logits_P: np.ndarray, labels_P: np.ndarray, bins: int = 10) -> Reliability | None:
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
    return Reliability(table, float(np.abs(mean_score - share) @ weight[filled]), len(labels_P))
