"""The arithmetic of a calibration: scale and bias of logits, and what scores say with and without them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.calibration import Calibration
from pipelines.errors import ConfigError
from pipelines.evaluation.calibration import expected_calibration_error, probabilities_of, reliability


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Pairs with logit and label, side by side."""

    logits: np.ndarray
    """float64"""
    relevant: np.ndarray
    """bool"""
    in_second_half: np.ndarray
    """bool: in which half of the queries a pair is."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Scale and bias, and the probabilities of the pairs before and after."""

    scale: float
    bias: float
    before: np.ndarray
    """What the model says without them, or with the calibration that it had."""
    after: np.ndarray
    """What it says with scale and bias of the half of the queries that the pair is not in."""

    def errors(self, relevant: np.ndarray) -> tuple[float, float]:
        """The expected calibration error before and after."""
        before, after = (expected_calibration_error(reliability(one, relevant)) for one in (self.before, self.after))
        return before, after


def fitted(pairs: ScoredPairs, earlier: Calibration | None) -> Fit:
    """Scale and bias of all pairs, measured half by half: each half with what the other one gives.

    Raises ConfigError where a half has pairs of one kind only. The scale may be negative: then the logits order these
    labels backwards.
    """
    import torch  # seconds, spared to a wrong flag

    from pipelines.training.calibration import platt

    after = np.empty(len(pairs.logits))
    for measured in (pairs.in_second_half, ~pairs.in_second_half):
        labels = pairs.relevant[~measured]
        if not labels.any() or labels.all():
            raise ConfigError(
                f"there are {int(pairs.relevant.sum()):,} relevant and {int((~pairs.relevant).sum()):,} other pairs, "
                "and one half of the queries has only one of the two kinds; give labels of more queries"
            )
        logits = torch.from_numpy(pairs.logits[~measured])
        scale, bias = platt(logits, torch.from_numpy(labels.astype(np.float64)), balanced=False)
        after[measured] = probabilities_of(scale * pairs.logits[measured] + bias)
    everything = torch.from_numpy(pairs.relevant.astype(np.float64))
    scale, bias = platt(torch.from_numpy(pairs.logits), everything, balanced=False)
    before = pairs.logits if earlier is None else earlier.scale * pairs.logits + earlier.bias
    return Fit(scale, bias, probabilities_of(before), after)
