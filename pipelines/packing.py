"""Pairs laid end to end: which pairs share a forward pass, and the tensors of that pass. No padding, no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

Ids = Sequence[int] | np.ndarray
"""Token ids, or what stands beside each of them."""


class TokenPair(NamedTuple):
    """One (query, passage) pair as the model reads it, special tokens included."""

    input_ids: Ids
    token_type_ids: Ids | None
    """Segment of each token; None for families without segments."""


class PackedBatch(NamedTuple):
    """The pairs of one forward pass, T tokens of n pairs laid end to end (the layout of flash-attn and TEI)."""

    input_ids: torch.Tensor
    """int64 [T]"""
    token_type_ids: torch.Tensor | None
    """int64 [T]; None for families without segments."""
    position_ids: torch.Tensor
    """int64 [T]"""
    cu_seqlens: torch.Tensor
    """int32 [n + 1], from 0: pair i owns the tokens cu_seqlens[i]:cu_seqlens[i + 1]."""
    max_seqlen: int

    def to(self, device: torch.device) -> PackedBatch:
        """The same batch on another device; a GPU copies it in the background, and this call does not wait for that."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

        segments = None if self.token_type_ids is None else moved(self.token_type_ids)
        ids, positions = moved(self.input_ids), moved(self.position_ids)
        return PackedBatch(ids, segments, positions, moved(self.cu_seqlens), self.max_seqlen)


def cut_by_size(sizes: Iterable[int], limit: int) -> Iterator[tuple[int, int]]:
    """Ranges (start, end) of neighbours whose sizes add up to at most `limit`; a larger one is a range of its own."""
    start = end = total = 0
    for size in sizes:
        if end > start and total + size > limit:
            yield start, end
            start, total = end, 0
        total += size
        end += 1
    if start < end:
        yield start, end


def split_by_token_budget(lengths: Sequence[int], max_batch_tokens: int) -> Iterator[list[int]]:
    """Indices of `lengths` in runs of similar length that hold at most `max_batch_tokens` tokens each.

    Longest first, so that the first pass shows the highest memory use. A pair longer than the budget makes a run of
    its own. Every index comes exactly once; equal lengths keep their order.
    """
    run: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if run and tokens + lengths[index] > max_batch_tokens:
            yield run
            run, tokens = [], 0
        run.append(index)
        tokens += lengths[index]
    if run:
        yield run


def pack(pairs: Sequence[TokenPair], padding_id: int | None = None) -> PackedBatch:
    """The batch of `pairs` (at least one, none empty), laid end to end.

    Positions count from 0 (BERT). With `padding_id`, the RoBERTa rule holds instead: padding_id + 1, + 2, ... and a
    literal padding token in a text sits at `padding_id` and is not counted
    (`create_position_ids_from_input_ids` in transformers' modeling_xlm_roberta.py).
    """
    lengths = np.fromiter((len(pair.input_ids) for pair in pairs), dtype=np.int64, count=len(pairs))
    cu_seqlens = np.zeros(len(pairs) + 1, dtype=np.int64)
    np.cumsum(lengths, out=cu_seqlens[1:])
    input_ids = np.concatenate([np.asarray(pair.input_ids, dtype=np.int64) for pair in pairs])
    if padding_id is None:
        position_ids = np.arange(len(input_ids)) - np.repeat(cu_seqlens[:-1], lengths)
    else:
        is_text = input_ids != padding_id
        counted = np.concatenate([[0], np.cumsum(is_text)])
        position_ids = (counted[1:] - np.repeat(counted[cu_seqlens[:-1]], lengths)) * is_text + padding_id
    token_type_ids = None
    if pairs[0].token_type_ids is not None:
        segments = [np.asarray(pair.token_type_ids, dtype=np.int64) for pair in pairs]
        token_type_ids = torch.from_numpy(np.concatenate(segments))
    return PackedBatch(
        torch.from_numpy(input_ids),
        token_type_ids,
        torch.from_numpy(position_ids.astype(np.int64)),
        torch.from_numpy(cu_seqlens.astype(np.int32)),
        int(lengths.max()),
    )
