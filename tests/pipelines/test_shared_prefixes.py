"""What pairs begin with alike stands once in a batch, and each pair still sees all of its own tokens."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.packing import TokenPair
from pipelines.shared_prefixes import KEYS_PER_TOKEN, groups_of, pack_shared, split_by_prefixes

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12)
"""Few tokens, so that many begin alike."""


def pairs_of(ids: list[list[int]]) -> list[TokenPair]:
    return [TokenPair(np.array(one, dtype=np.int32), None) for one in ids]


@given(st.lists(IDS, min_size=1, max_size=12))
def test_each_pair_sees_its_own_tokens_in_their_order(ids: list[list[int]]) -> None:
    batch = pack_shared(pairs_of(ids))
    bounds = batch.cu_keys.tolist()
    for i, expected in enumerate(ids):
        keys = batch.keys[bounds[i] : bounds[i + 1]]
        assert batch.input_ids[keys].tolist() == expected
        assert batch.position_ids[keys].tolist() == list(range(len(expected)))
        assert keys[-1] == batch.last[i]
    own = batch.cu_own.diff()
    assert int(own.min()) >= 1, "the last token gives the score"
    assert len(batch.input_ids) == batch.prefix_tokens + int(own.sum())
    assert batch.cu_prefixes[-1] == batch.prefix_tokens
    assert (batch.max_own, batch.max_keys) == (int(own.max()), max(map(len, ids)))
    # The tokens that a pair has of its own are the last of those that it sees.
    for i, length in enumerate(own.tolist()):
        end = bounds[i + 1]
        start = batch.prefix_tokens + int(batch.cu_own[i])
        assert batch.keys[end - length : end].tolist() == list(range(start, start + length))


@given(st.lists(IDS, min_size=1, max_size=12), st.integers(1, 40))
def test_runs_hold_every_pair_once_and_keep_to_the_budget(ids: list[list[int]], budget: int) -> None:
    pairs = pairs_of(ids)
    told = []
    runs = list(split_by_prefixes(pairs, lambda tokens: told.append(tokens) or budget))
    assert sorted(index for run in runs for index in run) == list(range(len(ids)))
    order = [index for run in split_by_prefixes(pairs, lambda tokens: tokens) for index in run]
    assert told[0] == len(pack_shared([pairs[index] for index in order]).input_ids)
    for run in runs:
        tokens = len(pack_shared([pairs[index] for index in run]).input_ids)
        assert tokens <= budget or len(run) == 1
        assert sum(len(ids[index]) for index in run) <= KEYS_PER_TOKEN * budget or len(run) == 1


def test_lists_that_share_a_prompt_share_more_within_each() -> None:
    prompt, first, second = [1] * 20, [2] * 5, [3] * 5
    ids = [[*prompt, *first, 10 + i, 99] for i in range(8)] + [[*prompt, *second, 10 + i, 99] for i in range(8)]
    groups = groups_of([np.array(one) for one in ids])
    assert [(group.start, group.end, group.shared) for group in groups] == [(0, 8, 25), (8, 16, 25)]
    batch = pack_shared(pairs_of(ids))
    assert len(batch.input_ids) == 2 * 25 + 16 * 2
    assert torch.equal(batch.cu_prefixes, torch.tensor([0, 25, 50], dtype=torch.int32))


def test_no_pairs_make_no_runs() -> None:
    assert list(split_by_prefixes([], lambda tokens: tokens + 1)) == []


def test_single_documents_share_the_prompt() -> None:
    ids = [[*([1] * 20), 30 + i, 40, 99] for i in range(6)]
    [group] = groups_of([np.array(one) for one in ids])
    assert (group.start, group.end, group.shared) == (0, 6, 20)
