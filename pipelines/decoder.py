"""The forward pass of language models as rerankers: a batch in, one logit per pair out.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads of queries and G of keys and values, H head
width. Pre-norm blocks with RMSNorm (Zhang and Sennrich 2019), rotary positions, grouped heads (Ainslie et al. 2023) and
gated feed-forwards (SwiGLU, GeGLU: Shazeer 2020). In a causal one (`Decoder`) a token sees only what stands before it:
what pairs begin with alike runs once for all of them, and in the last layer nothing but the last token of each pair
asks. In a bidirectional one, which was made of a causal one by training, every token sees its whole pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .attention import CAUSAL, WindowedAttention, sdpa_attention
from .encoder import PackedNetwork, embedding, means_of_pairs
from .linear import Linear
from .packing import PackedBatch
from .rotary import Llama3Positions, Rotation, rotated, rotation_of
from .shared_prefixes import SharedBatch

GATES = {"silu": None, "gelu_pytorch_tanh": "tanh"}
"""`hidden_act` of a config -> `approximate` of torch's gelu, None for a SiLU."""
POOLINGS = ("avg", "cls", "last")
"""How a bidirectional decoder makes one vector of a pair: the mean of its tokens, its first one, or its last one."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The sizes of one decoder, under the names that Hugging Face configs give them."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope_theta: float
    qkv_bias: bool
    """Whether queries, keys and values have a bias, as in Qwen2."""
    qk_norm: bool
    """Whether each head's queries and keys are normed before they are turned, as in Qwen3."""
    hidden_act: str = "silu"
    """One of GATES."""
    embedding_scale: float = 1.0
    """What the embeddings are multiplied by."""
    llama3_positions: Llama3Positions | None = None

    @property
    def kv_width(self) -> int:
        """Numbers of all heads of the keys, and of the values."""
        return self.num_key_value_heads * self.head_dim


class Layer(nn.Module):
    """The tensors of one transformer layer, and what a pass computes with them around its attention."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        width, wide, eps = shape.hidden_size, shape.intermediate_size, shape.rms_norm_eps
        self.head_dim = shape.head_dim
        self.gelu_approximation = GATES[shape.hidden_act]
        self.attention_norm = nn.RMSNorm(width, eps)
        queries = shape.num_attention_heads * shape.head_dim
        self.q = Linear(width, queries, bias=shape.qkv_bias)
        self.kv = Linear(width, 2 * shape.kv_width, bias=shape.qkv_bias)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps) if shape.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(shape.head_dim, eps) if shape.qk_norm else nn.Identity()
        self.attention_out = Linear(queries, width, bias=False)
        self.feed_forward_norm = nn.RMSNorm(width, eps)
        self.feed_forward_gate = Linear(width, wide, bias=False)
        self.feed_forward_in = Linear(width, wide, bias=False)
        self.feed_forward_out = Linear(wide, width, bias=False)

    def queries(self, normed_TD: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """[T, D] -> [T, N, H]."""
        return turned(self.q_norm(self.q(normed_TD).unflatten(-1, (-1, self.head_dim))), rotation)

    def keys_and_values(self, normed_TD: torch.Tensor, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, D] -> [T, G, H] each."""
        k_TGH, v_TGH = self.kv(normed_TD).unflatten(-1, (2, -1, self.head_dim)).unbind(1)
        return turned(self.k_norm(k_TGH), rotation), v_TGH

    def after_attention(self, x: torch.Tensor, o_NH: torch.Tensor) -> torch.Tensor:
        """x: [any, D], the layer's input; o_NH: what the attention gave for the same tokens."""
        x = self.attention_out.plus(o_NH.flatten(-2), x)
        normed = self.feed_forward_norm(x)
        if self.gelu_approximation is None:
            gate_F = F.silu(self.feed_forward_gate(normed))
        else:
            gate_F = self.feed_forward_gate.gelu(normed, self.gelu_approximation)
        return self.feed_forward_out.plus(self.feed_forward_in.times(normed, gate_F), x)


