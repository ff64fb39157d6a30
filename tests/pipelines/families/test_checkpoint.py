"""Checkpoint names and ours: nothing missing, nothing left over, nothing changed on the way there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.errors import ModelRefusedError
from pipelines.families import bert, jina_v2, roberta
from pipelines.families.checkpoint import TensorNames, from_checkpoint, to_checkpoint
from tests.checkpoints import Tensors, read_weights

LAYOUTS = {"bert": (bert.NAMES, 3), "xlm_roberta": (roberta.NAMES["xlm-roberta"], 2), "jina_v2": (jina_v2.NAMES, 2)}


@pytest.fixture(params=LAYOUTS)
def checkpoint(request: pytest.FixtureRequest) -> tuple[Tensors, TensorNames, int]:
    """Tensors, their names and the number of layers of each family."""
    directory: Path = request.getfixturevalue(f"{request.param}_directory")
    return read_weights(directory), *LAYOUTS[request.param]


def test_there_and_back_changes_nothing(checkpoint: tuple[Tensors, TensorNames, int]) -> None:
    tensors, names, num_layers = checkpoint

    back = to_checkpoint(from_checkpoint(tensors, names, num_layers), names, num_layers)

    assert set(back) == set(tensors) - {"bert.embeddings.position_ids"}
    for name, tensor in back.items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name]), name


def test_every_missing_tensor_is_noticed(checkpoint: tuple[Tensors, TensorNames, int]) -> None:
    tensors, names, num_layers = checkpoint

    for name in names.expected(num_layers):
        with pytest.raises(ModelRefusedError, match=rf"1 missing \({name}\); 0 unexpected"):
            from_checkpoint({other: tensor for other, tensor in tensors.items() if other != name}, names, num_layers)


def test_a_tensor_left_over_is_noticed(checkpoint: tuple[Tensors, TensorNames, int]) -> None:
    tensors, names, num_layers = checkpoint

    with pytest.raises(ModelRefusedError, match=r"0 missing; 1 unexpected \(lm_head\.bias\)"):
        from_checkpoint(tensors | {"lm_head.bias": torch.zeros(1)}, names, num_layers)


def test_a_layer_more_than_the_config_says_is_noticed(checkpoint: tuple[Tensors, TensorNames, int]) -> None:
    tensors, names, num_layers = checkpoint

    with pytest.raises(ModelRefusedError, match=rf"0 missing; \d+ unexpected .*layers?\.{num_layers - 1}\."):
        from_checkpoint(tensors, names, num_layers - 1)


def test_many_names_are_shortened() -> None:
    with pytest.raises(ModelRefusedError, match=r"\d+ missing \([^,]+, [^,]+, [^,]+, \.\.\.\)"):
        from_checkpoint({}, bert.NAMES, 1)


def test_jina_v2_has_153_tensors() -> None:
    """The number in the published checkpoint of 12 layers."""
    assert len(jina_v2.NAMES.expected(12)) == 153
