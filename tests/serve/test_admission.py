"""Who is admitted, who is told to come back, and when."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, nullcontext
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.admission import UNMEASURED_SECONDS, Admission, Limits
from serve.errors import OverloadedError, TooManyDocumentsError
from serve.lanes import Lane

ONLINE, BULK = Lane.ONLINE, Lane.BULK


def admission(tokens_per_second: float | None = None) -> Admission:
    return Admission(Limits(wait_seconds=10, tokens=1_000, documents=100), lambda: tokens_per_second)


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


@pytest.mark.parametrize(("speed", "most"), [(None, 1_000), (10.0, 100), (50.0, 500), (100.0, 1_000), (1_000.0, 1_000)])
def test_what_is_answered_within_the_wait_is_admitted(speed: float | None, most: int) -> None:
    """Until the speed is known, and where that would be more, what the limit in tokens lets in."""
    door = admission(speed)
    with ExitStack() as inside:
        for _ in range(0, most, 50):
            inside.enter_context(door.admit(50, 1))
        with pytest.raises(OverloadedError):
            door.check(1)


def test_however_slow_the_server_is_a_first_request_is_admitted() -> None:
    door = admission(0.001)
    with door.admit(1_000_000, 1), pytest.raises(OverloadedError):
        door.check(1)
    door.check(1)


def test_the_speed_says_nothing_about_bulk_work_which_waits_anyway() -> None:
    door = admission(1.0)
    with door.admit(400, 1, BULK), door.admit(400, 1, BULK):
        door.check(1, BULK)
        door.check(1, ONLINE)


def test_a_speed_that_changes_leaves_the_count_right() -> None:
    speed: list[float | None] = [None]
    door = Admission(Limits(wait_seconds=10, tokens=1_000, documents=100), lambda: speed[0])
    with door.admit(400, 1):
        speed[0] = 10.0
        with pytest.raises(OverloadedError):
            door.check(1)
        speed[0] = 1_000.0
        with door.admit(5_000, 1):
            speed[0] = 1.0
    with door.admit(10, 1), door.admit(10, 1), pytest.raises(OverloadedError):
        door.check(1)
    door.check(1)


@pytest.mark.parametrize(("waiting", "seconds"), [(4_000, 8), (4_001, 9), (1_000, 2), (1_000_000, 60)])
def test_one_is_told_to_come_again_when_the_backlog_will_be_gone(waiting: int, seconds: int) -> None:
    door = Admission(Limits(wait_seconds=1, tokens=1_000, documents=100), lambda: 500.0)
    with door.admit(waiting - 500, 1), door.admit(500, 1):
        assert retry_after(door) == seconds


def test_one_is_never_told_to_come_again_at_once() -> None:
    door = admission(1_000_000)
    with door.admit(500, 1), door.admit(500, 1):
        assert retry_after(door) == 1


def test_before_anything_was_answered_one_is_told_a_guess() -> None:
    door = admission()
    with door.admit(500, 1), door.admit(500, 1):
        assert retry_after(door) == UNMEASURED_SECONDS


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
