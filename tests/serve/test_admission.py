"""Who is admitted, who is told to come back, and when."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, nullcontext
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.admission import UNMEASURED_SECONDS, Admission
from serve.errors import OverloadedError, TooManyDocumentsError
from serve.lanes import Lane

ONLINE, BULK = Lane.ONLINE, Lane.BULK


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock | None = None) -> Admission:
    return Admission({ONLINE: 1_000, BULK: 500}, max_documents=100, clock=clock or Clock())


def retry_after(door: Admission) -> int:
    with pytest.raises(OverloadedError) as refusal:
        door.check(1)
    return int(refusal.value.headers["Retry-After"])


def test_requests_are_admitted_until_the_budget_is_used_and_again_when_they_are_answered() -> None:
    door = admission()
    with door.admit(400, 1):
        with door.admit(400, 1), door.admit(400, 1):
            assert door.waiting_tokens(ONLINE) == 1_200
            with pytest.raises(OverloadedError), door.admit(1, 1):
                pass
        assert door.waiting_tokens(ONLINE) == 400
        with door.admit(1, 1):
            pass


def test_one_large_request_on_an_idle_server_is_admitted() -> None:
    with admission().admit(1_000_000, 1):
        pass


def test_a_large_request_leaves_room_for_small_ones() -> None:
    """They overtake it in the lanes; of the budget it takes half."""
    door = admission()
    with door.admit(1_000_000, 1), door.admit(400, 1), door.admit(100, 1), pytest.raises(OverloadedError):
        door.check(1)


@pytest.mark.parametrize(("full", "other"), [(BULK, ONLINE), (ONLINE, BULK)])
def test_a_full_lane_leaves_the_other_one_alone(full: Lane, other: Lane) -> None:
    door = admission()
    with door.admit(10_000, 1, full), door.admit(10_000, 1, full):
        with door.admit(1, 1, other):
            pass
        with pytest.raises(OverloadedError):
            door.check(1, full)


def test_too_many_documents_are_refused_before_they_are_counted() -> None:
    door = admission()
    door.check(100)
    with pytest.raises(TooManyDocumentsError, match=r"101 documents.*100"):
        door.check(101)
    with pytest.raises(TooManyDocumentsError), door.admit(1, 101):
        pass
    assert door.waiting_tokens(ONLINE) == 0


def test_a_request_that_fails_or_is_cancelled_frees_its_place() -> None:
    door = admission()

    async def request() -> None:
        with door.admit(1_000, 1):
            await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        assert door.waiting_tokens(ONLINE) == 1_000
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(scenario())
    with pytest.raises(KeyError), door.admit(1_000, 1):
        raise KeyError
    assert door.waiting_tokens(ONLINE) == 0
    door.check(1)


@given(st.lists(st.tuples(st.integers(0, 3_000), st.booleans()), max_size=30), st.randoms(use_true_random=False))
def test_the_count_is_that_of_the_requests_inside(visits: list[tuple[int, bool]], random: Random) -> None:
    """In whatever order they come and go."""
    door = admission()
    inside: list[tuple[int, ExitStack]] = []
    for tokens, leaves in visits:
        if leaves and inside:
            inside.pop(random.randrange(len(inside)))[1].close()
        with ExitStack() as request:
            full = sum(min(each, 500) for each, _ in inside) >= 1_000
            with pytest.raises(OverloadedError) if full else nullcontext():
                request.enter_context(door.admit(tokens, 1))
                inside.append((tokens, request.pop_all()))
        assert door.waiting_tokens(ONLINE) == sum(each for each, _ in inside)


def work(door: Admission, clock: Clock, tokens: int, seconds: float, error: Exception | None = None) -> None:
    with door.admit(tokens, 1):
        clock.now += seconds
        if error is not None:
            raise error


@pytest.mark.parametrize(("waiting", "seconds"), [(4_000, 8), (4_001, 9), (1_000, 2), (1_000_000, 60)])
def test_one_is_told_to_come_again_when_the_backlog_will_be_gone(waiting: int, seconds: int) -> None:
    clock = Clock()
    door = admission(clock)
    work(door, clock, tokens=1_000, seconds=2)
    clock.now += 1_000  # idle: says nothing about the rate
    with door.admit(waiting - 500, 1), door.admit(500, 1):
        assert retry_after(door) == seconds


def test_one_is_never_told_to_come_again_at_once() -> None:
    clock = Clock()
    door = admission(clock)
    work(door, clock, tokens=1_000_000, seconds=1)
    with door.admit(500, 1), door.admit(500, 1):
        assert retry_after(door) == 1


def test_before_anything_was_answered_one_is_told_a_guess() -> None:
    door = admission()
    with door.admit(500, 1), door.admit(500, 1):
        assert retry_after(door) == UNMEASURED_SECONDS


def test_the_rate_is_that_of_all_requests_together() -> None:
    clock = Clock()
    door = admission(clock)
    with door.admit(400, 1), door.admit(600, 1):
        clock.now += 1
    with door.admit(1_500, 1), door.admit(1_500, 1):
        assert retry_after(door) == 3


def test_recent_work_counts_more() -> None:
    clock = Clock()
    door = admission(clock)
    work(door, clock, tokens=100_000, seconds=1)
    for _ in range(10):
        work(door, clock, tokens=1_000, seconds=30)
    with door.admit(500, 1), door.admit(500, 1):
        assert 25 < retry_after(door) <= 30


def test_a_server_that_stands_still_is_not_expected_back_soon() -> None:
    clock = Clock()
    door = admission(clock)
    work(door, clock, tokens=1_000, seconds=1)
    with door.admit(500, 1), door.admit(500, 1):
        assert retry_after(door) == 1
        clock.now += 60
        assert retry_after(door) == 60


def test_requests_that_failed_are_no_work_done() -> None:
    clock = Clock()
    door = admission(clock)
    work(door, clock, tokens=1_000, seconds=1)
    with pytest.raises(TimeoutError):
        work(door, clock, tokens=1_000_000, seconds=0.8, error=TimeoutError())
    with door.admit(500, 1), door.admit(500, 1):
        assert retry_after(door) == 2


def test_who_can_wait_is_let_in_when_there_is_room_and_one_who_gives_up_holds_up_nobody() -> None:
    async def wait() -> list[int]:
        door = admission()
        inside: list[int] = []

        async def enter(number: int) -> None:
            await door.room(BULK)
            with door.admit(500, 1, BULK):
                inside.append(number)
                assert door.waiting_tokens(BULK) <= 1_000  # each takes half of the budget
                await asyncio.sleep(0)

        with door.admit(500, 1, BULK), door.admit(500, 1, BULK):
            waiting = [asyncio.create_task(enter(number)) for number in range(4)]
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.sleep(0)
            assert inside == []
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one).__name__ for one in outcomes] == ["NoneType", "CancelledError", "NoneType", "NoneType"]
        return inside

    assert asyncio.run(wait()) == [0, 2, 3]
