"""The forward pass of BERT and its descendants: a packed batch in, one logit per pair out.

Shape legend: T packed tokens, P pairs of the batch, D model width, N heads, H head width, F feed-forward width.
Post-LayerNorm transformer blocks as in "Attention Is All You Need" (Vaswani et al. 2017) and BERT (Devlin et al. 2019).
Nothing but the first token of a pair reaches the score, so the last layer computes everything past its keys and
values for those P tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Attention, sdpa_attention
from .linear import Linear
from .packing import PackedBatch

HIDDEN_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
"""`hidden_act` of a config -> `approximate` of torch's gelu."""
HEAD_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": F.gelu, "tanh": torch.tanh}
"""Between the two linear layers of the head."""


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


class Block(nn.Module):
    """What follows the attention in every layer: output projection, feed-forward, and the norms after the residuals."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        width, eps = shape.hidden_size, shape.layer_norm_eps
        self.num_heads = shape.num_attention_heads
        self.gelu_approximation = HIDDEN_ACTIVATIONS[shape.hidden_act]
        self.attention_out = Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.feed_forward_in = Linear(width, shape.intermediate_size)
        self.feed_forward_out = Linear(shape.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps)

    def after_attention(self, x: torch.Tensor, o_NH: torch.Tensor) -> torch.Tensor:
        """x: [any, D], the layer's input; o_NH: what the attention gave for the same tokens."""
        x = self.attention_norm(self.attention_out.plus(o_NH.flatten(-2), x))
        wide_F = self.feed_forward_in.gelu(x, self.gelu_approximation)
        return self.feed_forward_norm(self.feed_forward_out.plus(wide_F, x))  # type: ignore[no-any-return]


class GatedBlock(nn.Module):
    """As `Block`, with a gated feed-forward: what goes in is multiplied by the gelu of a gate; neither has a bias."""

    def __init__(self, width: int, wide: int, num_heads: int, eps: float, gelu_approximation: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.gelu_approximation = gelu_approximation
        self.attention_out = Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps)
        self.feed_forward_gate = Linear(width, wide, bias=False)
        self.feed_forward_in = Linear(width, wide, bias=False)
        self.feed_forward_out = Linear(wide, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps)

    def after_attention(self, x: torch.Tensor, o_NH: torch.Tensor) -> torch.Tensor:
        """x: [any, D], the layer's input; o_NH: what the attention gave for the same tokens."""
        x = self.attention_norm(self.attention_out.plus(o_NH.flatten(-2), x))
        wide_F = self.feed_forward_in.times(x, self.feed_forward_gate.gelu(x, self.gelu_approximation))
        return self.feed_forward_norm(self.feed_forward_out.plus(wide_F, x))  # type: ignore[no-any-return]


class Layer(Block):
    """One transformer layer over every token, with fused QKV, whose rows are [q; k; v], heads contiguous."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.qkv = Linear(shape.hidden_size, 3 * shape.hidden_size)

    def forward(self, x_TD: torch.Tensor, batch: PackedBatch, attention: Attention) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        q_TNH, k_TNH, v_TNH = self.qkv(x_TD).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        bounds, longest = batch.cu_seqlens, batch.max_seqlen
        return self.after_attention(x_TD, attention(q_TNH, k_TNH, v_TNH, bounds, bounds, longest, longest))


class FirstTokenLayer(Block):
    """The last layer: only the first token of each pair asks, so its query projection stands apart."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__(shape)
        self.q = Linear(shape.hidden_size, shape.hidden_size)
        self.kv = Linear(shape.hidden_size, 2 * shape.hidden_size)

    def forward(self, x_TD: torch.Tensor, batch: PackedBatch, attention: Attention) -> torch.Tensor:
        """[T, D] -> [P, D]."""
        x_PD = x_TD[batch.cu_seqlens[:-1]]
        q_PNH = self.q(x_PD).unflatten(-1, (self.num_heads, -1))
        k_TNH, v_TNH = self.kv(x_TD).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        one_each = torch.arange(len(x_PD) + 1, dtype=torch.int32, device=x_TD.device)
        o_PNH = attention(q_PNH, k_TNH, v_TNH, one_each, batch.cu_seqlens, 1, batch.max_seqlen)
        return self.after_attention(x_PD, o_PNH)


class PackedNetwork(nn.Module):
    """A forward pass that gives a packed batch its logits, float32 [P]; each family has one."""

    attention: Attention = staticmethod(sdpa_attention)
    """Replaced at load by what `attention.select_attention` finds."""


class PackedEncoder(PackedNetwork):
    """Embeddings, layers and the classification head (dense, an activation, one logit) of a cross-encoder."""

    def __init__(self, shape: EncoderShape, head_activation: str = "tanh") -> None:
        super().__init__()
        width = shape.hidden_size
        self.shape = shape
        self.head_activation = HEAD_ACTIVATIONS[head_activation]
        self.word_embeddings = embedding(shape.vocab_size, width)
        self.position_embeddings = embedding(shape.max_position_embeddings, width)
        self.token_type_embeddings = embedding(shape.type_vocab_size, width)
        self.embedding_norm = nn.LayerNorm(width, shape.layer_norm_eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers - 1))
        self.layers.append(FirstTokenLayer(shape))
        self.head_dense = Linear(width, width)
        self.head_out = Linear(width, 1)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Logits of the pairs of `batch`, in their order: float32 [P]."""
        x = self._embed(batch)
        for layer in self.layers:
            x = layer(x, batch, self.attention)
        return self.head_out(self.head_activation(self.head_dense(x))).squeeze(-1).float()  # type: ignore[no-any-return]

    def _embed(self, batch: PackedBatch) -> torch.Tensor:
        segments = batch.token_type_ids
        segment_TD = self.token_type_embeddings.weight[0] if segments is None else self.token_type_embeddings(segments)
        x_TD = self.word_embeddings(batch.input_ids) + self.position_embeddings(batch.position_ids) + segment_TD
        return self.embedding_norm(x_TD)  # type: ignore[no-any-return]


def embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding without values: weights are always loaded, and drawing them on torch's meta device, where it does
    nothing, imports torch's compiler: a second of every load."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)  # type: ignore[no-any-return]


def means_of_pairs(x_TD: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """The mean of each pair's tokens, [P, D]."""
    lengths = batch.cu_seqlens.diff().long()
    return torch.segment_reduce(x_TD.float(), "mean", lengths=lengths, axis=0, unsafe=True).to(x_TD.dtype)
