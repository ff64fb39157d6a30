"""Pairs that begin alike, for models in which a token sees only what stands before it: what they share runs once.

The pairs of a list share the prompt and the query, and all pairs the beginning of the prompt. Shared is the longest
common prefix of token ids, whatever the texts were: a tokenizer may join the end of one text with the next. Others
report 1.4 to 1.6 times the speed for this (RadixMLP, arXiv 2601.15013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from .packing import TokenPair

KEYS_PER_TOKEN = 4
"""Each layer gathers the keys of a prefix once for each pair: a run has at most so many for each token to compute."""


class SharedBatch(NamedTuple):
    """The pairs of one forward pass, laid end to end: first each shared prefix once, then what pairs have of their own.

    T tokens: those of G prefixes, and of P pairs; each of these has at least one token of its own, its last.
    """

    input_ids: torch.Tensor
    """int64 [T]"""
    position_ids: torch.Tensor
    """int64 [T]; the tokens of a pair count on from its prefix."""
    cu_prefixes: torch.Tensor
    """int32 [G + 1], from 0: the bounds of the prefixes."""
    cu_own: torch.Tensor
    """int32 [P + 1], from 0: the bounds of what the pairs have of their own, after all prefixes."""
    keys: torch.Tensor
    """int64 [K]: for each pair the places of its prefix's tokens and of its own, which its own tokens may see."""
    cu_keys: torch.Tensor
    """int32 [P + 1], from 0: the bounds of the pairs in `keys`."""
    last: torch.Tensor
    """int64 [P]: the place of each pair's last token."""
    prefix_tokens: int
    """Tokens of all prefixes together."""
    max_prefix: int
    max_own: int
    max_keys: int

    def to(self, device: torch.device) -> SharedBatch:
        """The same batch on another device; a GPU copies it in the background, and this call does not wait for that."""

        def moved(part: torch.Tensor | int) -> torch.Tensor | int:
            if isinstance(part, int):
                return part
            return part.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else part.to(device)

        return SharedBatch(*map(moved, self))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring pairs that begin alike."""

    start: int
    end: int
    shared: int
    """Tokens that all of them begin with; fewer than the shortest has."""


def split_by_prefixes(pairs: Sequence[TokenPair], budget_of: Callable[[int], int]) -> Iterator[list[int]]:
    """Indices of `pairs` in runs of at most so many tokens to compute; what begins alike stands together.

    `budget_of` gives the number, when it is told how many tokens all pairs have to compute. A pair longer than that
    makes a run of its own. Every index comes exactly once.
    """
    ids = [np.asarray(pair.input_ids, dtype=np.int32) for pair in pairs]
    order = sorted(range(len(ids)), key=lambda index: ids[index].astype(">i4").tobytes())
    groups = groups_of([ids[index] for index in order])
    max_batch_tokens = budget_of(tokens_of(ids, groups, budget_of))
    run: list[int] = []
    tokens = keys = 0
    for group in groups:
        begun = False  # this group's prefix is in the run
        for place in range(group.start, group.end):
            own = len(ids[order[place]]) - group.shared
            more = own if begun else own + group.shared
            seen = own + group.shared
            if run and (tokens + more > max_batch_tokens or keys + seen > KEYS_PER_TOKEN * max_batch_tokens):
                yield run
                run, tokens, keys, more = [], 0, 0, seen
            run.append(order[place])
            tokens += more
            keys += seen
            begun = True
    if run:
        yield run


def groups_of(ids: Sequence[np.ndarray]) -> list[Group]:
    """Neighbours that begin alike, of a sorted sequence: a group grows while that saves no fewer tokens."""
    groups: list[Group] = []
    start, shared = 0, 0
    for place in range(1, len(ids) + 1):
        if place < len(ids):
            common = common_prefix(ids[place - 1], ids[place])
            grown = common if place == start + 1 else min(shared, common)
            if grown * (place - start) >= shared * (place - start - 1) and grown > 0:
                shared = grown
                continue
        groups.append(Group(start, place, shared))
        start, shared = place, 0
    return groups


def tokens_of(ids: Sequence[np.ndarray], groups: Sequence[Group], budget_of: Callable[[int], int]) -> int:
    """How many tokens there are to compute: a prefix once, and once more in each further run that it is cut into."""
    saved = sum(group.shared * (group.end - group.start - 1) for group in groups)
    tokens = sum(map(len, ids)) - saved
    runs = max(1, -(-tokens // budget_of(tokens)))
    return tokens + (runs - 1) * max((group.shared for group in groups), default=0)


def common_prefix(first: np.ndarray, second: np.ndarray) -> int:
    """How many tokens both begin with, but for the last one of each, which gives the score."""
    length = min(len(first), len(second)) - 1
    differ = np.flatnonzero(first[:length] != second[:length])
    return int(differ[0]) if len(differ) else length


def pack_shared(pairs: Sequence[TokenPair]) -> SharedBatch:
    """The batch of `pairs` (at least one, none empty) in their order; neighbours that begin alike share that."""
    ids = [np.asarray(pair.input_ids, dtype=np.int64) for pair in pairs]
    groups = groups_of(ids)
    prefixes = [ids[group.start][: group.shared] for group in groups if group.shared]
    prefix_ends = np.cumsum([0, *map(len, prefixes)])
    own, positions = [], [np.arange(len(prefix)) for prefix in prefixes]
    keys, prefix = [], 0
    at = int(prefix_ends[-1])
    for group in groups:
        seen = np.arange(prefix_ends[prefix], prefix_ends[prefix + 1]) if group.shared else np.empty(0, dtype=np.int64)
        for place in range(group.start, group.end):
            mine = ids[place][group.shared :]
            own.append(mine)
            positions.append(np.arange(group.shared, group.shared + len(mine)))
            keys.append(np.concatenate([seen, np.arange(at, at + len(mine))]))
            at += len(mine)
        prefix += bool(group.shared)
    own_ends, key_ends = np.cumsum([0, *map(len, own)]), np.cumsum([0, *map(len, keys)])
    return SharedBatch(
        torch.from_numpy(np.concatenate([*prefixes, *own])),
        torch.from_numpy(np.concatenate(positions)),
        torch.from_numpy(prefix_ends.astype(np.int32)),
        torch.from_numpy(own_ends.astype(np.int32)),
        torch.from_numpy(np.concatenate(keys)),
        torch.from_numpy(key_ends.astype(np.int32)),
        torch.from_numpy(prefix_ends[-1] + own_ends[1:] - 1),
        int(prefix_ends[-1]),
        max(map(len, prefixes), default=0),
        max(map(len, own)),
        max(map(len, keys)),
    )
