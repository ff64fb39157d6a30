"""The tensor names of a family, found by the name of its layout: for training, which may write another than it read."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from . import checkpoint
from .checkpoint import Tensors
from .recognition import FAMILIES

NAMES_OF_LAYOUT = {family.names.layout: family.names for family in FAMILIES}


def module_names(layout: str, num_layers: int) -> dict[str, str]:
    """Our module name -> the checkpoint's, as in TensorNames.modules."""
    return NAMES_OF_LAYOUT[layout].modules(num_layers)


def from_checkpoint(tensors: Mapping[str, torch.Tensor], layout: str, num_layers: int) -> Tensors:
    """The state dict of a `PackedEncoder`; raises ModelRefusedError when a tensor is missing or left over."""
    return checkpoint.from_checkpoint(tensors, NAMES_OF_LAYOUT[layout], num_layers)


def to_checkpoint(state: Mapping[str, torch.Tensor], layout: str, num_layers: int) -> Tensors:
    """The tensors that a checkpoint of this layout holds."""
    return checkpoint.to_checkpoint(state, NAMES_OF_LAYOUT[layout], num_layers)
