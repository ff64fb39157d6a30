"""jina-reranker-v1 turbo and tiny: JinaBERT, a BERT without position embeddings and with gated feed-forward layers.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads, H head width, F feed-forward width.
Positions are biases of the attention instead (ALiBi, Press et al. 2022), counted on both sides of a token ("Jina
Embeddings 2", Günther et al. 2023). config.json says `model_type` "bert", and names code of its own, which is not run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..attention import WindowedAttention, alibi_slopes, sdpa_attention
from ..encoder import GatedBlock, PackedNetwork, embedding
from ..errors import ModelRefusedError
from ..linear import Linear
from ..model_files import shown
from ..packing import PackedBatch
from .checkpoint import Shapes, Tensors, renamed
from .encoder_config import check_not_set, check_reads_both_ways, epsilon, one_label, size
from .family import Config, Family, OwnSpec
from .roberta import ROBERTA_PAIRS

LAYOUT = "jina-bert"
BODY = "bert."
"""What the names of all tensors but the classifier's begin with."""
REQUIRED = {"model_type": "bert", "position_embedding_type": "alibi", "feed_forward_type": "geglu"}
"""What config.json must say: other values, and the defaults, are computed in other ways."""
ALLOWED: dict[str, tuple[Any, ...]] = {"hidden_act": ("gelu",), "attn_implementation": ("torch", None)}
"""What it may say. "torch" and null are two ways of the publisher's code to the same numbers."""
NOT_COMPUTED = ("add_cross_attention", "quantization_config")
"""Keys that change what a model computes in a way that is not implemented here."""


@dataclass(frozen=True, slots=True)
class JinaBertShape:
    """The sizes of the encoder, under the names that its config.json gives them."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    type_vocab_size: int
    layer_norm_eps: float


class Block(GatedBlock):
    """What follows the attention in every layer."""

    def __init__(self, shape: JinaBertShape) -> None:
        width, wide, heads = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads
        super().__init__(width, wide, heads, shape.layer_norm_eps, "none")


class Layer(Block):
    """One transformer layer over every token, with fused QKV, whose rows are [q; k; v], heads contiguous."""

    def __init__(self, shape: JinaBertShape) -> None:
        super().__init__(shape)
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)

    def forward(
        self, x_TD: torch.Tensor, batch: PackedBatch, slopes_N: torch.Tensor, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        q_TNH, k_TNH, v_TNH = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        o_TNH = attention(q_TNH, k_TNH, v_TNH, bounds, bounds, longest, longest, alibi_slopes=slopes_N)
        return self.after_attention(x_TD, o_TNH)


class FirstTokenLayer(Block):
    """The last layer: only the first token of each pair asks.

    Attention counts distances as if the tokens that ask were the last ones. So the whole batch is read backwards: then
    the first tokens are the last ones, and all distances are what they were.
    """

    def __init__(self, shape: JinaBertShape) -> None:
        super().__init__(shape)
        self.q = Linear(shape.hidden_size, shape.hidden_size)
        self.kv = Linear(shape.hidden_size, 2 * shape.hidden_size)

    def forward(
        self, x_TD: torch.Tensor, batch: PackedBatch, slopes_N: torch.Tensor, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [P, D]."""
        x_PD = x_TD[batch.cu_seqlens[:-1]]
        q_PNH = self.q(x_PD).unflatten(-1, (self.num_heads, -1))
        k_TNH, v_TNH = self.kv(x_TD).unflatten(-1, (2, self.num_heads, -1)).flip(0).unbind(1)
        bounds = len(x_TD) - batch.cu_seqlens.flip(0)
        one_each = torch.arange(len(x_PD) + 1, dtype=torch.int32, device=x_TD.device)
        tensors = (q_PNH.flip(0), k_TNH, v_TNH, one_each, bounds, 1, batch.max_seqlen)
        return self.after_attention(x_PD, attention(*tensors, alibi_slopes=slopes_N).flip(0))


