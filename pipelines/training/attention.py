"""Attention with a fast backward pass for training; scoring has its own kernels in `pipelines/attention.py`."""

from __future__ import annotations

import torch

from ..attention import Attention, select_attention


def training_attention(device: torch.device) -> Attention:
    """What scoring in bfloat16 takes on that GPU; on CPUs products over padded pairs."""
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

    def pad(x_TNH: torch.Tensor, cu_seqlens: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = cu_seqlens.diff().long()
        shifts = torch.arange(len(lengths)) * longest - cu_seqlens[:-1].long()
        places = torch.arange(len(x_TNH)) + shifts.repeat_interleave(lengths)
        flat = x_TNH.new_zeros(len(lengths) * longest, *x_TNH.shape[1:]).index_copy(0, places, x_TNH)
        return flat.unflatten(0, (len(lengths), longest)).transpose(1, 2), places

    q_BNLH, places = pad(q_TNH, cu_seqlens_q, max_seqlen_q)
    k_BNLH, _ = pad(k_TNH, cu_seqlens_k, max_seqlen_k)
    v_BNLH, _ = pad(v_TNH, cu_seqlens_k, max_seqlen_k)
    is_padding = torch.arange(max_seqlen_k) >= cu_seqlens_k.diff().unsqueeze(1)
    logits = q_BNLH @ k_BNLH.transpose(2, 3) * q_TNH.shape[-1] ** -0.5
    weights = logits.masked_fill(is_padding[:, None, None], float("-inf")).softmax(-1)
    o_BNLH: torch.Tensor = weights.to(v_BNLH.dtype) @ v_BNLH
    return o_BNLH.transpose(1, 2).flatten(0, 1)[places]
