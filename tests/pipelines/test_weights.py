"""Checkpoint names and ours: nothing missing, nothing left over, nothing changed on the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.errors import ModelRefusedError
from pipelines.weights import expected_names, from_checkpoint, to_checkpoint
from tests.checkpoints import Tensors, read_weights

LAYOUTS = {"bert": ("bert", 3), "xlm_roberta": ("xlm-roberta", 2), "jina_v2": ("flash-xlm-roberta", 2)}


@pytest.fixture(params=LAYOUTS)
def checkpoint(request: pytest.FixtureRequest) -> tuple[Tensors, str, int]:
    """Tensors, layout and number of layers of each family."""
    directory: Path = request.getfixturevalue(f"{request.param}_directory")
    return read_weights(directory), *LAYOUTS[request.param]


def test_there_and_back_changes_nothing(checkpoint: tuple[Tensors, str, int]) -> None:
    tensors, layout, num_layers = checkpoint

    back = to_checkpoint(from_checkpoint(tensors, layout, num_layers), layout, num_layers)

    assert set(back) == set(tensors) - {"bert.embeddings.position_ids"}
    for name, tensor in back.items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name]), name


def test_every_missing_tensor_is_noticed(checkpoint: tuple[Tensors, str, int]) -> None:
    tensors, layout, num_layers = checkpoint

    for name in expected_names(layout, num_layers):
        with pytest.raises(ModelRefusedError, match=rf"1 missing \({name}\); 0 unexpected"):
            from_checkpoint({other: tensor for other, tensor in tensors.items() if other != name}, layout, num_layers)


def test_a_tensor_left_over_is_noticed(checkpoint: tuple[Tensors, str, int]) -> None:
    tensors, layout, num_layers = checkpoint

    with pytest.raises(ModelRefusedError, match=r"0 missing; 1 unexpected \(lm_head\.bias\)"):
        from_checkpoint(tensors | {"lm_head.bias": torch.zeros(1)}, layout, num_layers)


def test_a_layer_more_than_the_config_says_is_noticed(checkpoint: tuple[Tensors, str, int]) -> None:
    tensors, layout, num_layers = checkpoint

    with pytest.raises(ModelRefusedError, match=rf"0 missing; \d+ unexpected .*layers?\.{num_layers - 1}\."):
        from_checkpoint(tensors, layout, num_layers - 1)


def test_many_names_are_shortened() -> None:
    with pytest.raises(ModelRefusedError, match=r"\d+ missing \([^,]+, [^,]+, [^,]+, \.\.\.\)"):
        from_checkpoint({}, "bert", 1)


def test_jina_v2_has_153_tensors() -> None:
    """The number in the published checkpoint of 12 layers."""
    assert len(expected_names("flash-xlm-roberta", 12)) == 153
