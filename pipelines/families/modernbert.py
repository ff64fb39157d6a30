"""ModernBERT: gte-reranker-modernbert-base, granite-embedding-reranker-english-r2, and the ettin rerankers.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads, H head width, F feed-forward width.
Pre-LayerNorm blocks, rotary positions (Su et al. 2021), gated feed-forward layers, and in two of three layers attention
to the neighbours alone ("Smarter, Better, Faster, Longer", Warner et al. 2024).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from ..attention import EVERYWHERE, WindowedAttention, WindowSize, sdpa_attention
from ..encoder import HIDDEN_ACTIVATIONS, PackedNetwork, embedding, means_of_pairs
from ..errors import ModelRefusedError
from ..linear import Linear
from ..model_files import shown
from ..packing import PackedBatch
from ..rotary import Rotation, rotated, rotation_of
from ..tokens import PairTemplate, template_of
from .chain import POOLINGS, Chain
from .checkpoint import Shapes, Tensors, renamed
from .encoder_config import check_not_set, check_reads_both_ways, choice, flag, number, one_label, size
from .family import Config, Family, ModelSpec, OwnSpec
from .head import ACTIVATIONS, Dense, Head, Norm, Step, shapes_of_head, state_of_head

LAYOUT = "modernbert"
BODY = "model."
"""What the names of all tensors but those of the head begin with."""
GLOBAL, LOCAL = "full_attention", "sliding_attention"
"""Types of layers, in the words of `layer_types`."""
THETAS = {GLOBAL: 160_000.0, LOCAL: 10_000.0}
"""transformers' defaults."""
UNSCALED = ({"rope_theta": 0}, {"rope_theta": 0, "rope_type": "default"})
"""What `rope_parameters` says of a type of layer, besides the base itself."""
PLAIN_ACTIVATIONS = {
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.linear.Identity": "linear",
}
"""What transformers calls the activations of sentence-transformers' modules."""
NOT_COMPUTED = ("causal_mask", "rope_scaling", "quantization_config", "head_dim")
"""Keys that change what a model computes, and with it a score, in a way that is not implemented here."""


@dataclass(frozen=True, slots=True)
class ModernBertShape:
    """The sizes of a ModernBERT, under the names that its config.json gives them."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    hidden_activation: str
    local_attention: int
    """Tokens that a token of a local layer sees: half of them on its left and half on its right, and itself."""
    global_attn_every_n_layers: int
    layer_types: tuple[str, ...] | None
    """Where the config lists them; otherwise every n-th layer is global, and the first is."""
    global_theta: float
    local_theta: float

    def is_global(self, layer: int) -> bool:
        """Whether all tokens of a pair see each other in this layer."""
        if self.layer_types is not None:
            return self.layer_types[layer] == GLOBAL
        return layer % self.global_attn_every_n_layers == 0

    def window_size(self, layer: int) -> WindowSize:
        """What a token of this layer sees."""
        half = self.local_attention // 2
        return EVERYWHERE if self.is_global(layer) else (half, half)

    def theta(self, layer: int) -> float:
        """The base of the rotary positions' wavelengths in this layer."""
        return self.global_theta if self.is_global(layer) else self.local_theta


class Block(nn.Module):
    """What follows the attention in every layer: its output projection, and the gated feed-forward layer."""

    def __init__(self, shape: ModernBertShape, layer: int) -> None:
        super().__init__()
        width, wide = shape.hidden_size, shape.intermediate_size
        self.num_heads = shape.num_attention_heads
        self.gelu_approximation = HIDDEN_ACTIVATIONS[shape.hidden_activation]
        # The first layer reads what the norm of the embeddings gives.
        self.attention_norm = nn.Identity() if layer == 0 else norm(shape)
        self.attention_out = Linear(width, width, bias=shape.attention_bias)
        self.feed_forward_norm = norm(shape)
        self.feed_forward_in = Linear(width, wide, bias=shape.mlp_bias)
        self.feed_forward_gate = Linear(width, wide, bias=shape.mlp_bias)
        self.feed_forward_out = Linear(wide, width, bias=shape.mlp_bias)

    def after_attention(self, x: torch.Tensor, o_NH: torch.Tensor) -> torch.Tensor:
        """x: [any, D], the layer's input; o_NH: what the attention gave for the same tokens."""
        x = self.attention_out.plus(o_NH.flatten(-2), x)
        normed = self.feed_forward_norm(x)
        wide_F = self.feed_forward_in.gelu(normed, self.gelu_approximation)
        return self.feed_forward_out.plus(self.feed_forward_gate.times(normed, wide_F), x)


