"""Pairs laid end to end: who shares a pass, and the positions, segments and bounds of that pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.packing import TokenPair, pack, split_by_token_budget

LENGTHS = st.lists(st.integers(1, 200), max_size=50)


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_every_pair_runs_exactly_once(lengths: list[int], budget: int) -> None:
    runs = list(split_by_token_budget(lengths, budget))

    assert sorted(index for run in runs for index in run) == list(range(len(lengths)))


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_a_run_keeps_the_budget_unless_it_is_one_pair(lengths: list[int], budget: int) -> None:
    for run in split_by_token_budget(lengths, budget):
        assert len(run) == 1 or sum(lengths[index] for index in run) <= budget


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_longest_pairs_run_first_and_equal_ones_keep_their_order(lengths: list[int], budget: int) -> None:
    order = [index for run in split_by_token_budget(lengths, budget) for index in run]

    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


@given(lengths=LENGTHS, budget=st.integers(1, 1000))
def test_runs_are_filled(lengths: list[int], budget: int) -> None:
    """The first pair of a run did not fit the run before it."""
    for run, following in pairwise(split_by_token_budget(lengths, budget)):
        assert sum(lengths[index] for index in run) + lengths[following[0]] > budget


def test_bert_positions_count_from_zero_in_each_pair() -> None:
    batch = pack([TokenPair([2, 5, 3, 6, 3], [0, 0, 0, 1, 1]), TokenPair([2, 3, 3], [0, 0, 1])])

    assert batch.input_ids.tolist() == [2, 5, 3, 6, 3, 2, 3, 3]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [0, 0, 0, 1, 1, 0, 0, 1]
    assert batch.cu_seqlens.tolist() == [0, 5, 8]
    assert batch.max_seqlen == 5


def test_families_without_segments_have_none() -> None:
    assert pack([TokenPair([0, 2], None)], padding_id=1).token_type_ids is None


def test_a_literal_padding_token_sits_at_the_padding_position_and_is_not_counted() -> None:
    batch = pack([TokenPair([0, 7, 1, 1, 8, 2], None), TokenPair([1, 0, 2], None)], padding_id=1)

    assert batch.position_ids.tolist() == [2, 3, 1, 1, 4, 5, 1, 2, 3]


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=6))
def test_roberta_positions_are_those_of_transformers(sequences: list[list[int]]) -> None:
    """cumsum(ids != padding) * (ids != padding) + padding, over each sequence by itself."""
    batch = pack([TokenPair(ids, None) for ids in sequences], padding_id=1)

    is_text = [np.array(ids) != 1 for ids in sequences]
    assert batch.position_ids.tolist() == np.concatenate([np.cumsum(mask) * mask + 1 for mask in is_text]).tolist()


def test_dtypes_are_those_the_kernels_take() -> None:
    batch = pack([TokenPair(np.array([0, 5, 2], dtype=np.int32), np.zeros(3, dtype=np.int32))])

    dtypes = [str(part.dtype) for part in batch[:4]]  # type: ignore[union-attr]
    assert dtypes == ["torch.int64", "torch.int64", "torch.int64", "torch.int32"]
