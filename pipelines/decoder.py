"""The forward pass of causal language models as rerankers: a batch in, one logit per pair out.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads of queries and G of keys and values, H head
width. Pre-norm blocks with RMSNorm (Zhang and Sennrich 2019), rotary positions, grouped heads (Ainslie et al. 2023) and
SwiGLU (Shazeer 2020). A token sees only what stands before it: what pairs begin with alike runs once for all of them,
and in the last layer nothing but the last token of each pair asks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .attention import CAUSAL, WindowedAttention, sdpa_attention
from .encoder import PackedNetwork, embedding
from .linear import Linear
from .rotary import Rotation, rotated, rotation_of
from .shared_prefixes import SharedBatch


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

    @property
    def kv_width(self) -> int:
        """Numbers of all heads of the keys, and of the values."""
        return self.num_key_value_heads * self.head_dim


class Layer(nn.Module):
    """One transformer layer; the last one gives the last token of each pair alone."""

    def __init__(self, shape: DecoderShape, is_last: bool) -> None:
        super().__init__()
        width, wide, eps = shape.hidden_size, shape.intermediate_size, shape.rms_norm_eps
        self.head_dim = shape.head_dim
        self.is_last = is_last
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

    def forward(
        self, x_TD: torch.Tensor, batch: SharedBatch, rotation: Rotation, attention: WindowedAttention
    ) -> torch.Tensor:
        """[T, D] -> [T, D]; [P, D] of the last layer."""
        normed_TD = self.attention_norm(x_TD)
        k_TGH, v_TGH = self.kv(normed_TD).unflatten(-1, (2, -1, self.head_dim)).unbind(1)
        k_TGH = turned(self.k_norm(k_TGH), rotation)
        if self.is_last:
            x_TD, normed_TD = x_TD[batch.last], normed_TD[batch.last]
            rotation = rotation[0][batch.last], rotation[1][batch.last]
        q_NH = turned(self.q_norm(self.q(normed_TD).unflatten(-1, (-1, self.head_dim))), rotation)
        see = attention_of_last_tokens if self.is_last else attention_of_all_tokens
        x = self.attention_out.plus(see(q_NH, k_TGH, v_TGH, batch, attention).flatten(-2), x_TD)
        normed = self.feed_forward_norm(x)
        wide_F = self.feed_forward_in.times(normed, F.silu(self.feed_forward_gate(normed)))
        return self.feed_forward_out.plus(wide_F, x)


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


class Decoder(PackedNetwork):
    """Embeddings, layers, and the one row of numbers that makes the logit of the last token's vector."""

    attention: WindowedAttention = staticmethod(sdpa_attention)

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.theta, self.head_dim = shape.rope_theta, shape.head_dim
        self.word_embeddings = embedding(shape.vocab_size, shape.hidden_size)
        last = shape.num_hidden_layers - 1
        self.layers = nn.ModuleList(Layer(shape, is_last=i == last) for i in range(shape.num_hidden_layers))
        self.final_norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.score = Linear(shape.hidden_size, 1, bias=False)

    def forward(self, batch: SharedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        x = self.word_embeddings(batch.input_ids)
        rotation = rotation_of(batch.position_ids, self.theta, self.head_dim)
        for layer in self.layers:
            x = layer(x, batch, rotation, self.attention)
        return self.score(self.final_norm(x)).squeeze(-1).float()  # type: ignore[no-any-return]