class Layer(Block):
    """One transformer layer over every token, with fused QKV, whose rows are [q; k; v], heads contiguous."""

    def __init__(self, shape: ModernBertShape, layer: int) -> None:
        super().__init__(shape, layer)
        self.window_size = shape.window_size(layer)
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size, bias=shape.attention_bias)

    def forward(
        self, x_TD: torch.Tensor, batch: PackedBatch, rotation: Rotation, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        qkv_T3NH = self.qkv(self.attention_norm(x_TD)).unflatten(-1, (3, self.num_heads, -1))
        q_TNH, k_TNH = rotated(qkv_T3NH[:, :2], rotation).unbind(1)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        tensors = (q_TNH, k_TNH, qkv_T3NH[:, 2], bounds, bounds, longest, longest)
        return self.after_attention(x_TD, attention(*tensors, window_size=self.window_size))


class FirstTokenLayer(Block):
    """The last layer of a model whose score is the first token's, where that sees all others."""

    def __init__(self, shape: ModernBertShape, layer: int) -> None:
        super().__init__(shape, layer)
        self.q = Linear(shape.hidden_size, shape.hidden_size, bias=shape.attention_bias)
        self.kv = Linear(shape.hidden_size, 2 * shape.hidden_size, bias=shape.attention_bias)

    def forward(
        self, x_TD: torch.Tensor, batch: PackedBatch, rotation: Rotation, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [P, D]. Queries are not rotated: all stand at position 0."""
        normed_TD = self.attention_norm(x_TD)
        firsts = batch.cu_seqlens[:-1]
        q_PNH = self.q(normed_TD[firsts]).unflatten(-1, (self.num_heads, -1))
        kv_T2NH = self.kv(normed_TD).unflatten(-1, (2, self.num_heads, -1))
        k_TNH = rotated(kv_T2NH[:, :1], rotation)[:, 0]
        one_each = torch.arange(len(firsts) + 1, dtype=torch.int32, device=x_TD.device)
        o_PNH = attention(q_PNH, k_TNH, kv_T2NH[:, 1], one_each, batch.cu_seqlens, 1, batch.max_seqlen)
        return self.after_attention(x_TD[firsts], o_PNH)


class ModernBert(PackedNetwork):
    """Embeddings, layers, the pooling of a pair's tokens to one vector, and the head."""

    attention: WindowedAttention = staticmethod(sdpa_attention)

    def __init__(self, shape: ModernBertShape, pooling: str, head: tuple[Step, ...]) -> None:
        super().__init__()
        self.thetas = [shape.theta(i) for i in range(shape.num_hidden_layers)]
        self.head_width = shape.hidden_size // shape.num_attention_heads
        self.pooling = pooling
        self.word_embeddings = embedding(shape.vocab_size, shape.hidden_size)
        self.embedding_norm = norm(shape)
        last = shape.num_hidden_layers - 1
        self.layers = nn.ModuleList(Layer(shape, i) for i in range(last))
        self.ends_at_first_tokens = ends_at_first_tokens(shape, pooling)
        self.layers.append(FirstTokenLayer(shape, last) if self.ends_at_first_tokens else Layer(shape, last))
        self.final_norm = norm(shape)
        self.head = Head(head)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        x = self.embedding_norm(self.word_embeddings(batch.input_ids))
        rotations = {theta: rotation_of(batch.position_ids, theta, self.head_width) for theta in set(self.thetas)}
        for layer, theta in zip(self.layers, self.thetas, strict=True):
            x = layer(x, batch, rotations[theta], self.attention)
        return self.head(self._pooled(x, batch))  # type: ignore[no-any-return]

    def _pooled(self, x: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """One vector for each pair, normed: that of its first token, or the mean of all, special tokens included."""
        if self.pooling == "cls":
            return self.final_norm(x if self.ends_at_first_tokens else x[batch.cu_seqlens[:-1]])  # type: ignore[no-any-return]
        return means_of_pairs(self.final_norm(x), batch)


def norm(shape: ModernBertShape) -> nn.LayerNorm:
    """A norm as all in the model are."""
    return nn.LayerNorm(shape.hidden_size, shape.norm_eps, bias=shape.norm_bias)


def ends_at_first_tokens(shape: ModernBertShape, pooling: str) -> bool:
    """Whether the last layer has to give the first token of each pair alone, and this sees all others."""
    return pooling == "cls" and shape.is_global(shape.num_hidden_layers - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModernBertSpec(OwnSpec):
    """A ModernBERT, and how a logit is made of its tokens."""

    shape: ModernBertShape
    pooling: str
    """One of POOLINGS."""
    head: tuple[Step, ...]
    body: str = BODY

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUT

    @property
    def sizes(self) -> ModernBertShape:
        """As in `OwnSpec`."""
        return self.shape

    def plain_template(self, tokenizer: Tokenizer) -> PairTemplate:
        """As in `ModelSpec`: the tokenizer's own, for not all have [CLS] and [SEP].

        mmBERT has Gemma's tokens, and the Japanese ones have RoBERTa's.
        """
        return template_of(tokenizer)

    def network(self) -> ModernBert:
        """As in `ModelSpec`."""
        return ModernBert(self.shape, self.pooling, self.head)

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`."""
        count = self.shape.num_hidden_layers
        self.check_names(tensors)
        body = {name.removeprefix(self.body): tensor for name, tensor in tensors.items() if name.startswith(self.body)}
        state = renamed(body, {"embeddings.tok_embeddings": "word_embeddings", "embeddings.norm": "embedding_norm"})
        state |= renamed(body, {"final_norm": "final_norm"})
        for i in range(count):
            ours, theirs = f"layers.{i}", f"layers.{i}"
            names = {"attn_norm": "attention_norm", "attn.Wo": "attention_out"}
            names |= {"mlp_norm": "feed_forward_norm", "mlp.Wo": "feed_forward_out"}
            state |= renamed(body, {f"{theirs}.{name}": f"{ours}.{module}" for name, module in names.items()})
            is_last = i == count - 1 and ends_at_first_tokens(self.shape, self.pooling)
            split = {"attn.Wqkv": {"q": 1, "kv": 2} if is_last else {"qkv": 3}}
            split["mlp.Wi"] = {"feed_forward_in": 1, "feed_forward_gate": 1}
            for name, parts in split.items():
                for kind in ("weight", "bias"):
                    fused = body.get(f"{theirs}.{name}.{kind}")
                    if fused is not None:
                        unit = len(fused) // sum(parts.values())
                        rows = fused.split([unit * count for count in parts.values()])
                        state |= {f"{ours}.{part}.{kind}": tensor for part, tensor in zip(parts, rows, strict=True)}
        return state | {f"head.{name}": tensor for name, tensor in state_of_head(tensors, self.head).items()}

    def plain_checkpoint(self, tensors: Mapping[str, torch.Tensor], config: Config) -> tuple[Tensors, Config]:
        """As in `ModelSpec`, of transformers' ModernBertForSequenceClassification.

        What stands behind an ettin reranker is such a head but for the bias of its norm, which goes into that of the
        classifier. Raises ModelRefusedError for modules that are no such head.
        """
        if self.body == BODY:
            return ModelSpec.plain_checkpoint(self, tensors, config)
        kinds = [type(step) for step in self.head]
        if kinds != [Dense, Norm, Dense]:
            raise ModelRefusedError("transformers has no head for these modules; it has Dense, LayerNorm and Dense")
        dense, norm_, out = self.head
        assert isinstance(dense, Dense)
        assert isinstance(norm_, Norm)
        assert isinstance(out, Dense)
        activation = PLAIN_ACTIVATIONS.get(dense.activation)
        if activation is None or PLAIN_ACTIVATIONS.get(out.activation) != "linear" or norm_.eps != self.shape.norm_eps:
            raise ModelRefusedError(
                f"transformers has no head with {dense.activation}, a norm with epsilon {norm_.eps} and "
                f"{out.activation}"
            )
        body = {f"{BODY}{name}": tensor for name, tensor in tensors.items() if name not in shapes_of_head(self.head)}
        weight, shift = tensors[f"{out.name}.weight"].float(), tensors[f"{norm_.name}.bias"].float()
        bias = tensors[f"{out.name}.bias"].float() if out.bias else torch.zeros(1)
        head = {"head.norm.weight": tensors[f"{norm_.name}.weight"], "classifier.weight": weight}
        head |= renamed(tensors, {dense.name: "head.dense"})
        if self.shape.norm_bias:
            head |= {"head.norm.bias": shift, "classifier.bias": bias}
        else:
            head |= {"classifier.bias": bias + weight @ shift}
        return body | head, config | {
            "architectures": ["ModernBertForSequenceClassification"],
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "classifier_pooling": self.pooling,
            "classifier_bias": dense.bias,
            "classifier_activation": activation,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As in `OwnSpec`."""
        shape = self.shape
        width, wide = shape.hidden_size, shape.intermediate_size
        found = Shapes()
        found.add(f"{self.body}embeddings.tok_embeddings", shape.vocab_size, width, bias=False)
        for name in ("embeddings.norm", "final_norm"):
            found.add(f"{self.body}{name}", width, bias=shape.norm_bias)
        for i in range(shape.num_hidden_layers):
            layer = f"{self.body}layers.{i}"
            if i > 0:
                found.add(f"{layer}.attn_norm", width, bias=shape.norm_bias)
            found.add(f"{layer}.attn.Wqkv", 3 * width, width, bias=shape.attention_bias)
            found.add(f"{layer}.attn.Wo", width, width, bias=shape.attention_bias)
            found.add(f"{layer}.mlp_norm", width, bias=shape.norm_bias)
            found.add(f"{layer}.mlp.Wi", 2 * wide, width, bias=shape.mlp_bias)
            found.add(f"{layer}.mlp.Wo", width, wide, bias=shape.mlp_bias)
        return found | shapes_of_head(self.head)


def is_modernbert(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == LAYOUT


def modernbert_spec(config: Config) -> ModernBertSpec:
    """What config.json says of a cross-encoder as transformers' ModernBertForSequenceClassification writes it.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    one_label(config)
    shape = modernbert_shape(config)
    width = shape.hidden_size
    dense_activation = choice(config, "classifier_activation", "gelu", ACTIVATIONS)
    dense = Dense("head.dense", width, width, flag(config, "classifier_bias", False), dense_activation)
    head_norm = Norm("head.norm", width, shape.norm_eps, shape.norm_bias)
    return ModernBertSpec(
        shape=shape,
        pooling=choice(config, "classifier_pooling", "cls", POOLINGS),
        head=(dense, head_norm, Dense("classifier", width, 1, True, "identity")),
        max_length=size(config, "max_position_embeddings"),
        padding_id=None,
        pair_styles=(),
    )


def modernbert_behind_chain(config: Config, chain: Chain) -> ModernBertSpec:
    """What config.json says of a ModernBERT without a head, as ettin's, and the modules behind it.

    Raises as `modernbert_spec`.
    """
    shape = modernbert_shape(config)
    if chain.width != shape.hidden_size:
        raise ModelRefusedError(f"the Pooling gives {chain.width} numbers, and hidden_size is {shape.hidden_size}")
    return ModernBertSpec(
        shape=shape,
        pooling=chain.pooling,
        head=chain.steps,
        body="",
        max_length=size(config, "max_position_embeddings"),
        padding_id=None,
        pair_styles=(),
    )


def modernbert_shape(config: Config) -> ModernBertShape:
    """The sizes of the encoder; defaults are those of transformers' ModernBertConfig.

    Raises ModelRefusedError for a key that is not implemented, KeyError for a size that is missing.
    """
    check_reads_both_ways(config)
    check_not_set(config, NOT_COMPUTED, LAYOUT)
    thetas = rope_thetas(config)
    local_attention = size({"local_attention": 128} | config, "local_attention")
    if config.get("sliding_window") not in (None, local_attention // 2):
        raise ModelRefusedError(
            f"sliding_window is {shown(config['sliding_window'])}, and local_attention {local_attention}: version 4 of "
            "transformers reads the latter, and version 5 takes twice the former in its place; give it half of "
            "local_attention, or take it out of config.json"
        )
    shape = ModernBertShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=size(config, "hidden_size"),
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=size(config, "num_attention_heads"),
        intermediate_size=size(config, "intermediate_size"),
        norm_eps=number(config, "norm_eps", 1e-5),
        norm_bias=flag(config, "norm_bias", False),
        attention_bias=flag(config, "attention_bias", False),
        mlp_bias=flag(config, "mlp_bias", False),
        hidden_activation=choice(config, "hidden_activation", "gelu", HIDDEN_ACTIVATIONS),
        local_attention=local_attention,
        global_attn_every_n_layers=size({"global_attn_every_n_layers": 3} | config, "global_attn_every_n_layers"),
        layer_types=layer_types(config),
        global_theta=thetas[GLOBAL],
        local_theta=thetas[LOCAL],
    )
    if shape.hidden_size % (2 * shape.num_attention_heads):
        raise ModelRefusedError(
            f"num_attention_heads is {shape.num_attention_heads}, and hidden_size ({shape.hidden_size}) is no even "
            "number for each of them; rotary positions turn the numbers of a head in pairs"
        )
    return shape


def layer_types(config: Config) -> tuple[str, ...] | None:
    """`layer_types`, where there is one; raises ModelRefusedError unless it has a type that we know for each layer."""
    types = config.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != config["num_hidden_layers"] or not {*map(str, types)} <= {*THETAS}:
        raise ModelRefusedError(
            f"layer_types is {shown(types)}; it has {' or '.join(THETAS)} for each of num_hidden_layers"
        )
    return tuple(types)


def rope_thetas(config: Config) -> dict[str, float]:
    """The base of the rotary positions of each type of layer, from `rope_parameters` or from the keys of older configs.

    Raises ModelRefusedError for positions that are scaled.
    """
    older = {GLOBAL: number(config, "global_rope_theta", THETAS[GLOBAL], most=None)}
    if "local_rope_theta" in config and config["local_rope_theta"] is None:  # transformers 4: as in the global layers
        older[LOCAL] = older[GLOBAL]
    else:
        older[LOCAL] = number(config, "local_rope_theta", THETAS[LOCAL], most=None)
    parameters: Any = config.get("rope_parameters") or {}
    if not isinstance(parameters, dict) or not {*parameters} <= {*THETAS}:
        raise ModelRefusedError(f"rope_parameters is {shown(parameters)}; it has {' and '.join(THETAS)}")
    found = {}
    for kind, theta in older.items():
        given: Any = parameters.get(kind) or {}
        if not isinstance(given, dict) or {**given, "rope_theta": 0} not in UNSCALED:
            raise ModelRefusedError(f"rope_parameters of {kind} is {shown(given)}; only unscaled positions are known")
        found[kind] = number({"rope_theta": theta} | given, "rope_theta", most=None)
    return found


MODERNBERT = Family(LAYOUT, is_modernbert, modernbert_spec, modernbert_behind_chain, is_trained=False)
