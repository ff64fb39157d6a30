"""DeBERTa-v2 (He et al. 2021), as in mxbai-rerank-v1: attention by what tokens say and by how far they stand apart.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads, H head width, B pairs of one length,
Q and K the tokens of a pair that ask and that are asked, R rows for the distances of two tokens.

The logit of two tokens is the sum of three products: of query and key; of the query with a key of their distance; and
of the key with a query of their distance. A layer makes these keys and queries of distances from embeddings that all
layers share, and no pair changes them, so they are computed once, at load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..encoder import HIDDEN_ACTIVATIONS, Block, EncoderShape, PackedNetwork, embedding
from ..errors import ModelRefusedError
from ..linear import Linear
from ..model_files import TensorHeader, shown
from ..packing import PackedBatch
from .checkpoint import IGNORED_SUFFIXES, Shapes, Tensors, renamed
from .encoder_config import check_not_set, check_reads_both_ways, choice, epsilon, one_label, size
from .family import Config, Family, OwnSpec, PairStyle

LAYOUT = "deberta-v2"
PAIRS = PairStyle("[CLS]", "[SEP]", separators_between=1, has_segments=False)
BUCKETS = 256
"""Of the distances on each side: those up to half of it have one each, longer ones share them by their logarithm."""
AS_PUBLISHED: dict[str, tuple[Any, Any]] = {
    "relative_attention": (True, False),
    "position_buckets": (BUCKETS, -1),
    "max_relative_positions": (-1, -1),
    "share_att_key": (True, False),
    "norm_rel_ebd": ("layer_norm", "none"),
    "position_biased_input": (False, True),
    "type_vocab_size": (0, 0),
    "conv_kernel_size": (0, 0),
}
"""Settings that change what is computed: the only value that is known here, and transformers' where none is given."""
TERMS = {"c2p", "p2c"}
"""Of `pos_att_type`: the query with the distance's key ("content to position"), the key with the distance's query."""
NOT_COMPUTED = ("quantization_config",)
"""Keys that change what a model computes in a way that is not implemented here."""
SCORES_PER_CALL = 1 << 22
"""Of all heads, for the pairs that one call takes: it bounds memory, in which each of them stands about six times."""


class Run(NamedTuple):
    """Neighbours in a batch that have the same length, and go through the attention together."""

    pairs: int
    length: int


class Plan(NamedTuple):
    """What all layers need to know of a batch."""

    first_tokens: torch.Tensor
    """Where each pair begins: int32 [P]."""
    runs: Sequence[Run]
    rising: torch.Tensor
    """Rows of the distances' tables for query minus key from 1 - L to L - 1, L tokens being the longest pair."""
    falling: torch.Tensor
    """The same from L - 1 to 1 - L."""

    @property
    def zero(self) -> int:
        """Where the distance 0 stands in both."""
        return len(self.rising) // 2


class DebertaBlock(Block):
    """What the layers have in common: besides a `Block`, the keys and queries of distances, divided by the scale."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        heads = shape.num_attention_heads
        self.scale = logit_scale(shape)
        self.position_keys = nn.Parameter(torch.empty(2 * BUCKETS, heads, shape.hidden_size // heads))
        self.position_queries = nn.Parameter(torch.empty(2 * BUCKETS, heads, shape.hidden_size // heads))


class Layer(DebertaBlock):
    """One transformer layer over every token, with fused QKV, whose rows are [q; k; v], heads contiguous."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)

    def forward(self, x_TD: torch.Tensor, plan: Plan) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        keys_RNH, queries_RNH = self.position_keys[plan.falling], self.position_queries[plan.rising]

        def bias(q_BQNH: torch.Tensor, k_BKNH: torch.Tensor) -> torch.Tensor:
            farthest = k_BKNH.shape[1] - 1
            within = slice(plan.zero - farthest, plan.zero + farthest + 1)
            return distance_bias(q_BQNH, k_BKNH, keys_RNH[within], queries_RNH[within])

        q_TNH, k_TNH, v_TNH = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        return self.after_attention(x_TD, biased_attention(q_TNH, k_TNH, v_TNH, plan.runs, bias, self.scale))


