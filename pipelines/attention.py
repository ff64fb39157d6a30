"""Attention over packed pairs, behind one signature: flash-attn or torch's varlen kernel on CUDA, SDPA elsewhere.

Shapes: T packed tokens, N heads, H head width. `cu_seqlens_q` and `cu_seqlens_k` differ when only some tokens ask
(the last layer asks for the first token of each pair alone). With a window on both sides they are the same, and each
token sees only so many on its left and right. With CAUSAL the tokens that ask are the last ones of the keys, and each
sees what stands before it. Keys and values may have fewer heads than queries: each of theirs serves several neighbours.
With slopes (ALiBi), too, the tokens that ask are the last ones of the keys; the bias counts the distance on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F

Attention = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, int],
    torch.Tensor,
]
"""(q_TNH, k_TNH, v_TNH, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k) -> o_TNH; no mask, scale 1/sqrt(H)."""

WindowSize = tuple[int, int]
"""Tokens on the left and on the right of a token that it sees besides itself."""
EVERYWHERE = (-1, -1)
"""The window size that stands for no window, here and in both CUDA kernels."""
CAUSAL = (-1, 0)
"""The window size of a token that sees all before it and nothing after it, here and in both CUDA kernels."""
QUERIES_PER_BLOCK = 128
"""Of a long pair with a window so many tokens at a time look at the keys around them: 64 to 256 measure alike."""


class WindowedAttention(Protocol):
    """An `Attention` that can be told a window, or slopes; the arguments have the names that flash-attn gives them."""

    def __call__(
        self,
        q_TNH: torch.Tensor,
        k_TNH: torch.Tensor,
        v_TNH: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        /,
        *,
        window_size: WindowSize = EVERYWHERE,
        alibi_slopes: torch.Tensor | None = None,
    ) -> torch.Tensor: ...


def select_attention(device: torch.device, dtype: torch.dtype) -> WindowedAttention:
    """The fastest attention there is for `device` and `dtype`; chosen once, at load."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return sdpa_attention  # the CUDA kernels know half precision only
    if torch.cuda.get_device_capability(device) < (8, 0):
        return sdpa_attention  # and nothing before Ampere: a T4 or V100
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return torch_varlen_attention
    return flash_attn_varlen_func  # type: ignore[no-any-return]  # its first seven arguments and our two keywords


def torch_varlen_attention(
    q_TNH: torch.Tensor,
    k_TNH: torch.Tensor,
    v_TNH: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    window_size: WindowSize = EVERYWHERE,
    alibi_slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """torch's FlashAttention-2 (CUDA, half precision), which needs no extra package; SDPA for slopes: it has none."""
    bounds = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    if alibi_slopes is not None:
        return sdpa_attention(q_TNH, k_TNH, v_TNH, *bounds, window_size=window_size, alibi_slopes=alibi_slopes)
    from torch.nn.attention.varlen import varlen_attn  # loads CUDA-only code

    has_groups = q_TNH.shape[1] != k_TNH.shape[1]
    o_TNH = varlen_attn(q_TNH, k_TNH, v_TNH, *bounds, window_size=window_size, enable_gqa=has_groups)
    assert isinstance(o_TNH, torch.Tensor)  # a tuple only when auxiliary outputs are asked for
    return o_TNH


def sdpa_attention(
    q_TNH: torch.Tensor,
    k_TNH: torch.Tensor,
    v_TNH: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    window_size: WindowSize = EVERYWHERE,
    alibi_slopes: torch.Tensor | None = None,
) -> torch.Tensor:
    """`scaled_dot_product_attention` per pair; neighbours of equal length (pairs come sorted) share one call."""
    assert alibi_slopes is None or window_size == EVERYWHERE  # no model has both
    lengths = zip(cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist(), strict=True)
    q_at = k_at = 0
    outputs = []
    for (q_length, k_length), same in groupby(lengths):
        count = sum(1 for _ in same)
        q_end, k_end = q_at + count * q_length, k_at + count * k_length
        q_BNLH = q_TNH[q_at:q_end].unflatten(0, (count, q_length)).transpose(1, 2)
        k_BNLH = k_TNH[k_at:k_end].unflatten(0, (count, k_length)).transpose(1, 2)
        v_BNLH = v_TNH[k_at:k_end].unflatten(0, (count, k_length)).transpose(1, 2)
        if alibi_slopes is not None:
            o_BNLH = alibi_attention(q_BNLH, k_BNLH, v_BNLH, alibi_slopes)
        elif window_size == CAUSAL:
            o_BNLH = causal_attention(q_BNLH, k_BNLH, v_BNLH)
        elif window_size == EVERYWHERE or q_length <= 1 + min(window_size):  # all of them see all
            has_groups = q_BNLH.shape[1] != k_BNLH.shape[1]
            o_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, enable_gqa=has_groups)
        else:
            o_BNLH = attention_in_window(q_BNLH, k_BNLH, v_BNLH, window_size)
        outputs.append(o_BNLH.transpose(1, 2).flatten(0, 1))
        q_at, k_at = q_end, k_end
    return torch.cat(outputs)


