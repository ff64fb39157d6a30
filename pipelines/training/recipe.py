"""What a training run is told besides its data: plain numbers, checked; no torch, so that a config is read at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

LOSS_NAMES = ("softmax", "bce", "mse", "margin-mse", "kl", "lambda")
"""The keys of `losses.LOSSES`."""
TEACHER_LOSSES = ("kl", "margin-mse", "mse")
"""Those whose targets are scores on any scale; the others take grades, and have no least value below 0."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run does, besides its data and the weights that it begins from."""

    steps: int
    """Steps of the whole run: the learning rate has fallen to zero at their end."""
    lists_per_step: int = 64
    passages_per_list: int = 12
    max_lengths: tuple[int, ...] = (128,)
    """Tokens of a pair; the run goes through these in equal shares, short ones first for speed."""
    max_query_length: int = 64
    learning_rate: float = 1e-4
    """At its peak, after the warm-up."""
    warm_up: float = 0.03
    """Share of the steps."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    label_loss: str = "softmax"
    """One of LOSS_NAMES, of the lists that have a positive label."""
    label_share: float = 0.5
    """Weight of the label loss; the teacher loss has the rest."""
    teacher_loss: str = "kl"
    """One of TEACHER_LOSSES, of the lists that a teacher scored."""
    teacher_scale: float = 2.0
    """Teacher scores are multiplied by it."""
    train_embeddings: bool = True
    keep_zeros: bool = False
    """Whether weights that are exactly zero at the start of the run stay so: in a model that was put together by hand
    (`from_bi_encoder`) they keep apart what is kept apart, and steps of one size for all weights soon join it."""
    micro_batch_tokens: int = 4096
    """Tokens of one forward pass; a step adds up the gradients of as many as it needs."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "lists_per_step", "max_query_length", "micro_batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.passages_per_list < 2:
            raise ValueError(f"passages_per_list is {self.passages_per_list}; a list to order has at least 2")
        if not self.max_lengths or min(self.max_lengths) <= self.max_query_length + 8:
            raise ValueError(
                f"max_lengths is {self.max_lengths}; give at least one, each above max_query_length + 8 "
                f"({self.max_query_length + 8})"
            )
        for name in ("label_share", "warm_up"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it lies between 0 and 1")
        for name in ("learning_rate", "clip_norm", "teacher_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a number above 0")
        for name in ("weight_decay", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a number from 0 on")
        for name, known in (("label_loss", LOSS_NAMES), ("teacher_loss", TEACHER_LOSSES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it is one of {', '.join(known)}")

    def max_length(self, step: int) -> int:
        """Tokens of a pair in this step."""
        return self.max_lengths[min(step * len(self.max_lengths) // self.steps, len(self.max_lengths) - 1)]

    def rate(self, step: int, moments_since: int = 0) -> float:
        """The learning rate of this step: a linear warm-up, then a linear decay to zero.

        The warm-up is for the optimizer's moments, so it begins at the step in which these began.
        """
        warm = max(1, math.ceil(self.steps * self.warm_up))
        decay = (self.steps - step) / max(1, self.steps - warm)
        return self.learning_rate * min((step - moments_since + 1) / warm, max(0.0, decay), 1.0)
