"""Checkpoint tensors to and from our packed encoder, by a family's names for them; none missing and none left over.

The names themselves stand in the families' files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from ..encoder import EncoderShape
from ..errors import ModelRefusedError
from ..model_files import TensorHeader
from .int8_rows import SCALES

Tensors = dict[str, torch.Tensor]

EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LAYER_PARTS = ("attention_out", "attention_norm", "feed_forward_in", "feed_forward_out", "feed_forward_norm")
IGNORED_SUFFIXES = ("embeddings.position_ids",)  # a buffer that old versions of transformers saved
FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of tensors that we read, in the words of safetensors; I8 stands for `int8_rows`."""


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
    unused: tuple[str, ...] = ()
    """What the names of tensors begin with that a checkpoint may hold and that no score depends on."""

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

    def is_unread(self, name: str) -> bool:
        """Whether a checkpoint may hold this tensor, and nothing reads it."""
        return name.endswith(IGNORED_SUFFIXES) or name.startswith(self.unused)

    def shapes(self, shape: EncoderShape) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that a checkpoint must hold."""
        width, wide = shape.hidden_size, shape.intermediate_size
        rows = {"word_embeddings": shape.vocab_size, "position_embeddings": shape.max_position_embeddings}
        rows |= {"token_type_embeddings": shape.type_vocab_size}
        weights = {name: (count, width) for name, count in rows.items()}
        weights |= {"feed_forward_in": (wide, width), "feed_forward_out": (width, wide), "head_out": (1, width)}
        found: dict[str, tuple[int, ...]] = {}
        for ours, theirs in self.modules(shape.num_hidden_layers).items():
            module = ours.rpartition(".")[2]
            weight = (width,) if module.endswith("_norm") else weights.get(module, (width, width))
            found[f"{theirs}.weight"] = weight
            if ours not in EMBEDDINGS:
                found[f"{theirs}.bias"] = weight[:1]
        fused = 3 * width // len(self.qkv)
        for name in (name for i in range(shape.num_hidden_layers) for name in self.qkv_of(i)):
            found |= {f"{name}.weight": (fused, width), f"{name}.bias": (fused,)}
        return found


class Shapes(dict[str, tuple[int, ...]]):
    """The shape of every tensor of a checkpoint, by its name."""

    def add(self, module: str, *weight: int, bias: bool = True) -> None:
        """The tensors of a linear layer or a norm; a bias has as many numbers as the weight has rows."""
        self[f"{module}.weight"] = weight
        if bias:
            self[f"{module}.bias"] = weight[:1]


def check_headers(headers: Mapping[str, TensorHeader], names: TensorNames, shape: EncoderShape) -> None:
    """Compares the sizes of a config with the tensors of its checkpoint, before anything of that size is made.

    Raises ModelRefusedError for tensors that are missing, left over, of another shape or of a type that we do not read.
    """
    scales = {f"{name}{SCALES}" for name, header in headers.items() if header.dtype == "I8"}
    read = {name: header for name, header in headers.items() if name not in scales and not names.is_unread(name)}
    check_names(read, names, shape.num_hidden_layers)
    check_shapes({name: header.shape for name, header in read.items()}, names, shape)
    check_types(read, (*FLOATS, "I8"))


def check_types(headers: Mapping[str, TensorHeader], types: Collection[str] = FLOATS) -> None:
    """Raises ModelRefusedError, naming the first, for a tensor of a type that we do not read."""
    for name, header in headers.items():
        if header.dtype not in types:
            raise ModelRefusedError(f"{name} is of type {header.dtype}; weights are {', or '.join(types)}")


def check_shapes(shapes: Mapping[str, tuple[int, ...]], names: TensorNames, shape: EncoderShape) -> None:
    """Raises ModelRefusedError, naming the first, where tensors do not have the sizes of the config."""
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings", "type_vocab_size")
    check_same_shapes(shapes, names.shapes(shape), {name: getattr(shape, name) for name in sizes})


def check_same_shapes(
    shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> None:
    """As `check_shapes`, for any shapes and the `sizes` of config.json that they follow from."""
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise ModelRefusedError(
                f"the tensors do not have the sizes of its config.json: {name} is {list(shapes[name])} instead of "
                f"{list(shape)} ({', '.join(f'{key} {value}' for key, value in sizes.items())})"
            )


def renamed(tensors: Mapping[str, torch.Tensor], modules: Mapping[str, str]) -> Tensors:
    """Weights and biases of modules, where they are there, under other names."""
    return {
        f"{ours}.{kind}": tensors[f"{theirs}.{kind}"]
        for theirs, ours in modules.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in tensors
    }


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


def check_names(tensors: Collection[str], names: TensorNames, num_layers: int) -> None:
    """Raises ModelRefusedError, naming them, where tensors are missing or left over."""
    check_number_of_layers(tensors, num_layers)
    found = {name for name in tensors if not names.is_unread(name)}
    check_same_names(found, names.expected(num_layers), names.layout, num_layers)


def check_same_names(found: Collection[str], expected: Collection[str], layout: str, num_layers: int) -> None:
    """As `check_names`, for any names of tensors."""
    missing, unexpected = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unexpected:
        raise ModelRefusedError(
            f"the checkpoint does not hold the tensors of a cross-encoder ({layout}) of {num_layers} layers: "
            f"{describe_names('missing', missing)}; {describe_names('unexpected', unexpected)}"
        )


def check_number_of_layers(tensors: Collection[str], num_layers: int) -> None:
    """Raises ModelRefusedError for more layers than tensors: listing what each of them lacks would take for ever."""
    if num_layers > len(tensors) > 0:
        raise ModelRefusedError(f"num_hidden_layers is {num_layers:,}, and the checkpoint has {len(tensors):,} tensors")


def describe_names(what: str, names: list[str], shown: int = 3) -> str:
    """`2 missing (a, b)`, with at most `shown` names."""
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} {what} ({', '.join(names[:shown])}{more})" if names else f"0 {what}"
