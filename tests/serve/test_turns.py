"""Who is tokenized when: few at once, and nobody waits for a large one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serve.errors import OverloadedError
from serve.lanes import Lane
from serve.turns import SMALL_AT_ONCE, SMALL_CHARACTERS, Turns

LARGE = SMALL_CHARACTERS + 1


def run(scenario: Callable[[Turns], Awaitable[None]], max_waiting: int = 100 * LARGE) -> None:
    async def started() -> None:
        await scenario(Turns(max_waiting))

    asyncio.run(started())


async def hold(
    turns: Turns, characters: int, inside: list[int], leave: asyncio.Event, lane: Lane = Lane.ONLINE
) -> None:
    async with turns.turn(characters, lane):
        inside.append(characters)
        await leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_few_small_ones_and_one_large_one_have_their_turn_at_once() -> None:
    async def scenario(turns: Turns) -> None:
        inside: list[int] = []
        leave = asyncio.Event()
        small = SMALL_AT_ONCE[Lane.ONLINE]
        sizes = [LARGE] * 3 + [1] * (small + 3)
        tasks = [asyncio.create_task(hold(turns, size, inside, leave)) for size in sizes]
        await settle()
        assert sorted(inside) == [1] * small + [LARGE]
        leave.set()
        await asyncio.gather(*tasks)
        assert sorted(inside) == sorted(sizes)

    run(scenario)


def test_who_gives_up_holds_up_nobody() -> None:
    async def scenario(turns: Turns) -> None:
        inside: list[int] = []
        leave = asyncio.Event()
        tasks = [asyncio.create_task(hold(turns, LARGE + i, inside, leave)) for i in range(4)]
        await settle()
        for task in tasks[:3]:
            task.cancel()
        await settle()
        assert inside == [LARGE, LARGE + 3]
        leave.set()
        await asyncio.wait(tasks)
        async with turns.turn(99 * LARGE), turns.turn(1):
            pass  # nothing of those that left is counted

    run(scenario)


def test_too_much_that_waits_is_refused_and_a_first_request_of_any_size_is_not() -> None:
    async def scenario(turns: Turns) -> None:
        async with turns.turn(10 * LARGE):
            with pytest.raises(OverloadedError):
                async with turns.turn(1):
                    raise AssertionError

    run(scenario, max_waiting=LARGE)


def test_nobody_online_waits_for_streams_or_is_refused_for_them_and_these_wait() -> None:
    async def scenario(turns: Turns) -> None:
        inside: list[int] = []
        leave = asyncio.Event()
        tasks = [asyncio.create_task(hold(turns, LARGE, inside, leave, Lane.BULK)) for _ in range(3)]
        await settle()
        assert inside == [LARGE]
        async with turns.turn(10 * LARGE), turns.turn(1):
            assert inside == [LARGE]
            leave.set()
            await asyncio.gather(*tasks)
        assert inside == [LARGE] * 3

    run(scenario, max_waiting=10 * LARGE + 1)
