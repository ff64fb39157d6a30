"""Our packed encoder for the BERT / XLM-RoBERTa family: a packed batch in, one logit per pair out.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads, H head width, F feed-forward width.
Post-LayerNorm transformer blocks as in "Attention Is All You Need" (Vaswani et al. 2017) and BERT (Devlin et al. 2019).
Nothing but the first token of a pair reaches the score, so the last layer computes everything past its keys and
values for those P tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Attention, sdpa_attention
from .packing import PackedBatch

HIDDEN_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""`hidden_act` of a config -> `approximate` of torch's gelu."""


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The sizes of one encoder, under the names that Hugging Face configs give them."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str = "gelu"
    """One of HIDDEN_ACTIVATIONS."""


class Layer(nn.Module):
    """One transformer block with fused QKV, whose rows are [q; k; v], heads contiguous."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width, eps = shape.hidden_size, shape.layer_norm_eps
        self.num_heads = shape.num_attention_heads
        self.gelu_approximation = HIDDEN_ACTIVATIONS[shape.hidden_act]
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.feed_forward_in = nn.Linear(width, shape.intermediate_size)
        self.feed_forward_out = nn.Linear(shape.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps)

    def forward(self, x_TD: torch.Tensor, batch: PackedBatch, attention: Attention) -> torch.Tensor:
        """Every token of the batch: [T, D] -> [T, D]."""
        q_TNH, k_TNH, v_TNH = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        o_TNH = attention(q_TNH, k_TNH, v_TNH, bounds, bounds, longest, longest)
        return self._after_attention(x_TD, o_TNH)

    def forward_first_tokens(self, x_TD: torch.Tensor, batch: PackedBatch, attention: Attention) -> torch.Tensor:
        """The first token of each pair only: [T, D] -> [P, D]."""
        x_PD = x_TD[batch.cu_seqlens[:-1]]
        width = x_TD.shape[-1]
        q_weight_DD, kv_weight = self.qkv.weight.split((width, 2 * width))
        q_bias_D, kv_bias = self.qkv.bias.split((width, 2 * width))
        q_PNH = F.linear(x_PD, q_weight_DD, q_bias_D).unflatten(-1, (self.num_heads, -1))
        k_TNH, v_TNH = F.linear(x_TD, kv_weight, kv_bias).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        one_each = torch.arange(len(x_PD) + 1, dtype=torch.int32, device=x_TD.device)
        o_PNH = attention(q_PNH, k_TNH, v_TNH, one_each, batch.cu_seqlens, 1, batch.max_seqlen)
        return self._after_attention(x_PD, o_PNH)

    def _after_attention(self, x: torch.Tensor, o_NH: torch.Tensor) -> torch.Tensor:
        x = self.attention_norm(x + self.attention_out(o_NH.flatten(-2)))
        wide_F = F.gelu(self.feed_forward_in(x), approximate=self.gelu_approximation)
        return self.feed_forward_norm(x + self.feed_forward_out(wide_F))  # type: ignore[no-any-return]


class PackedEncoder(nn.Module):
    """Embeddings, layers and the classification head (dense, tanh, one logit) of a cross-encoder."""

    attention: Attention = staticmethod(sdpa_attention)
    """Replaced at load by what `attention.select_attention` finds."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.shape = shape
        self.word_embeddings = nn.Embedding(shape.vocab_size, width)
        self.position_embeddings = nn.Embedding(shape.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(shape.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, shape.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.head_dense = nn.Linear(width, width)
        self.head_out = nn.Linear(width, 1)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        x_TD = self._embed(batch)
        *layers, last = self.layers
        for layer in layers:
            x_TD = layer(x_TD, batch, self.attention)
        x_PD = last.forward_first_tokens(x_TD, batch, self.attention)  # type: ignore[operator]
        return self.head_out(torch.tanh(self.head_dense(x_PD))).squeeze(-1).float()  # type: ignore[no-any-return]

    def _embed(self, batch: PackedBatch) -> torch.Tensor:
        segments = batch.token_type_ids
        segment_TD = self.token_type_embeddings.weight[0] if segments is None else self.token_type_embeddings(segments)
        x_TD = self.word_embeddings(batch.input_ids) + self.position_embeddings(batch.position_ids) + segment_TD
        return self.embedding_norm(x_TD)  # type: ignore[no-any-return]
