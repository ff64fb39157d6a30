"""gte-multilingual-reranker-base: a post-norm encoder with rotary positions and gated feed-forward layers.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads, H head width, F feed-forward width.
Its publisher's config.json names code of its own (`model_type` "new", "NewForSequenceClassification"), which is not run
here; transformers has the same model as "gte" (mGTE, Zhang et al. 2024).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from ..attention import Attention, sdpa_attention
from ..encoder import HIDDEN_ACTIVATIONS, GatedBlock, PackedNetwork, embedding
from ..errors import ModelRefusedError
from ..linear import Linear
from ..model_files import TensorHeader, shown
from ..packing import PackedBatch
from ..rotary import Rotation, rotated, rotation_of
from .checkpoint import Shapes, Tensors, renamed
from .encoder_config import (
    UNSCALED,
    check_not_set,
    check_reads_both_ways,
    choice,
    epsilon,
    number,
    one_label,
    rotary_settings,
    size,
)
from .family import Config, Family, OwnSpec, PairStyle

T = TypeVar("T")
LAYOUT = "gte"
PUBLISHERS_TYPE = "new"
"""`model_type` of the publisher's own config.json."""
PAIRS = PairStyle("<s>", "</s>", separators_between=2, has_segments=False)
BODY = "new."
"""What the names of all tensors but the classifier's begin with, as published and in `shapes`."""
SAVED = {"new.gte.": BODY, "gte.": BODY, "new.classifier.": "classifier."}
"""What names begin with under transformers' own type: it saves a model that it read with the published names, or drew
anew, with others."""
AS_PUBLISHED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("rope",),
    "layer_norm_type": ("layer_norm",),
    "pack_qkv": (True,),
    "logn_attention_scale": (False,),
    "logn_attention_clip1": (False,),
}
"""Settings of the publisher's code that change what is computed, and the only values that are known here."""
NOT_COMPUTED = ("quantization_config", "head_dim")
"""Keys that change what a model computes in a way that is not implemented here."""


@dataclass(frozen=True, slots=True)
class GteShape:
    """The sizes of the encoder, under the names that its config.json gives them."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str
    theta: float
    """The base of the rotary positions' wavelengths."""
    stretch: float
    """By what all angles are divided."""


class Block(GatedBlock):
    """What follows the attention in every layer."""

    def __init__(self, shape: GteShape) -> None:
        width, wide, heads = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads
        super().__init__(width, wide, heads, shape.layer_norm_eps, HIDDEN_ACTIVATIONS[shape.hidden_act])


class Layer(Block):
    """One transformer layer over every token, with fused QKV, whose rows are [q; k; v], heads contiguous."""

    def __init__(self, shape: GteShape) -> None:
        super().__init__(shape)
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)

    def forward(self, x_TD: torch.Tensor, batch: PackedBatch, rotation: Rotation, attention: Attention) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        qkv_T3NH = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1))
        q_TNH, k_TNH = rotated(qkv_T3NH[:, :2], rotation).unbind(1)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        o_TNH = attention(q_TNH, k_TNH, qkv_T3NH[:, 2], bounds, bounds, longest, longest)
        return self.after_attention(x_TD, o_TNH)


class FirstTokenLayer(Block):
    """The last layer: only the first token of each pair asks, which stands at position 0 and is not turned."""

    def __init__(self, shape: GteShape) -> None:
        super().__init__(shape)
        self.q = Linear(shape.hidden_size, shape.hidden_size)
        self.kv = Linear(shape.hidden_size, 2 * shape.hidden_size)

    def forward(self, x_TD: torch.Tensor, batch: PackedBatch, rotation: Rotation, attention: Attention) -> torch.Tensor:
        """[T, D] -> [P, D]."""
        x_PD = x_TD[batch.cu_seqlens[:-1]]
        q_PNH = self.q(x_PD).unflatten(-1, (self.num_heads, -1))
        kv_T2NH = self.kv(x_TD).unflatten(-1, (2, self.num_heads, -1))
        k_TNH = rotated(kv_T2NH[:, :1], rotation)[:, 0]
        one_each = torch.arange(len(x_PD) + 1, dtype=torch.int32, device=x_TD.device)
        o_PNH = attention(q_PNH, k_TNH, kv_T2NH[:, 1], one_each, batch.cu_seqlens, 1, batch.max_seqlen)
        return self.after_attention(x_PD, o_PNH)