class FirstTokenLayer(DebertaBlock):
    """The last layer: only the first token of each pair asks, and every other one stands behind it."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.q = Linear(shape.hidden_size, shape.hidden_size)
        self.kv = Linear(shape.hidden_size, 2 * shape.hidden_size)

    def forward(self, x_TD: torch.Tensor, plan: Plan) -> torch.Tensor:
        """[T, D] -> [P, D]."""
        backwards = plan.falling[plan.zero :]
        keys_RNH, queries_RNH = self.position_keys[backwards], self.position_queries[backwards]

        def bias(q_BQNH: torch.Tensor, k_BKNH: torch.Tensor) -> torch.Tensor:
            length = k_BKNH.shape[1]
            by_query_BKN = (q_BQNH * keys_RNH[:length]).sum(-1)
            by_key_BKN = (k_BKNH * queries_RNH[:length]).sum(-1)
            return (by_query_BKN + by_key_BKN).transpose(1, 2)[:, :, None]

        x_PD = x_TD[plan.first_tokens]
        q_PNH = self.q(x_PD).unflatten(-1, (self.num_heads, -1))
        k_TNH, v_TNH = self.kv(x_TD).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        return self.after_attention(x_PD, biased_attention(q_PNH, k_TNH, v_TNH, plan.runs, bias, self.scale))


class Deberta(PackedNetwork):
    """Embeddings of words alone, layers and the classification head (dense, gelu, one logit)."""

    def __init__(self, shape: EncoderShape, pooler_hidden_act: str) -> None:
        super().__init__()
        width = shape.hidden_size
        self.shape = shape
        self.pooler_approximation = HIDDEN_ACTIVATIONS[pooler_hidden_act]
        self.word_embeddings = embedding(shape.vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, shape.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers - 1))
        self.layers.append(FirstTokenLayer(shape))
        self.head_dense = Linear(width, width)
        self.head_out = Linear(width, 1)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        runs = runs_of(batch.cu_seqlens.diff().tolist(), self.shape.num_attention_heads)
        rising = distance_rows(batch.max_seqlen, self.shape.max_position_embeddings).to(batch.input_ids.device)
        plan = Plan(batch.cu_seqlens[:-1], runs, rising, rising.flip(0))
        x = self.embedding_norm(self.word_embeddings(batch.input_ids))
        for layer in self.layers:
            x = layer(x, plan)
        return self.head_out(self.head_dense.gelu(x, self.pooler_approximation)).squeeze(-1).float()  # type: ignore[no-any-return]


def runs_of(lengths: Sequence[int], heads: int) -> list[Run]:
    """The runs of a batch with pairs of these lengths, none of them too large for one call."""
    runs = []
    for length, same in groupby(lengths):
        pairs = sum(1 for _ in same)
        most = max(1, SCORES_PER_CALL // (heads * length**2))
        runs += [Run(min(most, pairs - done), length) for done in range(0, pairs, most)]
    return runs


def distance_rows(longest: int, reach: int) -> torch.Tensor:
    """The tables' rows for query minus key from 1 - `longest` to `longest` - 1, in a model for `reach` tokens: int64.

    Up to half of the buckets each distance has its own. From there on they share buckets by their logarithm, and the
    last one holds what is `reach` - 1 away.
    """
    middle = BUCKETS // 2
    distances = torch.arange(1 - longest, longest)
    steps = (distances.abs().clamp(min=middle).double() / middle).log() / math.log(max(reach - 1, middle + 1) / middle)
    shared = distances.sign() * (middle + torch.ceil(steps * (middle - 1)))
    bucket = torch.where(distances.abs() <= middle, distances, shared.long())
    return (bucket + BUCKETS).clamp(0, 2 * BUCKETS - 1)


def biased_attention(
    q_TNH: torch.Tensor,
    k_TNH: torch.Tensor,
    v_TNH: torch.Tensor,
    runs: Sequence[Run],
    bias: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scale: float,
) -> torch.Tensor:
    """Attention of packed pairs, run by run; `bias` of queries [B, Q, N, H] and keys [B, K, N, H] gives [B, N, Q, K].

    Either all tokens of a pair ask, or its first alone.
    """
    ask_all = len(q_TNH) == len(k_TNH)
    q_at = k_at = 0
    outputs = []
    for run in runs:
        q_length = run.length if ask_all else 1
        q_end, k_end = q_at + run.pairs * q_length, k_at + run.pairs * run.length
        q_BQNH = q_TNH[q_at:q_end].unflatten(0, (run.pairs, q_length))
        k_BKNH = k_TNH[k_at:k_end].unflatten(0, (run.pairs, run.length))
        v_BKNH = v_TNH[k_at:k_end].unflatten(0, (run.pairs, run.length))
        q_BNQH, k_BNKH, v_BNKH = (part.transpose(1, 2) for part in (q_BQNH, k_BKNH, v_BKNH))
        bias_BNQK = bias(q_BQNH, k_BKNH)
        o_BNQH = F.scaled_dot_product_attention(q_BNQH, k_BNKH, v_BNKH, attn_mask=bias_BNQK, scale=scale)
        outputs.append(o_BNQH.transpose(1, 2).flatten(0, 1))
        q_at, k_at = q_end, k_end
    return torch.cat(outputs)


def distance_bias(
    q_BQNH: torch.Tensor, k_BKNH: torch.Tensor, keys_RNH: torch.Tensor, queries_RNH: torch.Tensor
) -> torch.Tensor:
    """Both products with the distances of all tokens of pairs of length L = (R + 1) / 2: [B, N, L, L].

    Each token is multiplied with the rows of all distances from 1 - L to L - 1, of which its pair has L. They lie one
    behind the other, and those of the next token begin one step earlier or later: a view with other strides picks them,
    without an index for each. keys_RNH falls from the distance L - 1, and queries_RNH rises to it.
    """
    count, length = q_BQNH.shape[:2]
    rows = 2 * length - 1
    by_query = torch.bmm(q_BQNH.flatten(0, 1).transpose(0, 1), keys_RNH.permute(1, 2, 0))  # [N, B * L, R]
    by_key = torch.bmm(k_BKNH.flatten(0, 1).transpose(0, 1), queries_RNH.permute(1, 2, 0))
    sizes = (by_query.shape[0], count, length, length)
    outer = (count * length * rows, length * rows)
    # Row i of a query has the key j at column j - i + L - 1, row j of a key the query i at column i - j + L - 1.
    bias_NBQK = by_query.as_strided(sizes, (*outer, rows - 1, 1), length - 1)
    return (bias_NBQK + by_key.as_strided(sizes, (*outer, 1, rows - 1), length - 1)).transpose(0, 1)


def logit_scale(shape: EncoderShape) -> float:
    """What the sum of three products is multiplied by."""
    return float((shape.hidden_size // shape.num_attention_heads * (1 + len(TERMS))) ** -0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class DebertaSpec(OwnSpec):
    """A DeBERTa-v2 reranker."""

    shape: EncoderShape
    pooler_hidden_act: str

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUT

    @property
    def sizes(self) -> EncoderShape:
        """As in `OwnSpec`."""
        return self.shape

    def network(self) -> Deberta:
        """As in `ModelSpec`."""
        return Deberta(self.shape, self.pooler_hidden_act)

    def check_tensors(self, headers: Mapping[str, TensorHeader]) -> None:
        """As in `ModelSpec`."""
        OwnSpec.check_tensors(self, {name: headers[name] for name in headers if not name.endswith(IGNORED_SUFFIXES)})

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`; the distances' keys and queries are computed here, in float32."""
        self.check_names([name for name in tensors if not name.endswith(IGNORED_SUFFIXES)])
        names = {
            "deberta.embeddings.word_embeddings": "word_embeddings",
            "deberta.embeddings.LayerNorm": "embedding_norm",
            "pooler.dense": "head_dense",
            "classifier": "head_out",
        }
        distances_RD = self.distance_embeddings(tensors)
        heads, scale, last = self.shape.num_attention_heads, logit_scale(self.shape), self.shape.num_hidden_layers - 1
        state: Tensors = {}
        for i in range(last + 1):
            theirs, ours = f"deberta.encoder.layer.{i}", f"layers.{i}"
            parts = {"attention.output.dense": "attention_out", "attention.output.LayerNorm": "attention_norm"}
            parts |= {"intermediate.dense": "feed_forward_in", "output.dense": "feed_forward_out"}
            parts |= {"output.LayerNorm": "feed_forward_norm"}
            names |= {f"{theirs}.{name}": f"{ours}.{module}" for name, module in parts.items()}
            q, k, v = (f"{theirs}.attention.self.{part}_proj" for part in ("query", "key", "value"))
            for module, projections in {"qkv": (q, k, v)}.items() if i < last else {"q": (q,), "kv": (k, v)}.items():
                for kind in ("weight", "bias"):
                    state[f"{ours}.{module}.{kind}"] = torch.cat([tensors[f"{name}.{kind}"] for name in projections])
            for part, projection in {"position_keys": k, "position_queries": q}.items():
                weight, bias = tensors[f"{projection}.weight"].float(), tensors[f"{projection}.bias"].float()
                state[f"{ours}.{part}"] = scale * F.linear(distances_RD, weight, bias).unflatten(-1, (heads, -1))
        return state | renamed(tensors, names)

    def distance_embeddings(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The embeddings of distances as every layer reads them, after their norm: float32 [2 * BUCKETS, D]."""
        weight, bias = (tensors[f"deberta.encoder.LayerNorm.{kind}"].float() for kind in ("weight", "bias"))
        rows = tensors["deberta.encoder.rel_embeddings.weight"].float()
        return F.layer_norm(rows, (self.shape.hidden_size,), weight, bias, self.shape.layer_norm_eps)

    def shapes(self) -> Shapes:
        """As in `OwnSpec`."""
        width, wide = self.shape.hidden_size, self.shape.intermediate_size
        found = Shapes()
        found.add("deberta.embeddings.word_embeddings", self.shape.vocab_size, width, bias=False)
        found.add("deberta.encoder.rel_embeddings", 2 * BUCKETS, width, bias=False)
        found.add("deberta.embeddings.LayerNorm", width)
        found.add("deberta.encoder.LayerNorm", width)
        for i in range(self.shape.num_hidden_layers):
            layer = f"deberta.encoder.layer.{i}"
            for part in ("query", "key", "value"):
                found.add(f"{layer}.attention.self.{part}_proj", width, width)
            found.add(f"{layer}.attention.output.dense", width, width)
            found.add(f"{layer}.attention.output.LayerNorm", width)
            found.add(f"{layer}.intermediate.dense", wide, width)
            found.add(f"{layer}.output.dense", width, wide)
            found.add(f"{layer}.output.LayerNorm", width)
        found.add("pooler.dense", width, width)
        found.add("classifier", 1, width)
        return found


def is_deberta(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so; the first DeBERTa, which fuses its projections, has another model_type."""
    return config.get("model_type") == LAYOUT


def deberta_spec(config: Config) -> DebertaSpec:
    """What config.json says of a cross-encoder with one label.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    check_reads_both_ways(config)
    check_not_set(config, NOT_COMPUTED, LAYOUT)
    for key, (known, default) in AS_PUBLISHED.items():
        if (value := config.get(key, default)) != known:
            raise ModelRefusedError(f"{key} is {shown(value)}; supported is {shown(known)}")
    check_terms(config.get("pos_att_type"))
    one_label(config)
    heads, width = size(config, "num_attention_heads"), size(config, "hidden_size")
    if width % heads:
        raise ModelRefusedError(f"num_attention_heads is {heads}, which does not divide hidden_size ({width})")
    for key, known in {
        "embedding_size": width,
        "pooler_hidden_size": width,
        "attention_head_size": width // heads,
    }.items():
        if (value := config.get(key, known)) != known:
            raise ModelRefusedError(
                f"{key} is {shown(value)}; supported is {known}, as hidden_size ({width}) and num_attention_heads "
                f"({heads}) have it"
            )
    shape = EncoderShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=heads,
        intermediate_size=size(config, "intermediate_size"),
        max_position_embeddings=size(config, "max_position_embeddings"),
        type_vocab_size=0,
        layer_norm_eps=epsilon({"layer_norm_eps": 1e-7} | config),
        hidden_act=choice(config, "hidden_act", "gelu", HIDDEN_ACTIVATIONS),
    )
    return DebertaSpec(
        shape=shape,
        pooler_hidden_act=choice(config, "pooler_hidden_act", "gelu", HIDDEN_ACTIVATIONS),
        max_length=shape.max_position_embeddings,
        padding_id=None,
        pair_styles=(PAIRS,),
    )


def check_terms(given: Any) -> None:
    """Raises ModelRefusedError for a `pos_att_type`, a list or words between bars, that is not both of TERMS."""
    terms = given.split("|") if isinstance(given, str) else given
    if not isinstance(terms, list) or {str(term).strip().lower() for term in terms} != TERMS:
        raise ModelRefusedError(f"pos_att_type is {shown(given)}; supported is 'p2c|c2p'")


DEBERTA = Family(LAYOUT, is_deberta, deberta_spec, is_trained=False)
