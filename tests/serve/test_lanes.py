"""Batches from two lanes. The device is a stand-in whose passes end when the test says so."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.packing import TokenPair
from serve.lanes import Lane, Lanes

ONLINE, BULK = Lane.ONLINE, Lane.BULK
Call = asyncio.Task[np.ndarray]


class Device:
    """Scores a pair by its number, in passes that end when the test says so; out of memory past `capacity` tokens."""

    def __init__(self, capacity: float = float("inf")) -> None:
        self.capacity = capacity
        self.passes: list[list[TokenPair]] = []
        self.running = False
        self.released = False
        self.verdicts: SimpleQueue[Exception | None] = SimpleQueue()

    def score(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        self.passes.append(list(pairs))
        self.running = True
        verdict = None if self.released else self.verdicts.get(timeout=30)
        if verdict is not None:
            raise verdict
        if sum(lengths(pairs)) > self.capacity:
            raise MemoryError
        return np.array(numbers(pairs), dtype=np.float32)

    async def next_pass(self) -> list[int]:
        """The lengths of the pairs in the pass that runs, once one does."""
        while not self.running:
            await asyncio.sleep(0)
        return lengths(self.passes[-1])

    async def busy_or_done(self, calls: Sequence[Call]) -> None:
        """Until a pass runs or nobody waits; before and after, everybody gets their turns of the loop."""
        await turns()
        while not self.running and not all(call.done() for call in calls):
            await asyncio.sleep(0)
        await turns()

    def finish(self, verdict: Exception | None = None) -> None:
        self.running = False
        self.verdicts.put(verdict)

    async def finish_all(self, *calls: Call) -> list[list[int]]:
        """Ends one pass after the other until the calls are done; the lengths in those that ended."""
        ended = []
        while not all(call.done() for call in calls):
            ended.append(await self.next_pass())
            self.finish()
            await self.busy_or_done(calls)
        return ended

    def release(self) -> None:
        self.released = True
        self.verdicts.put(None)


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


unused_numbers = count(1)


def pairs_of(*of_lengths: int) -> list[TokenPair]:
    """New pairs of these lengths, whose token ids are the number of the pair."""
    return [TokenPair([next(unused_numbers)] * length, None) for length in of_lengths]


def numbers(pairs: Sequence[TokenPair]) -> list[int]:
    return [int(pair.input_ids[0]) for pair in pairs]


def lengths(pairs: Sequence[TokenPair]) -> list[int]:
    return [len(pair.input_ids) for pair in pairs]


async def submit(lanes: Lanes, pairs: Sequence[TokenPair], lane: Lane = ONLINE) -> Call:
    """A call that has reached its lane."""
    [call] = await submit_together(lanes, pairs, lane=lane)
    return call


async def submit_together(lanes: Lanes, *submissions: Sequence[TokenPair], lane: Lane = ONLINE) -> list[Call]:
    """Calls of the same moment, in this order; what they bring may share the next pass."""
    calls = [asyncio.create_task(lanes.logits(pairs, lane)) for pairs in submissions]
    await asyncio.sleep(0)
    return calls


def run(scenario: Callable[[Device, Lanes], Awaitable[None]], budget: int = 10, **device: float) -> Device:
    """Plays the scenario; whatever still runs at its end is let go."""

    async def play() -> Device:
        stand_in = Device(**device)
        lanes = Lanes(stand_in.score, budget)
        try:
            await scenario(stand_in, lanes)
        finally:
            stand_in.release()
        return stand_in

    return asyncio.run(play())


def test_logits_come_back_in_the_order_given() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        pairs = pairs_of(3, 9, 1, 5, 9)
        call = await submit(lanes, pairs)
        await device.finish_all(call)
        assert (call.result().dtype, call.result().tolist()) == (np.float32, numbers(pairs))

    run(scenario)


def test_no_pairs_need_no_pass() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        assert (await lanes.logits([])).shape == (0,)
        assert device.passes == []

    run(scenario)


def test_a_pass_begins_at_once_and_what_comes_meanwhile_shares_the_next_one() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        first = await submit(lanes, pairs_of(1))
        assert await device.next_pass() == [1]
        calls = [await submit(lanes, pairs_of(length)) for length in (2, 3)]
        assert (lanes.queued_tokens(), len(device.passes)) == (5, 1)
        assert await device.finish_all(first, *calls) == [[1], [2, 3]]

    run(scenario)


def test_a_large_submission_is_split_and_pairs_of_similar_length_share_a_pass() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        call = await submit(lanes, pairs_of(2, 5, 1, 4, 6, 2))
        assert await device.finish_all(call) == [[6], [5, 4], [2, 2, 1]]

    run(scenario)


def test_a_pair_longer_than_the_budget_goes_alone() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        online, bulk = await submit(lanes, pairs_of(11, 1)), await submit(lanes, pairs_of(12, 2), BULK)
        assert await device.finish_all(online, bulk) == [[11], [1], [12], [2]]

    run(scenario)


def test_online_pairs_go_before_bulk_pairs_that_came_earlier() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        await submit(lanes, pairs_of(7))
        await device.next_pass()
        bulk, online = await submit(lanes, pairs_of(3, 3), BULK), await submit(lanes, pairs_of(6))
        assert [lanes.queued_tokens(lane) for lane in (ONLINE, BULK, None)] == [6, 6, 12]
        assert await device.finish_all(online, bulk) == [[7], [6, 3], [3]]

    run(scenario)


def test_bulk_pairs_get_half_a_batch_at_most_even_where_nobody_waits_online() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        bulk = await submit(lanes, pairs_of(2, 2, 2, 2, 2), BULK)
        await device.next_pass()
        online = await submit(lanes, pairs_of(1))
        assert await device.finish_all(online, bulk) == [[2, 2], [1, 2, 2], [2]]

    run(scenario)


def test_a_bulk_pair_longer_than_half_a_batch_finds_its_place() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        await submit(lanes, pairs_of(10))
        await device.next_pass()
        bulk, online = await submit(lanes, pairs_of(8, 2), BULK), await submit(lanes, pairs_of(2))
        assert await device.finish_all(online, bulk) == [[10], [2, 8], [2]]

    run(scenario)


@given(own=st.integers(1, 20), bulk=st.integers(1, 10), earlier_passes=st.integers(0, 5))
def test_bulk_work_delays_an_online_request_by_one_batch_at_most(own: int, bulk: int, earlier_passes: int) -> None:
    """Counted in tokens from the beginning of the pass during which the request comes."""

    async def scenario(device: Device, lanes: Lanes) -> None:
        job = await submit(lanes, pairs_of(*[bulk] * 100), BULK)
        for _ in range(earlier_passes):
            await device.next_pass()
            device.finish()
        await device.next_pass()
        online = await submit(lanes, pairs_of(own))
        passes = await device.finish_all(online)
        assert len(passes) == 2
        assert sum(map(sum, passes)) <= own + lanes.max_batch_tokens
        job.cancel()

    run(scenario, budget=20)


def test_a_small_submission_overtakes_a_large_one() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        large = await submit(lanes, pairs_of(5, 5, 5, 5, 5, 5))
        await device.next_pass()
        small = await submit(lanes, pairs_of(1))
        assert await device.finish_all(small, large) == [[5, 5], [1, 5], [5, 5], [5]]

    run(scenario)


def test_a_large_submission_that_is_almost_served_is_not_overtaken() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        large = await submit(lanes, pairs_of(5, 5, 5))
        await device.next_pass()
        small = await submit(lanes, pairs_of(3, 3))
        assert await device.finish_all(small, large) == [[5, 5], [5, 3], [3]]

    run(scenario)


@pytest.mark.parametrize("lane", Lane)
def test_equal_submissions_are_served_as_they_come(lane: Lane) -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        submissions = [pairs_of(3, 2) for _ in range(5)]
        await device.finish_all(*await submit_together(lanes, *submissions, lane=lane))
        served = [number for batch in device.passes for number in numbers(batch)]
        assert served == [number for pairs in submissions for number in numbers(pairs)]

    run(scenario)


@given(st.lists(st.tuples(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.booleans()), max_size=20))
@example([([5] * 8, False), *[([1], False)] * 50])
@example([([5] * 8, False), *[([2], True)] * 50])
def test_a_submission_is_overtaken_by_no_more_tokens_than_it_has(arrivals: list[tuple[list[int], bool]]) -> None:
    """However many small ones keep coming. (After some arrivals a pass ends.)"""

    async def scenario(device: Device, lanes: Lanes) -> None:
        calls, submissions = [], []
        for of_lengths, a_pass_ends in arrivals:
            submissions.append(pairs_of(*of_lengths))
            calls.append(await submit(lanes, submissions[-1]))
            await device.next_pass()
            if a_pass_ends:
                device.finish()
                await device.busy_or_done(calls)
        await device.finish_all(*calls)
        served = [number for batch in device.passes for number in numbers(batch)]
        for place, submission in enumerate(submissions):
            before_its_last = served[: max(map(served.index, numbers(submission)))]
            later = [pair for pairs in submissions[place + 1 :] for pair in pairs]
            overtaking = [pair for pair in later if pair.input_ids[0] in before_its_last]
            assert sum(lengths(overtaking)) <= sum(lengths(submission))

    run(scenario)


def test_a_cancelled_caller_takes_along_what_is_in_no_batch_yet() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        leaver, other = await submit(lanes, pairs_of(6, 5, 4)), await submit(lanes, pairs_of(9, 9))
        assert await device.next_pass() == [6]
        leaver.cancel()
        await asyncio.sleep(0)
        assert lanes.queued_tokens() == 18
        assert await device.finish_all(other) == [[6], [9], [9]]
        assert leaver.cancelled()

    run(scenario)


def test_a_batch_without_the_pairs_of_a_caller_that_is_just_being_cancelled() -> None:
    """Cancelling takes a turn of the loop; what is composed in that turn goes without."""

    async def scenario(device: Device, lanes: Lanes) -> None:
        leaver = asyncio.create_task(lanes.logits(pairs_of(3)))
        stayer = asyncio.create_task(lanes.logits(pairs_of(4)))
        await asyncio.sleep(0)
        leaver.cancel()
        assert await device.finish_all(stayer) == [[4]]

    run(scenario)


def test_a_deadline_is_a_cancellation() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        await submit(lanes, pairs_of(10))
        await device.next_pass()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await lanes.logits(pairs_of(1, 2))
        assert lanes.queued_tokens() == 0

    run(scenario)


def test_an_error_reaches_the_submissions_of_its_batch_and_no_others() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        *hit, spared = await submit_together(lanes, pairs_of(1), pairs_of(8, 7), pairs_of(9, 9))
        assert await device.next_pass() == [1, 8]
        error = ValueError("no such token")
        device.finish(error)
        assert await device.finish_all(*hit, spared) == [[9], [9]]
        assert [call.exception() for call in hit] == [error, error]
        assert spared.exception() is None

    run(scenario)


def test_pairs_of_a_submission_that_failed_take_no_room_in_the_next_batch() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        failing, waiting = await submit_together(lanes, pairs_of(6, 5), pairs_of(8, 3))
        bulk = await submit(lanes, pairs_of(5), BULK)
        await device.next_pass()
        device.finish(ValueError())
        assert await device.finish_all(failing, waiting, bulk) == [[8], [3, 5]]

    run(scenario)


def test_logits_that_are_too_few_are_an_error_of_their_batch() -> None:
    async def scenario() -> None:
        lanes = Lanes(lambda pairs: np.zeros(len(pairs) - 1, dtype=np.float32), 10)
        with pytest.raises(ValueError, match="shorter"):
            await lanes.logits(pairs_of(1, 1))

    asyncio.run(scenario())


def test_a_batch_too_large_for_memory_is_halved_and_later_ones_are_smaller() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        pairs = pairs_of(*[1] * 8)
        calls = await submit_together(lanes, pairs, pairs_of(*[1] * 8))
        passes = await device.finish_all(*calls)
        assert [len(batch) for batch in passes] == [8, 4, 2, 2, 4, 2, 2, 2, 2, 2, 2]
        assert (calls[0].result().tolist(), lanes.max_batch_tokens) == (numbers(pairs), 2)

    run(scenario, budget=8, capacity=3)


def test_a_pair_too_large_for_memory_fails_alone_and_shrinks_no_later_batch() -> None:
    async def scenario(device: Device, lanes: Lanes) -> None:
        beside, hopeless = await submit_together(lanes, pairs_of(1, 1), pairs_of(7, 1))
        assert await device.finish_all(beside, hopeless) == [[1, 1, 7, 1], [1, 1], [7, 1], [7]]
        assert isinstance(hopeless.exception(), MemoryError)
        assert (beside.exception(), lanes.max_batch_tokens) == (None, 10)

    run(scenario, capacity=6)


def test_nothing_of_a_pass_that_ran_out_of_memory_is_alive_in_the_next_one() -> None:
    """Its tensors would be, as long as the traceback is."""

    class Activations:
        pass

    tensors: list[weakref.ref[Activations]] = []
    alive: list[int] = []

    def score(pairs: Sequence[TokenPair]) -> np.ndarray:
        alive.append(sum(ref() is not None for ref in tensors))
        activations = Activations()
        tensors.append(weakref.ref(activations))
        if lengths(pairs) != [1]:
            raise MemoryError
        return np.zeros(1, dtype=np.float32)

    async def scenario() -> None:
        lanes = Lanes(score, 100)
        calls = await submit_together(lanes, pairs_of(2), pairs_of(1, 1), pairs_of(1, 1, 1))
        await asyncio.wait(calls)
        assert [type(call.exception()) for call in calls] == [MemoryError, type(None), type(None)]

    asyncio.run(scenario())
    assert len(alive) > 5
    assert set(alive) == {0}


def test_what_is_measured() -> None:
    passes: list[tuple[int, int, float]] = []
    waits: list[tuple[Lane, float]] = []

    async def scenario() -> None:
        device = Device()
        lanes = Lanes(
            device.score,
            10,
            on_pass=lambda *measured: passes.append(measured),
            on_wait=lambda *measured: waits.append(measured),
        )
        first = await submit(lanes, pairs_of(3, 4))
        await device.next_pass()
        second = await submit(lanes, pairs_of(5), BULK)
        submitted = time.monotonic()
        while time.monotonic() == submitted:
            await asyncio.sleep(0)
        finished = time.monotonic()
        await device.finish_all(first, second)
        assert [measured[:2] for measured in passes] == [(2, 7), (1, 5)]
        assert passes[0][2] >= finished - submitted
        assert [lane for lane, _ in waits] == [ONLINE, BULK]
        assert waits[0][1] >= 0
        assert waits[1][1] >= finished - submitted

    asyncio.run(scenario())


def test_the_lanes_survive_a_hook_that_fails() -> None:
    async def scenario() -> None:
        outcomes: list[Exception | None] = [KeyError("no such metric"), None]

        def on_pass(*_: object) -> None:
            if (error := outcomes.pop(0)) is not None:
                raise error

        lanes = Lanes(lambda pairs: np.array(numbers(pairs), dtype=np.float32), 10, on_pass=on_pass)
        with pytest.raises(KeyError):
            await lanes.logits(pairs_of(1))
        assert len(await lanes.logits(pairs_of(1))) == 1

    asyncio.run(scenario())


@dataclass
class Caller:
    """One caller, and what it is owed."""

    lane: Lane
    pairs: list[TokenPair]
    call: Call
    waiting: dict[int, int]
    """Number and length of each pair that was in no pass yet."""
    error: BaseException | None = None
    """Owed instead of the logits."""

    def fails(self, error: BaseException) -> None:
        self.error = error
        self.waiting.clear()


class Play:
    """A script played on the lanes, and what must be true after each of its steps."""

    def __init__(self, device: Device, lanes: Lanes) -> None:
        self.device = device
        self.lanes = lanes
        self.first_budget = lanes.max_batch_tokens
        self.callers: list[Caller] = []
        self.checked_passes = 0
        self.to_repeat: set[int] = set()
        """Numbers of pairs whose pass ran out of memory."""

    async def act(self, verb: str, argument: Any) -> None:
        if isinstance(verb, Lane):
            pairs = pairs_of(*argument)
            call = await submit(self.lanes, pairs, verb)
            waiting = dict(zip(numbers(pairs), argument, strict=True))
            self.callers.append(Caller(verb, pairs, call, waiting))
        elif verb == "cancel":
            for caller in self.callers[argument : argument + 1]:
                if caller.call.cancel():
                    caller.fails(asyncio.CancelledError())
        elif self.device.running:
            self.finish(argument)
        await self.device.busy_or_done([caller.call for caller in self.callers])
        self.check()

    def finish(self, verdict: Exception | None) -> None:
        batch = self.device.passes[-1]
        if verdict is None and sum(lengths(batch)) > self.device.capacity:
            if len(batch) == 1:
                verdict = MemoryError()
            else:
                self.to_repeat |= set(numbers(batch))
        if verdict is not None:
            for caller in self.callers:
                if caller.error is None and set(numbers(batch)) & set(numbers(caller.pairs)):
                    caller.fails(verdict)
        self.device.finish(verdict)

    def check(self) -> None:
        for batch in self.device.passes[self.checked_passes :]:
            self.check_pass(batch)
        self.checked_passes = len(self.device.passes)
        for lane in Lane:
            assert self.lanes.queued_tokens(lane) == sum(self.waiting(lane))
        assert self.device.running or not self.lanes.queued_tokens()

    def check_pass(self, batch: list[TokenPair]) -> None:
        in_lane: dict[Lane, list[int]] = {lane: [] for lane in Lane}
        repeated = self.to_repeat & set(numbers(batch))
        self.to_repeat -= repeated
        for number, length in zip(numbers(batch), lengths(batch), strict=True):
            [caller] = [caller for caller in self.callers if number in numbers(caller.pairs)]
            in_lane[caller.lane].append(length)
            assert caller.error is None
            assert number in (repeated or caller.waiting)
            caller.waiting.pop(number, None)
        budget = self.first_budget if repeated else self.lanes.max_batch_tokens
        assert sum(lengths(batch)) <= budget or len(batch) == 1
        if in_lane[BULK] and not repeated:
            assert sum(in_lane[BULK]) <= budget // 2 or len(in_lane[BULK]) == 1
            assert not self.waiting(ONLINE) or sum(in_lane[ONLINE]) + max(self.waiting(ONLINE)) > budget

    def waiting(self, lane: Lane) -> list[int]:
        return [length for caller in self.callers if caller.lane == lane for length in caller.waiting.values()]

    async def end(self) -> None:
        while self.device.running:
            await self.act("finish", None)
        for caller in self.callers:
            if caller.error is None:
                assert caller.call.result().tolist() == numbers(caller.pairs)
            elif isinstance(caller.error, asyncio.CancelledError):
                assert caller.call.cancelled()
            else:
                assert caller.call.exception() is caller.error


submitting = st.tuples(st.sampled_from([*Lane]), st.lists(st.integers(1, 12), min_size=1, max_size=6))
cancelling = st.tuples(st.just("cancel"), st.integers(0, 9))
finishing = st.tuples(st.just("finish"), st.one_of(st.none(), st.none(), st.builds(ValueError)))


@given(
    script=st.lists(st.one_of(submitting, submitting, cancelling, finishing, finishing), max_size=30),
    budget=st.integers(1, 30),
    capacity=st.one_of(st.just(float("inf")), st.integers(1, 30)),
)
def test_everybody_gets_exactly_what_is_theirs(script: list[tuple[str, Any]], budget: int, capacity: float) -> None:
    """Whatever comes, goes, fails and runs out of memory, in whatever order."""

    async def scenario(device: Device, lanes: Lanes) -> None:
        play = Play(device, lanes)
        for verb, argument in script:
            await play.act(verb, argument)
        await play.end()

    run(scenario, budget=budget, capacity=capacity)
