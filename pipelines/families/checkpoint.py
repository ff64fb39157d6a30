"""Checkpoint tensors to and from our packed encoder, by a family's names for them; none missing and none left over.

The names themselves stand in the families' files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import ModelRefusedError

Tensors = dict[str, torch.Tensor]

EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LAYER_PARTS = ("attention_out", "attention_norm", "feed_forward_in", "feed_forward_out", "feed_forward_norm")
IGNORED_SUFFIXES = ("embeddings.position_ids",)  # a buffer that old versions of transformers saved


@dataclass(frozen=True, slots=True)
class TensorNames:
    """A family's names for the modules of a `PackedEncoder`, without `.weight` and `.bias`.

    The defaults are those that transformers gives to BERT and its descendants.
    """

    layout: str
    """The name of the family in fingerprints and messages."""
    body: str
    """What all names but those of the head begin with."""
    head_dense: str
    head_out: str
    embedding_norm: str = "embeddings.LayerNorm"
    layer: str = "encoder.layer"
    """Before the number of a layer; the names below follow it."""
    qkv: tuple[str, ...] = ("attention.self.query", "attention.self.key", "attention.self.value")
    """The modules that make the fused `qkv` of a layer, in its row order."""
    attention_out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    feed_forward_in: str = "intermediate.dense"
    feed_forward_out: str = "output.dense"
    feed_forward_norm: str = "output.LayerNorm"

    def modules(self, num_layers: int) -> dict[str, str]:
        """Our module name -> the checkpoint's; q, k and v are treated apart."""
        names = {name: f"{self.body}.embeddings.{name}" for name in EMBEDDINGS}
        names["embedding_norm"] = f"{self.body}.{self.embedding_norm}"
        for i in range(num_layers):
            theirs = f"{self.body}.{self.layer}.{i}"
            names |= {f"layers.{i}.{part}": f"{theirs}.{getattr(self, part)}" for part in LAYER_PARTS}
        return names | {"head_dense": self.head_dense, "head_out": self.head_out}

    def qkv_of(self, layer: int) -> list[str]:
        """The modules that make the fused `qkv` of one layer, in its row order."""
        return [f"{self.body}.{self.layer}.{layer}.{part}" for part in self.qkv]

    def expected(self, num_layers: int) -> set[str]:
        """Every tensor name a checkpoint must hold, and no other."""
        modules = self.modules(num_layers)
        names = {f"{theirs}.weight" for theirs in modules.values()}
        names |= {f"{theirs}.bias" for ours, theirs in modules.items() if ours not in EMBEDDINGS}
        for i in range(num_layers):
            names |= {f"{name}.{kind}" for name in self.qkv_of(i) for kind in ("weight", "bias")}
        return names


def from_checkpoint(tensors: Mapping[str, torch.Tensor], names: TensorNames, num_layers: int) -> Tensors:
    """The state dict of a `PackedEncoder`.

    Raises ModelRefusedError when a tensor is missing or left over: such a model would load as garbage.
    """
    check_names(tensors, names, num_layers)
    state: Tensors = {}
    for ours, theirs in names.modules(num_layers).items():
        state[f"{ours}.weight"] = tensors[f"{theirs}.weight"]
        if ours not in EMBEDDINGS:
            state[f"{ours}.bias"] = tensors[f"{theirs}.bias"]
    for i in range(num_layers):
        for kind in ("weight", "bias"):
            fused = torch.cat([tensors[f"{name}.{kind}"] for name in names.qkv_of(i)])
            parts = qkv_parts(i, num_layers)
            rows = fused.split([thirds * len(fused) // 3 for thirds in parts.values()])
            state |= {f"layers.{i}.{part}.{kind}": tensor for part, tensor in zip(parts, rows, strict=True)}
    return state


def to_checkpoint(state: Mapping[str, torch.Tensor], names: TensorNames, num_layers: int) -> Tensors:
    """The inverse of `from_checkpoint`: the tensors as a checkpoint of the family holds them."""
    tensors: Tensors = {}
    for ours, theirs in names.modules(num_layers).items():
        tensors[f"{theirs}.weight"] = state[f"{ours}.weight"]
        if ours not in EMBEDDINGS:
            tensors[f"{theirs}.bias"] = state[f"{ours}.bias"]
    for i in range(num_layers):
        modules = names.qkv_of(i)
        for kind in ("weight", "bias"):
            fused = torch.cat([state[f"layers.{i}.{part}.{kind}"] for part in qkv_parts(i, num_layers)])
            rows = fused.chunk(len(modules))
            tensors |= {f"{name}.{kind}": part.contiguous() for name, part in zip(modules, rows, strict=True)}
    return tensors


def qkv_parts(layer: int, num_layers: int) -> dict[str, int]:
    """Our modules that hold the rows of q, k and v, and how many thirds of them: in the last layer q stands apart."""
    return {"qkv": 3} if layer < num_layers - 1 else {"q": 1, "kv": 2}


def check_names(tensors: Mapping[str, torch.Tensor], names: TensorNames, num_layers: int) -> None:
    """Raises ModelRefusedError, naming them, where tensors are missing or left over."""
    expected = names.expected(num_layers)
    found = {name for name in tensors if not name.endswith(IGNORED_SUFFIXES)}
    if found != expected:
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        raise ModelRefusedError(
            f"the checkpoint does not hold the tensors of a {names.layout} cross-encoder of {num_layers} layers: "
            f"{describe_names('missing', missing)}; {describe_names('unexpected', unexpected)}"
        )


def describe_names(what: str, names: list[str], shown: int = 3) -> str:
    """`2 missing (a, b)`, with at most `shown` names."""
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} {what} ({', '.join(names[:shown])}{more})" if names else f"0 {what}"
