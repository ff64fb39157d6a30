"""Attention over packed pairs, behind one signature: flash-attn or torch's varlen kernel on CUDA, SDPA elsewhere.

Shapes: T packed tokens, N heads, H head width. `cu_seqlens_q` and `cu_seqlens_k` differ when only some tokens ask
(the last layer asks for the first token of each pair alone).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F

Attention = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, int],
    torch.Tensor,
]
"""(q_TNH, k_TNH, v_TNH, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k) -> o_TNH; no mask, scale 1/sqrt(H)."""


def select_attention(device: torch.device, dtype: torch.dtype) -> Attention:
    """The fastest attention there is for `device` and `dtype`; chosen once, at load."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return sdpa_attention  # the CUDA kernels know half precision only
    if torch.cuda.get_device_capability(device) < (8, 0):
        return sdpa_attention  # and nothing before Ampere: a T4 or V100
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return torch_varlen_attention
    return flash_attn_varlen_func  # type: ignore[no-any-return]  # its first seven arguments are ours


def torch_varlen_attention(
    q_TNH: torch.Tensor,
    k_TNH: torch.Tensor,
    v_TNH: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
) -> torch.Tensor:
    """torch's FlashAttention-2 (CUDA, half precision), which needs no extra package."""
    from torch.nn.attention.varlen import varlen_attn  # loads CUDA-only code

    o_TNH = varlen_attn(q_TNH, k_TNH, v_TNH, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
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
) -> torch.Tensor:
    """`scaled_dot_product_attention` per pair; neighbours of equal length (pairs come sorted) share one call."""
    lengths = zip(cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist(), strict=True)
    q_at = k_at = 0
    outputs = []
    for (q_length, k_length), same in groupby(lengths):
        count = sum(1 for _ in same)
        q_end, k_end = q_at + count * q_length, k_at + count * k_length
        q_BNLH = q_TNH[q_at:q_end].unflatten(0, (count, q_length)).transpose(1, 2)
        k_BNLH = k_TNH[k_at:k_end].unflatten(0, (count, k_length)).transpose(1, 2)
        v_BNLH = v_TNH[k_at:k_end].unflatten(0, (count, k_length)).transpose(1, 2)
        o_BNLH = F.scaled_dot_product_attention(q_BNLH, k_BNLH, v_BNLH)
        outputs.append(o_BNLH.transpose(1, 2).flatten(0, 1))
        q_at, k_at = q_end, k_end
    return torch.cat(outputs)