class JinaBert(PackedNetwork):
    """Embeddings, layers and the classification head (dense, tanh, one logit)."""

    attention: WindowedAttention = staticmethod(sdpa_attention)

    def __init__(self, shape: JinaBertShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.slopes = alibi_slopes(shape.num_attention_heads)
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
        slopes_N = torch.tensor(self.slopes, dtype=torch.float32, device=x.device)  # flash-attn reads no other type
        for layer in self.layers:
            x = layer(x, batch, slopes_N, self.attention)
        return self.head_out(torch.tanh(self.head_dense(x))).squeeze(-1).float()  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class JinaBertSpec(OwnSpec):
    """A jina-reranker-v1."""

    shape: JinaBertShape

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUT

    @property
    def sizes(self) -> JinaBertShape:
        """As in `OwnSpec`."""
        return self.shape

    @property
    def segments(self) -> int:
        """As in `ModelSpec`."""
        return self.shape.type_vocab_size

    def network(self) -> JinaBert:
        """As in `ModelSpec`."""
        return JinaBert(self.shape)

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`."""
        count = self.shape.num_hidden_layers
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
            parts = {"attention.output.dense": "attention_out", "attention.output.LayerNorm": "attention_norm"}
            parts |= {"mlp.wo": "feed_forward_out", "mlp.layernorm": "feed_forward_norm"}
            names |= {f"{theirs}.{name}": f"{ours}.{module}" for name, module in parts.items()}
            gate, up = tensors[f"{theirs}.mlp.gated_layers.weight"].chunk(2)
            state |= {f"{ours}.feed_forward_gate.weight": gate, f"{ours}.feed_forward_in.weight": up}
            fused = {"qkv": ("query", "key", "value")} if i < count - 1 else {"q": ("query",), "kv": ("key", "value")}
            for kind in ("weight", "bias"):
                for module, rows in fused.items():
                    own = [tensors[f"{theirs}.attention.self.{name}.{kind}"] for name in rows]
                    state[f"{ours}.{module}.{kind}"] = torch.cat(own)
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
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                found.add(f"{layer}.attention.{part}", width, width)
            found.add(f"{layer}.attention.output.LayerNorm", width)
            found.add(f"{layer}.mlp.gated_layers", 2 * wide, width, bias=False)
            found.add(f"{layer}.mlp.wo", width, wide)
            found.add(f"{layer}.mlp.layernorm", width)
        found.add(f"{BODY}pooler.dense", width, width)
        found.add("classifier", 1, width)
        return found

    def plain_checkpoint(
        self,
        tensors: Mapping[str, torch.Tensor],  # noqa: ARG002 - whatever they are
        config: Config,  # noqa: ARG002 - and this
    ) -> tuple[Tensors, Config]:
        """As in `ModelSpec`; raises ModelRefusedError always: there is no such class."""
        raise ModelRefusedError(
            "transformers has no class for jina-reranker-v1 (ALiBi positions, gated feed-forward), and would load it "
            "as a BERT with random layers, so it cannot be converted; Crossray loads it as it is published"
        )


def is_jina_v1(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says something that only JinaBERT's does: its `model_type` is that of a plain BERT."""
    return config.get("position_embedding_type") == "alibi" or bool(config.get("feed_forward_type"))


def jina_v1_spec(config: Config) -> JinaBertSpec:
    """What config.json says of a cross-encoder with one label.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size or setting that is missing.
    """
    check_reads_both_ways(config)
    check_not_set(config, NOT_COMPUTED, LAYOUT)
    for key, value in REQUIRED.items():
        if config[key] != value:
            raise ModelRefusedError(f"{key} is {shown(config[key])}; for {LAYOUT} models supported is {shown(value)}")
    for key, known in ALLOWED.items():
        if key in config and config[key] not in known:
            raise ModelRefusedError(f"{key} is {shown(config[key])}; for {LAYOUT} models supported is {known[0]!r}")
    if config.get("num_labels") is not None or config.get("id2label"):
        one_label(config)  # the published ones do not say; the classifier is held against one label whatever they do
    heads, width = size(config, "num_attention_heads"), size(config, "hidden_size")
    if width % heads:
        raise ModelRefusedError(f"num_attention_heads is {heads}, which does not divide hidden_size ({width})")
    shape = JinaBertShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=heads,
        intermediate_size=size(config, "intermediate_size"),
        type_vocab_size=size(config, "type_vocab_size"),
        layer_norm_eps=epsilon(config),
    )
    longest = size(config, "max_position_embeddings")
    return JinaBertSpec(shape=shape, max_length=longest, padding_id=None, pair_styles=(ROBERTA_PAIRS,))


JINA_V1 = Family(LAYOUT, is_jina_v1, jina_v1_spec, is_trained=False)