class Gte(PackedNetwork):
    """Embeddings, layers and the classification head (dense, tanh, one logit)."""

    attention: Attention = staticmethod(sdpa_attention)

    def __init__(self, shape: GteShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.theta, self.stretch = shape.theta, shape.stretch
        self.head_width = width // shape.num_attention_heads
        self.word_embeddings = embedding(shape.vocab_size, width)
        self.token_type_embeddings = embedding(shape.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, shape.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers - 1))
        self.layers.append(FirstTokenLayer(shape))
        self.head_dense = Linear(width, width)
        self.head_out = Linear(width, 1)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        x = self.embedding_norm(self.word_embeddings(batch.input_ids) + self.token_type_embeddings.weight[0])
        rotation = rotation_of(batch.position_ids, self.theta, self.head_width, self.stretch)
        for layer in self.layers:
            x = layer(x, batch, rotation, self.attention)
        return self.head_out(torch.tanh(self.head_dense(x))).squeeze(-1).float()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class GteSpec(OwnSpec):
    """A gte-multilingual reranker."""

    shape: GteShape
    is_published: bool
    """Whether config.json is the publisher's, beside which tensors have the published names alone."""

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUT

    @property
    def sizes(self) -> GteShape:
        """As in `OwnSpec`."""
        return self.shape

    @property
    def segments(self) -> int:
        """As in `ModelSpec`."""
        return self.shape.type_vocab_size

    def network(self) -> Gte:
        """As in `ModelSpec`."""
        return Gte(self.shape)

    def check_tensors(self, headers: Mapping[str, TensorHeader]) -> None:
        """As in `ModelSpec`."""
        OwnSpec.check_tensors(self, self.as_published(headers))

    def as_published(self, by_name: Mapping[str, T]) -> dict[str, T]:
        """What belongs to tensors, by their published names; raises ModelRefusedError for two with the same one."""
        if self.is_published:
            return dict(by_name)
        found = {published_name(name): one for name, one in by_name.items()}
        if len(found) < len(by_name):
            [(twice, _)] = Counter(map(published_name, by_name)).most_common(1)
            raise ModelRefusedError(f"the tensor {shown(twice)} is there under two names; save the model anew")
        return found

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`."""
        count = self.shape.num_hidden_layers
        tensors = self.as_published(tensors)
        self.check_names(tensors)
        names = {
            f"{BODY}embeddings.word_embeddings": "word_embeddings",
            f"{BODY}embeddings.token_type_embeddings": "token_type_embeddings",
            f"{BODY}embeddings.LayerNorm": "embedding_norm",
            f"{BODY}pooler.dense": "head_dense",
            "classifier": "head_out",
        }
        state: Tensors = {}
        for i in range(count):
            theirs, ours = f"{BODY}encoder.layer.{i}", f"layers.{i}"
            parts = {"attention.o_proj": "attention_out", "attn_ln": "attention_norm"}
            parts |= {"mlp.down_proj": "feed_forward_out", "mlp_ln": "feed_forward_norm"}
            names |= {f"{theirs}.{name}": f"{ours}.{module}" for name, module in parts.items()}
            up, gate = tensors[f"{theirs}.mlp.up_gate_proj.weight"].chunk(2)
            state |= {f"{ours}.feed_forward_in.weight": up, f"{ours}.feed_forward_gate.weight": gate}
            split = {"qkv": 3} if i < count - 1 else {"q": 1, "kv": 2}
            for kind in ("weight", "bias"):
                fused = tensors[f"{theirs}.attention.qkv_proj.{kind}"]
                rows = fused.split([thirds * len(fused) // 3 for thirds in split.values()])
                state |= {f"{ours}.{part}.{kind}": tensor for part, tensor in zip(split, rows, strict=True)}
        return state | renamed(tensors, names)

    def shapes(self) -> Shapes:
        """As in `OwnSpec`."""
        shape = self.shape
        width, wide = shape.hidden_size, shape.intermediate_size
        found = Shapes()
        found.add(f"{BODY}embeddings.word_embeddings", shape.vocab_size, width, bias=False)
        found.add(f"{BODY}embeddings.token_type_embeddings", shape.type_vocab_size, width, bias=False)
        found.add(f"{BODY}embeddings.LayerNorm", width)
        for i in range(shape.num_hidden_layers):
            layer = f"{BODY}encoder.layer.{i}"
            found.add(f"{layer}.attention.qkv_proj", 3 * width, width)
            found.add(f"{layer}.attention.o_proj", width, width)
            found.add(f"{layer}.attn_ln", width)
            found.add(f"{layer}.mlp.up_gate_proj", 2 * wide, width, bias=False)
            found.add(f"{layer}.mlp.down_proj", width, wide)
            found.add(f"{layer}.mlp_ln", width)
        found.add(f"{BODY}pooler.dense", width, width)
        found.add("classifier", 1, width)
        return found

    def plain_checkpoint(self, tensors: Mapping[str, torch.Tensor], config: Config) -> tuple[Tensors, Config]:
        """As in `ModelSpec`, of transformers' GteForSequenceClassification, which reads the published names too."""
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        others = ("hidden_act", "type_vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
        rope = {"rope_type": "linear", "rope_theta": self.shape.theta, "factor": self.shape.stretch}
        return self.as_published(tensors), {name: config[name] for name in sizes + others if name in config} | {
            "architectures": ["GteForSequenceClassification"],
            "model_type": LAYOUT,
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "layer_norm_eps": self.shape.layer_norm_eps,
            "max_position_embeddings": self.max_length,
            "rope_parameters": rope,
        }


def is_gte(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so, in its publisher's words or transformers'."""
    return config.get("model_type") in (PUBLISHERS_TYPE, LAYOUT)


def gte_spec(config: Config) -> GteSpec:
    """What config.json says of a cross-encoder with one label.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    check_reads_both_ways(config)
    check_not_set(config, NOT_COMPUTED, LAYOUT)
    for key, known in AS_PUBLISHED.items():
        if key in config and config[key] not in known:
            raise ModelRefusedError(f"{key} is {shown(config[key])}; supported is {shown(known[0])}")
    one_label(config)
    heads, width = size(config, "num_attention_heads"), size(config, "hidden_size")
    if width % (2 * heads):
        raise ModelRefusedError(
            f"num_attention_heads is {heads}, and hidden_size ({width}) is no even number for each of them; rotary "
            "positions turn the numbers of a head in pairs"
        )
    theta, stretch = rope(config, width // heads)
    shape = GteShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=heads,
        intermediate_size=size(config, "intermediate_size"),
        type_vocab_size=size({"type_vocab_size": 1} | config, "type_vocab_size"),
        layer_norm_eps=epsilon(config),
        hidden_act=choice(config, "hidden_act", "gelu", HIDDEN_ACTIVATIONS),
        theta=theta,
        stretch=stretch,
    )
    longest = size(config, "max_position_embeddings")
    return GteSpec(
        shape=shape,
        is_published=config["model_type"] == PUBLISHERS_TYPE,
        max_length=longest,
        padding_id=None,
        pair_styles=(PAIRS,),
    )


def published_name(name: str) -> str:
    """The name that a tensor was published with."""
    for begin, published in SAVED.items():
        if name.startswith(begin):
            return published + name.removeprefix(begin)
    return name


def rope(config: Config, head_width: int) -> tuple[float, float]:
    """The base of the rotary positions, and what angles are divided by; raises ModelRefusedError for others.

    The publisher's code scales them by "ntk" (fixed): the base times the factor, and angles divided by the factor to
    the power of 2 / H (https://kexue.fm/archives/9706). transformers says the same as `linear` positions of that base.
    """
    if config["model_type"] == LAYOUT:
        settings = rotary_settings(config, theta=160_000.0)
        kind = settings["rope_type"]
        if settings.keys() - {"rope_type", "rope_theta", "factor"} or kind not in (UNSCALED, "linear"):
            raise ModelRefusedError(f"rotary positions are {shown(settings)}; supported are default and linear ones")
        stretch = number(settings, "factor", most=None) if kind == "linear" else 1.0
        return number(settings, "rope_theta", most=None), stretch
    theta = number(config, "rope_theta", 10_000.0, most=None)
    scaling: Any = config.get("rope_scaling")
    if scaling is None:
        return theta, 1.0
    if not isinstance(scaling, dict) or {**scaling, "factor": 0} != {"type": "ntk", "factor": 0}:
        raise ModelRefusedError(f"rope_scaling is {shown(scaling)}; supported is ntk with a factor, or none")
    factor = number(scaling, "factor", most=None)
    return theta * factor, factor ** (2 / head_width)


GTE = Family(LAYOUT, is_gte, gte_spec, is_trained=False)
