"""Matrices in 8 bits: restored to within half a step of each row's scale, and never without their scales."""

from __future__ import annotations

import pytest
import torch

from pipelines.errors import ModelRefusedError
from pipelines.families.int8_rows import in_8_bits, with_restored_rows

NAME = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def rows() -> torch.Tensor:
    """A matrix whose rows differ in size by a factor of a thousand, with one of zeros."""
    drawn = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    return drawn * torch.tensor([0.01, 0.1, 1.0, 10.0, 0.0])[:, None]


def test_rows_come_back_within_half_a_step_of_their_own_scale(rows: torch.Tensor) -> None:
    small, scales = in_8_bits(rows)

    restored = with_restored_rows({NAME: small, f"{NAME}.row_scales": scales})

    assert small.dtype == torch.int8
    assert set(restored) == {NAME}
    assert restored[NAME].dtype == torch.float32
    assert ((restored[NAME] - rows).abs() <= rows.abs().amax(dim=1, keepdim=True) / 127 * 0.51).all()


def test_what_is_not_in_8_bits_stays_as_it_is(rows: torch.Tensor) -> None:
    assert with_restored_rows({NAME: rows})[NAME] is rows


@pytest.mark.parametrize("scales", [{}, {f"{NAME}.row_scales": torch.ones(4)}], ids=["no scales", "one too few"])
def test_rows_without_a_scale_each_are_refused_by_name(rows: torch.Tensor, scales: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ModelRefusedError, match=rf"{NAME} is in 8 bits, and {NAME}\.row_scales has not one scale"):
        with_restored_rows({NAME: in_8_bits(rows)[0], **scales})