def causal_attention(q_BNLH: torch.Tensor, k_BNLH: torch.Tensor, v_BNLH: torch.Tensor) -> torch.Tensor:
    """Attention in which the queries belong to the last keys, and each sees the keys up to its own."""
    q_length, k_length = q_BNLH.shape[2], k_BNLH.shape[2]
    has_groups = q_BNLH.shape[1] != k_BNLH.shape[1]
    if q_length == k_length:
        return F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, is_causal=True, enable_gqa=has_groups)
    sees_QK = None
    if q_length > 1:
        sees_QK = torch.ones(q_length, k_length, dtype=torch.bool, device=q_BNLH.device).tril(k_length - q_length)
    return F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH, attn_mask=sees_QK, enable_gqa=has_groups)


def attention_in_window(
    q_BNLH: torch.Tensor, k_BNLH: torch.Tensor, v_BNLH: torch.Tensor, window_size: WindowSize
) -> torch.Tensor:
    """Attention of pairs of one length L, in which the token at i sees those from i - left to i + right.

    Block by block of queries, each with the keys that any of them sees: a long pair takes time by its length, and not
    by the square of it.
    """
    left, right = window_size
    length = q_BNLH.shape[2]
    blocks = []
    for start in range(0, length, QUERIES_PER_BLOCK):
        end = min(start + QUERIES_PER_BLOCK, length)
        first, last = max(0, start - left), min(length, end + right)
        i_Q1 = torch.arange(start, end, device=q_BNLH.device)[:, None]
        j_K = torch.arange(first, last, device=q_BNLH.device)
        sees_QK = (j_K >= i_Q1 - left) & (j_K <= i_Q1 + right)
        keys_BNKH, values_BNKH = k_BNLH[:, :, first:last], v_BNLH[:, :, first:last]
        queries_BNQH = q_BNLH[:, :, start:end]
        blocks.append(F.scaled_dot_product_attention(queries_BNQH, keys_BNKH, values_BNKH, attn_mask=sees_QK))
    return torch.cat(blocks, dim=2)


def alibi_slopes(num_heads: int) -> list[float]:
    """How much the bias of each head falls from one token to the next (ALiBi, Press et al. 2022).

    A geometric row that ends at 2^-8. Where the number of heads is no power of two, the row of the next smaller power
    is followed by every second number of the row that is twice as long, as in the paper's own code.
    """
    power = 1 << (num_heads.bit_length() - 1)

    def row(count: int) -> list[float]:
        return [2 ** (-8 * i / count) for i in range(1, count + 1)]

    return (row(power) + row(2 * power)[::2])[:num_heads]


def alibi_attention(
    q_BNLH: torch.Tensor, k_BNLH: torch.Tensor, v_BNLH: torch.Tensor, slopes_N: torch.Tensor
) -> torch.Tensor:
    """Attention of pairs of one length in which a token at i sees that at j with the bias -slope * |i - j|.

    The bias depends on i - j alone. With the queries backwards, query i and key j find theirs at i + j of one row of
    numbers, so all of it is a view of that row: on a CPU N L L numbers, 3 GB for 8,192 tokens in 12 heads, are never
    written. GPUs without flash-attn get them, since torch's kernels there ask for aligned rows.
    """
    q_length, k_length = q_BNLH.shape[2], k_BNLH.shape[2]
    distances = (k_length - 1 - torch.arange(q_length + k_length - 1, device=q_BNLH.device)).abs()
    bias_NQK = (-slopes_N[:, None] * distances).to(q_BNLH.dtype).unfold(1, k_length, 1)
    if bias_NQK.device.type != "cpu":
        bias_NQK = bias_NQK.contiguous()
    o_BNLH = F.scaled_dot_product_attention(q_BNLH.flip(2), k_BNLH, v_BNLH, attn_mask=bias_NQK[None])
    return o_BNLH.flip(2)
