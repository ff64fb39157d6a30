"""Rotary positions (Su et al. 2021, "RoFormer"): each pair of numbers of a head is turned by an angle of its position.

Shape legend: T packed tokens, X any, N heads, H head width.
"""

from __future__ import annotations

import torch

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each token's angles, float32 [T, 1, 1, H / 2] each."""


def rotation_of(position_ids: torch.Tensor, theta: float, head_width: int, stretch: float = 1.0) -> Rotation:
    """The angles of rotary positions: position / (stretch * theta ** (2 i / H)) for the i-th pair of numbers of a head.

    float32, of the tokens at `position_ids`.
    """
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device=position_ids.device) / head_width
    angles = position_ids[:, None, None, None].float() * (1.0 / (stretch * theta**exponents))
    return angles.cos(), angles.sin()


def rotated(x_TXNH: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Queries or keys, the i-th number of each head turned with the one half a head after it."""
    cos, sin = rotation
    first, second = x_TXNH.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_TXNH.dtype)
