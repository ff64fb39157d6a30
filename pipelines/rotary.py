"""Rotary positions (Su et al. 2021, "RoFormer"): each pair of numbers of a head is turned by an angle of its position.

Shape legend: T packed tokens, X any, N heads, H head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each token's angles, float32 [T, 1, 1, H / 2] each."""


@dataclass(frozen=True, slots=True)
class Llama3Positions:
    """Positions for longer texts than those that a model saw first, as in Llama 3.1 and later.

    Angles that went less than `low_freq_factor` times round within the first texts grow `factor` times slower, those
    that went more than `high_freq_factor` times round stay as they were, and between the two there is a ramp
    (https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py, `apply_scaling`).
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def slowed(self, frequencies: torch.Tensor) -> torch.Tensor:
        """Angles per position, of which the slow ones are slowed down."""
        rounds = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        ramp = (rounds - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        return torch.lerp(frequencies / self.factor, frequencies, ramp.clamp(0, 1))


def rotation_of(
    position_ids: torch.Tensor,
    theta: float,
    head_width: int,
    stretch: float = 1.0,
    llama3_positions: Llama3Positions | None = None,
) -> Rotation:
    """The angles of rotary positions: position / (stretch * theta ** (2 i / H)) for the i-th pair of numbers of a head.

    float32, of the tokens at `position_ids`.
    """
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device=position_ids.device) / head_width
    frequencies = 1.0 / (stretch * theta**exponents)
    if llama3_positions is not None:
        frequencies = llama3_positions.slowed(frequencies)
    angles = position_ids[:, None, None, None].float() * frequencies
    return angles.cos(), angles.sin()


def rotated(x_TXNH: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Queries or keys, the i-th number of each head turned with the one half a head after it."""
    cos, sin = rotation
    first, second = x_TXNH.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_TXNH.dtype)
