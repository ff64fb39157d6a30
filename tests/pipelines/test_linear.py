"""oneDNN's linear layers compute what torch's do, for any number of tokens, and torch's take over where they cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.linear import Linear, OneDnnLinear, onednn_is_usable, pack_linear_layers

usable = pytest.mark.skipif(not onednn_is_usable(), reason="this build of torch has no oneDNN")


@usable
@pytest.mark.parametrize("tokens", [1, 2, 7, 33, 500, 1025])
@pytest.mark.parametrize(("width", "out"), [(32, 1), (32, 96), (48, 31)])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_give_torchs_numbers(tokens: int, width: int, out: int, bias: bool) -> None:
    """Any number of tokens, also far from the one the weights were packed for, and outputs that no vector divides."""
    torch.manual_seed(0)
    plain = Linear(width, out, bias=bias)
    packed = OneDnnLinear(plain)
    x, residual = torch.randn(tokens, width), torch.randn(tokens, out)
    with torch.inference_mode():
        torch.testing.assert_close(packed(x), plain(x), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed.plus(x, residual), plain.plus(x, residual), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed.times(x, residual), plain.times(x, residual), atol=1e-5, rtol=1e-5)
        for approximate in ("none", "tanh"):
            torch.testing.assert_close(packed.gelu(x, approximate), plain.gelu(x, approximate), atol=1e-5, rtol=1e-5)


@usable
def test_the_residual_stays_as_it_was() -> None:
    residual = torch.ones(3, 4)
    with torch.inference_mode():
        OneDnnLinear(Linear(8, 4)).plus(torch.randn(3, 8), residual)
    assert torch.equal(residual, torch.ones(3, 4))


@usable
def test_every_linear_layer_inside_is_packed_and_nothing_else() -> None:
    module = nn.Sequential(Linear(4, 4), nn.LayerNorm(4), nn.Sequential(Linear(4, 2)), nn.Linear(2, 2))
    pack_linear_layers(module)
    assert [type(layer) for layer in module] == [OneDnnLinear, nn.LayerNorm, nn.Sequential, nn.Linear]
    assert type(module[2][0]) is OneDnnLinear


@pytest.mark.parametrize("failure", [AttributeError, RuntimeError, NotImplementedError])
def test_without_the_operators_layers_stay_torchs(failure: type[Exception]) -> None:
    """They are no public interface: another version of torch may lack or change them."""

    def missing(*_: object) -> OneDnnLinear:
        raise failure("no such operator")

    module = nn.Sequential(Linear(4, 4))

    pack_linear_layers(module, missing)

    assert type(module[0]) is Linear


def test_operators_that_compute_something_else_are_not_used() -> None:
    class Wrong(Linear):
        def __init__(self, plain: Linear) -> None:
            super().__init__(plain.in_features, plain.out_features)

    module = nn.Sequential(Linear(4, 4))

    pack_linear_layers(module, Wrong)

    assert type(module[0]) is Linear
    assert not onednn_is_usable(Wrong)
