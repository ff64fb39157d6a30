"""What is asked for once in a while, whoever wants to know."""

from __future__ import annotations

import asyncio

import pytest

from serve.recent import Recent


class Calls:
    """Counts calls, each of which takes a moment; `fails` makes them raise."""

    def __init__(self) -> None:
        self.number = 0
        self.fails = False

    async def __call__(self) -> int:
        self.number += 1
        number = self.number
        await asyncio.sleep(0.01)
        if self.fails:
            raise ValueError(number)
        return number


def test_all_who_ask_at_once_get_the_result_of_one_call() -> None:
    async def ask() -> list[int]:
        recent = Recent(Calls(), seconds=60)
        return [*await asyncio.gather(*(recent.get() for _ in range(9))), await recent.get()]

    assert asyncio.run(ask()) == [1] * 10


def test_what_is_old_is_asked_for_again() -> None:
    async def ask() -> list[int]:
        recent = Recent(Calls(), seconds=0)
        return [await recent.get(), await recent.get()]

    assert asyncio.run(ask()) == [1, 2]


def test_an_error_is_for_all_who_asked_too() -> None:
    calls = Calls()
    calls.fails = True

    async def ask() -> None:
        recent = Recent(calls, seconds=60)
        for one in await asyncio.gather(*(recent.get() for _ in range(9)), return_exceptions=True):
            assert isinstance(one, ValueError)
        with pytest.raises(ValueError, match="1"):
            await recent.get()

    asyncio.run(ask())
    assert calls.number == 1


def test_one_who_leaves_does_not_end_it_for_the_others() -> None:
    async def ask() -> int:
        recent = Recent(Calls(), seconds=60)
        first = asyncio.create_task(recent.get())
        second = asyncio.create_task(recent.get())
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(ask()) == 1
