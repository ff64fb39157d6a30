"""Attention with a fast backward pass for training; scoring has its own kernels in `pipelines/attention.py`.

Shape legend: T packed tokens, B pairs, L tokens of the longest pair, N heads, H head width; Q and K stand for the
tokens that ask and for those that are looked at.
"""

from __future__ import annotations

from typing import Any

import torch

from ..attention import Attention, select_attention

LENGTH_STEP = 32
"""Pairs are padded to a multiple of it, so that the rows of the softmax fill whole vectors: 1.7 times as fast."""


def training_attention(device: torch.device) -> Attention:
    """On a GPU the kernel that scoring in bfloat16 uses there, on a CPU matrix products over padded pairs."""
    if device.type == "cuda":
        return select_attention(device, torch.bfloat16)
    return padded_attention


def padded_attention(
    q_TNH: torch.Tensor,
    k_TNH: torch.Tensor,
    v_TNH: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
) -> torch.Tensor:
    """Attention by plain matrix products over padded pairs: on CPUs torch's fused kernel has a slow backward pass.

    The linear layers, which are nearly all of the work, still see packed tokens without padding.
    """
    q_rows, q_places = padding_of(cu_seqlens_q, max_seqlen_q)
    k_rows, k_places = padding_of(cu_seqlens_k, -(-max_seqlen_k // LENGTH_STEP) * LENGTH_STEP)
    is_padding_BL = torch.ones(k_rows.numel(), dtype=torch.bool).index_fill_(0, k_places, False).view_as(k_rows)
    tensors = (q_TNH, k_TNH, v_TNH, q_rows, q_places, k_rows, k_places, is_padding_BL)
    return PaddedAttention.apply(*tensors)  # type: ignore[no-any-return, no-untyped-call]


def padding_of(cu_seqlens: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which packed row stands at each padded place, int64 [B, longest] with row 0 in padding, and where each packed
    row stands among the places, int64 [T]."""
    lengths = cu_seqlens.diff().long()
    rows = torch.arange(int(cu_seqlens[-1]))
    shifts = torch.arange(len(lengths)) * longest - cu_seqlens[:-1].long()
    places = rows + shifts.repeat_interleave(lengths)
    return torch.zeros(len(lengths) * longest, dtype=torch.long).index_copy_(0, places, rows).view(-1, longest), places


class PaddedAttention(torch.autograd.Function):
    """Softmax attention that writes the large [B, N, Q, K] tensors as seldom as plain torch allows.

    Autograd would keep and touch one more of them for each of scaling, masking and padding.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_TNH: torch.Tensor,
        k_TNH: torch.Tensor,
        v_TNH: torch.Tensor,
        q_rows: torch.Tensor,
        q_places: torch.Tensor,
        k_rows: torch.Tensor,
        k_places: torch.Tensor,
        is_padding_BL: torch.Tensor,
    ) -> torch.Tensor:
        q, k, v = (heads_first(x[rows]) for x, rows in ((q_TNH, q_rows), (k_TNH, k_rows), (v_TNH, k_rows)))
        scale = q_TNH.shape[-1] ** -0.5
        bias_BK = torch.zeros(is_padding_BL.shape, dtype=q.dtype).masked_fill_(is_padding_BL, float("-inf"))
        bias = bias_BK.repeat_interleave(q_TNH.shape[1], dim=0).unsqueeze(1)
        weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale).softmax(-1)
        ctx.save_for_backward(q, k, v, weights, q_places, k_places)
        ctx.scale, ctx.shape = scale, q_rows.shape
        return tokens_first(weights @ v, len(q_rows))[q_places]

    @staticmethod
    def backward(ctx: Any, gradient_TNH: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, weights, q_places, k_places = ctx.saved_tensors
        pairs, longest = ctx.shape
        padded = gradient_TNH.new_zeros(pairs * longest, *gradient_TNH.shape[1:])
        output = heads_first(padded.index_copy_(0, q_places, gradient_TNH).unflatten(0, ctx.shape))
        to_v = weights.transpose(1, 2) @ output
        to_logits = torch._softmax_backward_data(output @ v.transpose(1, 2), weights, -1, weights.dtype)
        to_q = (to_logits @ k).mul_(ctx.scale)
        to_k = (to_logits.transpose(1, 2) @ q).mul_(ctx.scale)
        gradients = ((to_q, q_places), (to_k, k_places), (to_v, k_places))
        return *(tokens_first(x, pairs)[places] for x, places in gradients), None, None, None, None, None


def heads_first(x_BLNH: torch.Tensor) -> torch.Tensor:
    """[B, L, N, H] -> [B N, L, H], contiguous."""
    return x_BLNH.transpose(1, 2).flatten(0, 1)


def tokens_first(x: torch.Tensor, pairs: int) -> torch.Tensor:
    """[B N, L, H] -> [B L, N, H], where B is `pairs`."""
    return x.unflatten(0, (pairs, -1)).transpose(1, 2).flatten(0, 1)  # type: ignore[no-any-return]
