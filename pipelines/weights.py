"""Checkpoint tensors to and from our packed encoder. The only file that knows anybody's parameter names.

Layouts: `bert` and `xlm-roberta` as transformers writes them, `flash-xlm-roberta` as jina-reranker-v2 is published
(fused `Wqkv`, `mixer`, `emb_ln`; the naming is that of Dao-AILab/flash-attention's models/bert.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .errors import ModelRefusedError

Tensors = dict[str, torch.Tensor]

HEADS = {
    "bert": {"head_dense": "bert.pooler.dense", "head_out": "classifier"},
    "xlm-roberta": {"head_dense": "classifier.dense", "head_out": "classifier.out_proj"},
    "flash-xlm-roberta": {"head_dense": "classifier.dense", "head_out": "classifier.out_proj"},
}
EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
SCALES = ".row_scales"
"""After the name of a matrix in 8 bits: the name of its rows' scales. The large embeddings of the embedded models."""
INT8_MAX = 127
IGNORED_SUFFIXES = ("embeddings.position_ids",)  # a buffer that old versions of transformers saved


def module_names(layout: str, num_layers: int) -> dict[str, str]:
    """Our module name -> the checkpoint's, without `.weight` and `.bias`; q, k and v are treated apart."""
    prefix = "bert" if layout == "bert" else "roberta"
    names = {name: f"{prefix}.embeddings.{name}" for name in EMBEDDINGS} | HEADS[layout]
    flash = layout == "flash-xlm-roberta"
    names["embedding_norm"] = f"{prefix}.emb_ln" if flash else f"{prefix}.embeddings.LayerNorm"
    for i in range(num_layers):
        ours, theirs = f"layers.{i}", f"{prefix}.encoder.{'layers' if flash else 'layer'}.{i}"
        parts = {
            "attention_out": "mixer.out_proj" if flash else "attention.output.dense",
            "attention_norm": "norm1" if flash else "attention.output.LayerNorm",
            "feed_forward_in": "mlp.fc1" if flash else "intermediate.dense",
            "feed_forward_out": "mlp.fc2" if flash else "output.dense",
            "feed_forward_norm": "norm2" if flash else "output.LayerNorm",
        }
        names |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in parts.items()}
    return names


def qkv_names(layout: str, layer: int) -> tuple[str, ...]:
    """The modules that make the fused `qkv` of a layer, in its row order."""
    if layout == "flash-xlm-roberta":
        return (f"roberta.encoder.layers.{layer}.mixer.Wqkv",)
    prefix = "bert" if layout == "bert" else "roberta"
    return tuple(f"{prefix}.encoder.layer.{layer}.attention.self.{part}" for part in ("query", "key", "value"))


def qkv_parts(layer: int, num_layers: int) -> dict[str, int]:
    """Our modules that hold the rows of q, k and v, and how many thirds of them: in the last layer q stands apart."""
    return {"qkv": 3} if layer < num_layers - 1 else {"q": 1, "kv": 2}


def from_checkpoint(tensors: Mapping[str, torch.Tensor], layout: str, num_layers: int) -> Tensors:
    """The state dict of a `PackedEncoder`.

    Raises ModelRefusedError when a tensor is missing or left over: such a model would load as garbage.
    """
    expected = expected_names(layout, num_layers)
    found = {name for name in tensors if not name.endswith(IGNORED_SUFFIXES)}
    if found != expected:
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        raise ModelRefusedError(
            f"the checkpoint does not hold the tensors of a {layout} cross-encoder of {num_layers} layers: "
            f"{describe_names('missing', missing)}; {describe_names('unexpected', unexpected)}"
        )
    state: Tensors = {}
    for ours, theirs in module_names(layout, num_layers).items():
        state[f"{ours}.weight"] = tensors[f"{theirs}.weight"]
        if ours not in EMBEDDINGS:
            state[f"{ours}.bias"] = tensors[f"{theirs}.bias"]
    for i in range(num_layers):
        for kind in ("weight", "bias"):
            fused = torch.cat([tensors[f"{name}.{kind}"] for name in qkv_names(layout, i)])
            parts = qkv_parts(i, num_layers)
            rows = fused.split([thirds * len(fused) // 3 for thirds in parts.values()])
            state |= {f"layers.{i}.{part}.{kind}": tensor for part, tensor in zip(parts, rows, strict=True)}
    return state


def in_8_bits(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as int8, and the float32 scale of each row: the largest value of a row becomes 127."""
    rows = rows.float()
    scales = rows.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / INT8_MAX
    return (rows / scales[:, None]).round().to(torch.int8), scales


def with_restored_rows(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors with those that are stored in 8 bits in float32 again, and without their scales.

    Raises ModelRefusedError for one that has no scale for each row.
    """
    restored = dict(tensors)
    for name, rows in tensors.items():
        if rows.dtype == torch.int8:
            scales = restored.pop(f"{name}{SCALES}", None)
            if scales is None or scales.shape != rows.shape[:1]:
                raise ModelRefusedError(f"{name} is in 8 bits, and {name}{SCALES} has not one scale for each row")
            restored[name] = rows.float() * scales.float()[:, None]
    return restored


def to_checkpoint(state: Mapping[str, torch.Tensor], layout: str, num_layers: int) -> Tensors:
    """The inverse of `from_checkpoint`: the tensors that transformers (or jina's layout) would hold."""
    tensors: Tensors = {}
    for ours, theirs in module_names(layout, num_layers).items():
        tensors[f"{theirs}.weight"] = state[f"{ours}.weight"]
        if ours not in EMBEDDINGS:
            tensors[f"{theirs}.bias"] = state[f"{ours}.bias"]
    for i in range(num_layers):
        names = qkv_names(layout, i)
        for kind in ("weight", "bias"):
            fused = torch.cat([state[f"layers.{i}.{part}.{kind}"] for part in qkv_parts(i, num_layers)])
            rows = fused.chunk(len(names))
            tensors |= {f"{name}.{kind}": part.contiguous() for name, part in zip(names, rows, strict=True)}
    return tensors


def expected_names(layout: str, num_layers: int) -> set[str]:
    """Every tensor name a checkpoint of this layout must hold, and no other."""
    modules = module_names(layout, num_layers)
    names = {f"{theirs}.weight" for theirs in modules.values()}
    names |= {f"{theirs}.bias" for ours, theirs in modules.items() if ours not in EMBEDDINGS}
    for i in range(num_layers):
        names |= {f"{name}.{kind}" for name in qkv_names(layout, i) for kind in ("weight", "bias")}
    return names


def describe_names(what: str, names: list[str], shown: int = 3) -> str:
    """`2 missing (a, b)`, with at most `shown` names."""
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} {what} ({', '.join(names[:shown])}{more})" if names else f"0 {what}"
