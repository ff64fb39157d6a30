"""A pair that was scored is not scored again, and its logit is the one that it had."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.memory import RecentLogits, ReusingEngine, StoredLogits, first_places, halves, pair_digest
from pipelines.packing import TokenPair
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.pipelines.test_engine import PAIRS, TOLERANCE, token_pairs

KEYS = st.binary(min_size=16, max_size=16)
LOGITS = st.floats(width=32, allow_nan=False, allow_infinity=False)


class FirstTokenEngine:
    """The logit of a pair is its first token; `forwarded` is what came through."""

    spec = None

    def __init__(self, broken: float | None = None) -> None:
        self.broken = broken
        self.forwarded: list[TokenPair] = []

    def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        assert len({pair_digest(pair) for pair in pairs}) == len(pairs)
        self.forwarded += pairs
        first = np.array([pair.input_ids[0] for pair in pairs], dtype=np.float32)
        return first if self.broken is None else np.full_like(first, self.broken)


def pair_of(first: int) -> TokenPair:
    return TokenPair(np.array([first, 7], np.int32), None)


def stored(logits: dict[bytes, float]) -> StoredLogits:
    return StoredLogits.of(*halves(b"".join(logits)), np.array(list(logits.values()), np.float32))


NOTHING = StoredLogits()

CALLS = st.lists(st.lists(st.integers(0, 15), max_size=20), max_size=8)


@given(calls=CALLS, capacity=st.integers(0, 20), known=st.sets(st.integers(0, 15)), one_unit=st.booleans())
def test_logits_are_those_of_the_engine_whatever_is_remembered(
    calls: list[list[int]], capacity: int, known: set[int], one_unit: bool
) -> None:
    """Any sequence of calls, any capacity, any store; and no pair goes through twice where it is known."""
    engine, recent = FirstTokenEngine(), RecentLogits(capacity)
    store = stored({pair_digest(pair_of(first)): float(first) for first in known})
    reusing = ReusingEngine(engine, recent, store)
    asked = reused = 0
    for call in calls:
        if not one_unit:
            reused += reusing.reused
            reusing = ReusingEngine(engine, recent, store)
        actual = reusing.logits([pair_of(first) for first in call])
        assert actual.dtype == np.float32
        np.testing.assert_array_equal(actual, np.array(call, np.float32))
        asked += len(call)
        assert len(recent) <= capacity
    forwarded = [int(pair.input_ids[0]) for pair in engine.forwarded]
    assert asked == len(forwarded) + reused + reusing.reused
    assert not known.intersection(forwarded)
    if one_unit or capacity >= 16:
        assert len(set(forwarded)) == len(forwarded)


@given(
    calls=st.lists(st.lists(st.integers(0, len(PAIRS) - 1), max_size=10), min_size=1, max_size=4),
    capacity=st.integers(0, 30),
)
@settings(max_examples=20)
def test_a_models_logits_are_those_of_a_run_without_memory(
    reranker: Reranker, calls: list[list[int]], capacity: int
) -> None:
    pairs, recent = token_pairs(reranker, PAIRS), RecentLogits(capacity)
    for call in calls:
        chosen = [pairs[i] for i in call]
        actual = ReusingEngine(reranker.engine, recent, NOTHING).logits(chosen)
        np.testing.assert_allclose(actual, reranker.engine.logits(chosen), atol=TOLERANCE, rtol=0)


def test_a_reranker_with_a_memory_ranks_as_one_without(reranker: Reranker) -> None:
    """Long documents in chunks, twice, with other lengths; the second time only new chunks go through."""
    lists = [CandidateList(words(3, seed=i % 2), [words(900, seed=1), words(5, seed=i)]) for i in range(4)]
    recent = RecentLogits(1000)
    for lengths in ({}, {}, {"max_length": 100}):
        engine = ReusingEngine(reranker.engine, recent, NOTHING)
        ours = reranker.with_engine(engine).rerank_lists(lists, **lengths)  # type: ignore[arg-type]
        theirs = reranker.rerank_lists(lists, **lengths)  # type: ignore[arg-type]
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.usage == other.usage
            assert [one.index for one in mine.documents] == [one.index for one in other.documents]
            for one, two in zip(mine.documents, other.documents, strict=True):
                assert one.relevance_score == pytest.approx(two.relevance_score, abs=TOLERANCE)
        chunks = sum(ranking.usage.chunks for ranking in ours)
        assert engine.reused == chunks - len(engine.new_logits)
        if lengths:
            assert 0 < engine.reused < chunks  # the short pairs are the same ones
    assert reranker.engine is not engine
    assert reranker.with_engine(engine).fingerprint == reranker.fingerprint


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_given_and_not_remembered(broken: float) -> None:
    recent = RecentLogits(10)
    sick = ReusingEngine(FirstTokenEngine(broken), recent, NOTHING)
    np.testing.assert_array_equal(sick.logits([pair_of(3), pair_of(3)]), np.array([broken, broken], np.float32))
    assert (len(recent), sick.new_logits) == (0, {})
    healthy = FirstTokenEngine()
    assert ReusingEngine(healthy, recent, NOTHING).logits([pair_of(3)]) == [3]
    assert len(healthy.forwarded) == 1


def test_what_is_new_is_what_went_through() -> None:
    """Neither what others in this replica found nor what was stored: it is kept already."""
    recent = RecentLogits(10)
    ReusingEngine(FirstTokenEngine(), recent, NOTHING).logits([pair_of(1)])
    engine = ReusingEngine(FirstTokenEngine(), recent, stored({pair_digest(pair_of(2)): 2.0}))
    engine.logits([pair_of(first) for first in (1, 2, 3, 3)])
    assert engine.new_logits == {pair_digest(pair_of(3)): 3.0}
    assert engine.reused == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(0, 6))
def test_those_that_were_asked_for_last_are_kept(steps: list[tuple[bool, int]], capacity: int) -> None:
    recent, expected = RecentLogits(capacity), list[int]()
    for is_new, number in steps:
        key = struct.pack(">2q", number, number)
        if is_new and number not in expected:
            recent.add({key: float(number)})
            expected = [*expected, number][-capacity:] if capacity else []
        elif number in expected:
            assert recent.look_up([key]) == {key: number}
            expected = [*(one for one in expected if one != number), number]
        else:
            assert recent.look_up([key]) == {}
        assert len(recent) == len(expected) <= capacity


def test_threads_may_share_a_memory() -> None:
    """As those of an actor that prepares units for an app do."""
    recent = RecentLogits(50)

    def score(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        calls = [rng.integers(0, 100, 30).tolist() for _ in range(50)]
        engine = FirstTokenEngine()
        return all(
            ReusingEngine(engine, recent, NOTHING).logits([pair_of(i) for i in call]).tolist() == call for call in calls
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(score, range(8)))
    assert len(recent) <= 50


@given(logits=st.dictionaries(KEYS, LOGITS, max_size=20), others=st.lists(KEYS, max_size=10))
def test_stored_logits_are_found_and_no_others(logits: dict[bytes, float], others: list[bytes]) -> None:
    store = stored(logits)
    assert len(store) == len(logits)
    assert store.look_up([*others, *logits]) == logits | {key: logits[key] for key in others if key in logits}
    assert list(store.heads) == sorted(store.heads)


def test_of_keys_that_share_a_half_none_is_taken_for_another() -> None:
    keys = [struct.pack(">2Q", *key) for key in [(1, 1), (1, 2), (2, 1), (2**64 - 1, 0), (2**64 - 1, 2**64 - 1)]]
    logits = {key: float(i) for i, key in enumerate(keys)}
    for unknown in (struct.pack(">2Q", 1, 3), struct.pack(">2Q", 2**64 - 1, 1), struct.pack(">2Q", 0, 1)):
        assert stored(logits).look_up([unknown]) == {}
    found = stored(logits).look_up(keys)
    assert found.items() <= logits.items()
    assert {keys[0], keys[2], keys[3]} <= found.keys()  # the others have to be scored again


def test_of_a_pair_that_is_stored_twice_the_first_counts() -> None:
    keys = halves(b"k" * 16 + b"a" * 16 + b"k" * 16)
    store = StoredLogits.of(*keys, np.array([1, 2, 3], np.float32))
    assert store.look_up([b"k" * 16, b"a" * 16]) == {b"k" * 16: 1.0, b"a" * 16: 2.0}
    assert len(store) == 2


def test_a_digest_is_that_of_the_ids_whatever_holds_them() -> None:
    ids, segments = [1, 2, 3], [0, 0, 1]
    same = {
        pair_digest(TokenPair(ids, segments)),
        pair_digest(TokenPair(np.array(ids, np.int32), np.array(segments, np.int32))),
        pair_digest(TokenPair(np.array(ids, np.int64), np.array(segments, np.int64))),
    }
    assert len(same) == 1
    assert pair_digest(TokenPair(ids, [0, 1, 1])) not in same
    assert pair_digest(TokenPair([1, 2], None)) != pair_digest(TokenPair([2, 1], None))


def test_a_digest_is_the_same_in_every_version() -> None:
    """Stored logits are found by it: whoever changes it raises the format of the score store."""
    assert pair_digest(TokenPair([101, 7, 102, 8, 102], [0, 0, 0, 1, 1])).hex() == "fc19f8a3e65e56a2a00a4d7ea5b736cc"


def test_places_are_those_of_the_first() -> None:
    assert list(first_places([b"b", b"a", b"b"]).items()) == [(b"b", 0), (b"a", 1)]


def test_threads_that_share_an_engine_take_turns_and_find_what_the_others_scored() -> None:
    class SlowEngine(FirstTokenEngine):
        inside = 0

        def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
            self.inside += 1
            assert self.inside == 1
            time.sleep(0.05)
            logits = super().distinct_logits(pairs)
            self.inside -= 1
            return logits

    slow, recent, turn = SlowEngine(), RecentLogits(100), threading.Lock()
    engines = [ReusingEngine(slow, recent, NOTHING, turn) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda engine: engine.logits([pair_of(1), pair_of(2)]).tolist(), engines))
    assert answers == [[1.0, 2.0]] * 4
    assert len(slow.forwarded) == 2
    assert sum(engine.reused for engine in engines) == 6
    assert sum(engine.waited for engine in engines) >= 0.05
