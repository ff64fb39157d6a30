"""Which lists a training step takes, and their packed batches, put together from token ids on the model's device.

Shape legend: L lists of the step, C passages drawn from each, P = L C pairs, T packed tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from ..packing import PackedBatch, cut_by_size
from .token_lists import TokenLists

MAX_TOKENS_ON_GPU = 1 << 30
"""4 GiB of int32; more stay where they are, in memory or in a mapped file."""


@dataclass(frozen=True, slots=True)
class PairLayout:
    """The special tokens around a query and a passage, and how positions and segments count."""

    start: int
    separator: int
    separators_between: int = 1
    """1 for BERT, 2 for XLM-RoBERTa."""
    padding_id: int | None = None
    """Where RoBERTa's positions count from; None counts from 0 (BERT)."""
    has_segments: bool = True

    @property
    def special_tokens(self) -> int:
        """Special tokens of one pair."""
        return 2 + self.separators_between


class Drawn(NamedTuple):
    """What a step trains on: row l is one list, padded on the right where it has fewer than C passages."""

    queries_L: np.ndarray
    """int64: a text each."""
    passages_LC: np.ndarray
    """int64: a text each, 0 in padding."""
    labels_LC: np.ndarray
    """float32"""
    teacher_LC: np.ndarray
    """float32"""
    is_real_LC: np.ndarray
    """bool: whether there is a passage."""

    def part(self, number: int, of: int) -> Drawn:
        """The share of one worker: every `of`-th list, beginning with list `number`."""
        return Drawn(*(rows[number::of] for rows in self))


def lists_of_step(members: np.ndarray, step: int, lists_per_step: int, seed: int) -> np.ndarray:
    """Numbers of the lists of a step: every epoch takes all `members` once, in an order that the seed decides."""
    at = step * lists_per_step
    chosen: list[int] = []
    while len(chosen) < lists_per_step:
        epoch, place = divmod(at + len(chosen), len(members))
        chosen.extend(epoch_order(len(members), seed, epoch)[place : place + lists_per_step - len(chosen)])
    numbers: np.ndarray = members[np.array(chosen)]
    return numbers


@lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers 0 to `count` - 1 in the order of one epoch; kept, since every step of the epoch asks for it."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def draw(lists: TokenLists, numbers: np.ndarray, passages_per_list: int, seed: int, step: int) -> Drawn:
    """Draws passages from each list: the best label first, the others by chance, the same for the same seed and step.

    Of several best labels one stands first, so a list that is cut to few passages still has something to learn. A list
    without a label above 0 is drawn by chance alone.
    """
    rng = np.random.default_rng((seed, 1, step))
    shape = (len(numbers), passages_per_list)
    passages, is_real = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    labels, teacher = np.full(shape, np.nan, dtype=np.float32), np.full(shape, np.nan, dtype=np.float32)
    for row, number in enumerate(numbers):
        start, end = lists.list_starts[number : number + 2]
        grades = np.nan_to_num(lists.labels[start:end].astype(np.float32), nan=-1.0)
        order = rng.permutation(end - start)
        if grades.max() > 0:
            best = order[grades[order].argmax()]
            order = np.concatenate([[best], order[order != best]])
        places = start + order[:passages_per_list]
        width = len(places)
        passages[row, :width], is_real[row, :width] = lists.passages[places], True
        labels[row, :width], teacher[row, :width] = lists.labels[places], lists.teacher[places]
    return Drawn(lists.queries[numbers].astype(np.int64), passages, labels, teacher, is_real)


class BatchMaker:
    """Packs pairs of texts. On a GPU all token ids lie there if they fit, so that only numbers of texts travel."""

    def __init__(self, lists: TokenLists, layout: PairLayout, device: torch.device) -> None:
        self.layout = layout
        self.device = device
        self.starts = lists.text_starts[:-1]
        self.lengths = np.diff(lists.text_starts)
        self.tokens = lists.tokens
        self.tokens_there: torch.Tensor | None = None
        if device.type == "cuda" and len(lists.tokens) <= MAX_TOKENS_ON_GPU:
            self.tokens_there = torch.from_numpy(lists.tokens.astype(np.int32)).to(device)

    def tokens_at(self, places: torch.Tensor) -> torch.Tensor:
        """Token ids at places of all texts laid end to end, int64, on the device."""
        places = places.clamp(0, len(self.tokens) - 1)
        if self.tokens_there is not None:
            return self.tokens_there[places].long()
        return torch.from_numpy(self.tokens[places.cpu().numpy()].astype(np.int64)).to(self.device)

    def pair_lengths(
        self, queries: np.ndarray, passages: np.ndarray, max_length: int, max_query_length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that are left of each query and of each passage; the query is cut first, then the passage."""
        query = np.minimum(self.lengths[queries], max_query_length)
        room = max_length - self.layout.special_tokens - query
        return query, np.minimum(self.lengths[passages], room)

    def pack(self, queries: np.ndarray, passages: np.ndarray, max_length: int, max_query_length: int) -> PackedBatch:
        """The batch of the pairs (queries[p], passages[p]); both are numbers of texts, int64 [P]."""
        layout = self.layout
        query, passage = self.pair_lengths(queries, passages, max_length, max_query_length)
        totals = query + passage + layout.special_tokens
        bounds = np.concatenate([[0], np.cumsum(totals)])
        # For each pair: where it begins, where its passage begins, where its last token is, and both texts' places.
        passage_at = query + 1 + layout.separators_between
        columns = np.stack([bounds[:-1], query, passage_at, totals - 1, self.starts[queries], self.starts[passages]])
        columns_P = torch.from_numpy(columns).to(self.device)
        sizes_P = torch.from_numpy(totals).to(self.device)
        columns_T = columns_P.repeat_interleave(sizes_P, dim=1, output_size=int(bounds[-1]))
        begin, query_T, passage_at_T, last, query_start, passage_start = columns_T
        place = torch.arange(int(bounds[-1]), device=self.device) - begin
        in_query = (place >= 1) & (place <= query_T)
        in_passage = (place >= passage_at_T) & (place < last)
        source = torch.where(in_query, query_start + place - 1, passage_start + place - passage_at_T)
        special = torch.where(place == 0, layout.start, layout.separator)
        return PackedBatch(
            input_ids=torch.where(in_query | in_passage, self.tokens_at(source), special),
            token_type_ids=(place >= passage_at_T).long() if layout.has_segments else None,
            position_ids=place if layout.padding_id is None else place + layout.padding_id + 1,
            cu_seqlens=torch.from_numpy(bounds.astype(np.int32)).to(self.device),
            max_seqlen=int(totals.max()),
        )

    def micro_batches(
        self, drawn: Drawn, max_length: int, max_query_length: int, max_tokens: int
    ) -> Iterator[tuple[slice, PackedBatch]]:
        """The rows of `drawn` in runs of whole lists under a token budget, each with the batch of its real pairs.

        A list is never cut in two, since a softmax needs all of its logits at once.
        """
        width = drawn.passages_LC.shape[1]
        queries = np.repeat(drawn.queries_L[:, None], width, axis=1)
        query, passage = self.pair_lengths(queries.ravel(), drawn.passages_LC.ravel(), max_length, max_query_length)
        totals = (query + passage + self.layout.special_tokens).reshape(-1, width)
        sizes = (totals * drawn.is_real_LC).sum(axis=1)
        for start, end in cut_by_size(sizes.tolist(), max_tokens):
            rows = slice(start, end)
            real = drawn.is_real_LC[rows]
            yield rows, self.pack(queries[rows][real], drawn.passages_LC[rows][real], max_length, max_query_length)
