"""What makes the logit of a pair from its vector: dense layers and norms, one after the other, as a checkpoint says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..linear import Linear
from .checkpoint import Tensors

TANH_GELU = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": TANH_GELU,
    "gelu_pytorch_tanh": TANH_GELU,
    "identity": nn.Identity(),
    "relu": torch.relu,
    "tanh": torch.tanh,
    "torch.nn.modules.activation.GELU": F.gelu,
    "torch.nn.modules.activation.ReLU": torch.relu,
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.linear.Identity": nn.Identity(),
}
"""By the names that transformers gives them in a config.json, and sentence-transformers in that of a Dense."""


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer and what follows it."""

    name: str
    """In the checkpoint, before `.weight` and `.bias`."""
    in_features: int
    out_features: int
    bias: bool
    activation: str
    """One of ACTIVATIONS."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A LayerNorm."""

    name: str
    """As in `Dense`."""
    width: int
    eps: float
    bias: bool


Step = Dense | Norm


class Head(nn.Module):
    """The steps from the vectors of P pairs to their logits; the last has one output."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(map(module_of, steps))
        self.activations = [ACTIVATIONS[step.activation if isinstance(step, Dense) else "identity"] for step in steps]

    def forward(self, x_PD: torch.Tensor) -> torch.Tensor:
        """[P, D] -> float32 [P]."""
        for step, activation in zip(self.steps, self.activations, strict=True):
            x_PD = activation(step(x_PD))
        return x_PD.squeeze(-1).float()


def module_of(step: Step) -> nn.Module:
    """The layer of a step, without what follows it."""
    if isinstance(step, Dense):
        return Linear(step.in_features, step.out_features, bias=step.bias)
    return nn.LayerNorm(step.width, step.eps, bias=step.bias)


def shapes_of_head(steps: Sequence[Step]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a head in its checkpoint."""
    found: dict[str, tuple[int, ...]] = {}
    for step in steps:
        weight = (step.out_features, step.in_features) if isinstance(step, Dense) else (step.width,)
        found[f"{step.name}.weight"] = weight
        if step.bias:
            found[f"{step.name}.bias"] = weight[:1]
    return found


def state_of_head(tensors: Mapping[str, torch.Tensor], steps: Sequence[Step]) -> Tensors:
    """The state dict of a `Head`."""
    state: Tensors = {}
    for i, step in enumerate(steps):
        for kind in ("weight", "bias") if step.bias else ("weight",):
            state[f"steps.{i}.{kind}"] = tensors[f"{step.name}.{kind}"]
    return state
