"""Matrices in 8 bits with a scale for each row: all large ones of a model that shall be small."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import ModelRefusedError

SCALES = ".row_scales"
"""After the name of a matrix in 8 bits: the name of its rows' scales."""
INT8_MAX = 127


def in_8_bits(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as int8, and the float32 scale of each row: the largest value of a row becomes 127."""
    rows = rows.float()
    scales = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / INT8_MAX
    return (rows / scales[:, None]).round().to(torch.int8), scales


def with_restored_rows(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with those that are stored in 8 bits in float32 again, and without their scales.

    Raises ModelRefusedError for one that has no scale for each row.
    """
    restored = dict(tensors)
    for name, rows in tensors.items():
        if rows.dtype == torch.int8:
            scales = restored.pop(f"{name}{SCALES}", None)
            if scales is None or rows.dim() != 2 or scales.shape != rows.shape[:1]:
                raise ModelRefusedError(f"{name} is in 8 bits, and {name}{SCALES} has not one scale for each row")
            restored[name] = rows.float() * scales.float()[:, None]
    return restored
