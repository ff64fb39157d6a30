"""Figures of a validation have the right values, and mapped lists are the lists that were joined."""

from __future__ import annotations

import math
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import scipy.stats
import torch
from ir_measures import nDCG

from pipelines.encoder import EncoderShape, PackedEncoder
from pipelines.packing import PackedBatch
from pipelines.training import validation
from pipelines.training.batches import BatchMaker, PairLayout
from pipelines.training.mapped_lists import join, load_mapped
from pipelines.training.token_lists import TokenList, TokenLists
from pipelines.training.validation import (
    BY_LABELS,
    BY_TEACHER,
    kendall_tau,
    measure_of,
    ndcg,
    score_lists,
    validation_lists,
)

NAN = math.nan


def test_ndcg_is_that_of_ir_measures() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (50, 24)).astype(np.float32)
    labels[:, 0] = 3  # every list has a right answer
    logits = rng.normal(size=(50, 24)).astype(np.float32)
    qrels = [ir_measures.Qrel(str(q), str(d), int(labels[q, d])) for q in range(50) for d in range(24)]
    run = [ir_measures.ScoredDoc(str(q), str(d), float(logits[q, d])) for q in range(50) for d in range(24)]
    expected = {metric.query_id: metric.value for metric in ir_measures.iter_calc([nDCG @ 10], qrels, run)}
    assert ndcg(labels, logits) == pytest.approx([expected[str(q)] for q in range(50)])


def test_unknown_labels_and_padding_take_no_part_and_ties_share() -> None:
    labels = np.array([[1, 0, NAN, NAN], [1, 0, 0, 0]], dtype=np.float32)
    logits = np.array([[1, 2, 3, -np.inf], [0, 0, 0, 0]], dtype=np.float32)
    discounts = 1 / np.log2([2, 3, 4, 5])
    assert ndcg(labels, logits) == pytest.approx([discounts[1], discounts.mean()])


def lists(first: int, count: int) -> TokenLists:
    return TokenLists.of(
        TokenList([first + i], [[9, i], [], [first, 5, 6]], [1.0, 0.0, NAN], [NAN, 0.5, 1.5], held_back=i % 2 == 0)
        for i in range(count)
    )


@pytest.mark.parametrize("vocab_size", [30_522, 250_037])
def test_joined_lists_are_those_of_the_shards(tmp_path: Path, vocab_size: int) -> None:
    shards = [lists(100, 3), lists(200, 1), lists(300, 5)]
    join(iter(shards), tmp_path, vocab_size)
    joined = load_mapped(tmp_path)
    assert joined.tokens.dtype == (np.uint16 if vocab_size < 1 << 16 else np.uint32)
    assert len(joined) == 9
    expected = [(shard, number) for shard in shards for number in range(len(shard))]
    for place, (shard, number) in enumerate(expected):
        assert joined.text(joined.queries[place]).tolist() == shard.text(shard.queries[number]).tolist()
        ours, theirs = joined.list_starts[place : place + 2], shard.list_starts[number : number + 2]
        for mine, other in zip(joined.passages[slice(*ours)], shard.passages[slice(*theirs)], strict=True):
            assert joined.text(mine).tolist() == shard.text(other).tolist()
        np.testing.assert_array_equal(joined.labels[slice(*ours)], shard.labels[slice(*theirs)])
        np.testing.assert_array_equal(joined.teacher[slice(*ours)], shard.teacher[slice(*theirs)])
    assert joined.held_back.tolist() == [bool(shard.held_back[number]) for shard, number in expected]


def test_lists_of_a_validation_are_held_back_and_have_an_order() -> None:
    some = lists(100, 9)
    assert some.measurable().tolist() == some.taught().tolist() == [0, 2, 4, 6, 8]
    assert measure_of(some) is BY_LABELS
    assert validation_lists(some.measurable(), 100, seed=0).tolist() == [0, 2, 4, 6, 8]
    assert len(validation_lists(some.measurable(), 3, seed=0)) == 3


@pytest.mark.parametrize(
    ("labels", "teacher", "measurable", "taught"),
    [
        ([1, 1, NAN], [3, 3, NAN], False, False),
        ([0, 0, 0], [-1, NAN, -2], False, True),
        ([2, 1, NAN], [NAN] * 3, True, False),
        ([NAN] * 3, [0, 0, 1], False, True),
    ],
)
def test_what_a_list_tells_of_an_order(
    labels: list[float], teacher: list[float], measurable: bool, taught: bool
) -> None:
    one = TokenLists.of([TokenList([1], [[2], [3], [4]], labels, teacher, held_back=True)])
    assert one.measurable().tolist() == [0] * measurable
    assert one.taught().tolist() == [0] * taught
    assert measure_of(one) is (BY_LABELS if measurable else BY_TEACHER)


def test_kendall_tau_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    teacher = rng.integers(0, 5, (50, 24)).astype(np.float32)
    logits = np.round(rng.normal(size=(50, 24)) + teacher, 0).astype(np.float32)
    teacher[:, 5], logits[:, 20:] = NAN, -np.inf
    seen = [column for column in range(20) if column != 5]
    expected = [scipy.stats.kendalltau(t, m).statistic for t, m in zip(teacher[:, seen], logits[:, seen], strict=True)]
    assert kendall_tau(teacher, logits) == pytest.approx(expected)
    assert kendall_tau(teacher[:1], np.zeros((1, 24), dtype=np.float32)).tolist() == [0.0]


def test_lists_of_any_length_are_scored_in_passes_of_bounded_size_by_any_number_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each pair has the logit that it has alone; a list of 60 passages takes several passes."""
    monkeypatch.setattr(validation, "BATCH_TOKENS", 64)
    torch.manual_seed(0)
    encoder = PackedEncoder(EncoderShape(40, 16, 2, 2, 32, 64, 2, 1e-12)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.1)
    made = [
        TokenList([5 + i], [[7 + j % 30] * (1 + j % 5) for j in range(size)], [0] * size, [0] * size)
        for i, size in enumerate((60, 3, 9))
    ]
    lists, numbers = TokenLists.of(made), np.array([0, 2])
    maker = BatchMaker(lists, PairLayout(start=1, separator=2), torch.device("cpu"))
    sizes = []

    def scoring(batch: PackedBatch) -> torch.Tensor:
        sizes.append(len(batch.input_ids))
        return encoder(batch)

    whole, *parts = (
        score_lists(scoring, maker, lists, numbers, 16, 8, part, of) for part, of in ((0, 1), (0, 2), (1, 2))
    )
    assert max(sizes) <= 64
    is_real_LC = whole.drawn.is_real_LC
    assert is_real_LC.sum() == 69
    np.testing.assert_allclose(
        sum(part.logits_LC[is_real_LC] for part in parts), whole.logits_LC[is_real_LC], atol=1e-6
    )
    for row, place in zip(*np.nonzero(is_real_LC), strict=True):
        pair = whole.drawn.queries_L[row : row + 1], whole.drawn.passages_LC[row, place : place + 1]
        assert whole.logits_LC[row, place] == pytest.approx(encoder(maker.pack(*pair, 16, 8)).item(), abs=1e-5)
    assert np.isneginf(whole.logits_LC[~is_real_LC]).all()