class CausalLayer(Layer):
    """A layer in which a token sees what stands before it; the last one gives the last token of each pair alone."""

    def __init__(self, shape: DecoderShape, is_last: bool) -> None:
        super().__init__(shape)
        self.is_last = is_last

    def forward(
        self, x_TD: torch.Tensor, batch: SharedBatch, rotation: Rotation, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [T, D]; [P, D] of the last layer."""
        normed_TD = self.attention_norm(x_TD)
        keys, values = self.keys_and_values(normed_TD, rotation)
        if self.is_last:
            x_TD, normed_TD = x_TD[batch.last], normed_TD[batch.last]
            rotation = rotation[0][batch.last], rotation[1][batch.last]
        see = attention_of_last_tokens if self.is_last else attention_of_all_tokens
        return self.after_attention(x_TD, see(self.queries(normed_TD, rotation), keys, values, batch, attention))


class BidirectionalLayer(Layer):
    """A layer in which every token sees its whole pair."""

    def forward(
        self, x_TD: torch.Tensor, batch: PackedBatch, rotation: Rotation, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        normed_TD = self.attention_norm(x_TD)
        keys, values = self.keys_and_values(normed_TD, rotation)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        queries = self.queries(normed_TD, rotation)
        return self.after_attention(x_TD, attention(queries, keys, values, bounds, bounds, longest, longest))


def turned(x_TNH: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Queries or keys with their positions."""
    return rotated(x_TNH[:, None], rotation)[:, 0]


def attention_of_all_tokens(
    q_TNH: torch.Tensor, k_TGH: torch.Tensor, v_TGH: torch.Tensor, batch: SharedBatch, attention: WindowedAttention
) -> torch.Tensor:
    """What the tokens of the prefixes see, which is their prefix, and then those of each pair, with its prefix."""
    shared = batch.prefix_tokens
    o_TNH = attention(
        q_TNH[shared:],
        k_TGH[batch.keys],
        v_TGH[batch.keys],
        batch.cu_own,
        batch.cu_keys,
        batch.max_own,
        batch.max_keys,
        window_size=CAUSAL,
    )
    if not shared:
        return o_TNH
    bounds, longest = batch.cu_prefixes, batch.max_prefix
    tensors = q_TNH[:shared], k_TGH[:shared], v_TGH[:shared]
    return torch.cat([attention(*tensors, bounds, bounds, longest, longest, window_size=CAUSAL), o_TNH])


def attention_of_last_tokens(
    q_PNH: torch.Tensor, k_TGH: torch.Tensor, v_TGH: torch.Tensor, batch: SharedBatch, attention: WindowedAttention
) -> torch.Tensor:
    """What the last token of each pair sees, which is the whole pair."""
    one_each = torch.arange(len(q_PNH) + 1, dtype=torch.int32, device=q_PNH.device)
    keys, values = k_TGH[batch.keys], v_TGH[batch.keys]
    return attention(q_PNH, keys, values, one_each, batch.cu_keys, 1, batch.max_keys, window_size=CAUSAL)


class LanguageModel(PackedNetwork):
    """Embeddings, layers, and the one row of numbers that makes the logit of a pair's vector."""

    attention: WindowedAttention = staticmethod(sdpa_attention)

    def __init__(self, shape: DecoderShape, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.shape = shape
        self.word_embeddings = embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(layers)
        self.final_norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.score = Linear(shape.hidden_size, 1, bias=False)

    def after_layers(self, batch: SharedBatch | PackedBatch) -> torch.Tensor:
        """[T, D], or [P, D] where the last layer gives one token of each pair."""
        shape = self.shape
        x: torch.Tensor = self.word_embeddings(batch.input_ids) * shape.embedding_scale
        positions, scaling = batch.position_ids, shape.llama3_positions
        rotation = rotation_of(positions, shape.rope_theta, shape.head_dim, llama3_positions=scaling)
        for layer in self.layers:
            x = layer(x, batch, rotation, self.attention)
        return x


class Decoder(LanguageModel):
    """A causal language model, whose logit is that of each pair's last token."""

    def __init__(self, shape: DecoderShape) -> None:
        last = shape.num_hidden_layers - 1
        super().__init__(shape, [CausalLayer(shape, is_last=i == last) for i in range(shape.num_hidden_layers)])

    def forward(self, batch: SharedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        return self.score(self.final_norm(self.after_layers(batch))).squeeze(-1).float()  # type: ignore[no-any-return]


class BidirectionalDecoder(LanguageModel):
    """A language model that reads in both directions, whose logit is that of one vector made of each pair's tokens."""

    def __init__(self, shape: DecoderShape, pooling: str) -> None:
        """`pooling` is one of POOLINGS."""
        super().__init__(shape, [BidirectionalLayer(shape) for _ in range(shape.num_hidden_layers)])
        self.pooling = pooling

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        vectors_PD = self._pooled(self.final_norm(self.after_layers(batch)), batch)
        return self.score(vectors_PD).squeeze(-1).float()  # type: ignore[no-any-return]

    def _pooled(self, x_TD: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """One vector for each pair, [P, D]."""
        if self.pooling == "cls":
            return x_TD[batch.cu_seqlens[:-1]]
        if self.pooling == "last":
            return x_TD[batch.cu_seqlens[1:] - 1]
        return means_of_pairs(x_TD, batch)
