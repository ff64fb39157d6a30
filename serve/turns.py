"""Who is tokenized when: few requests at once, so that what tokenizing takes of the memory is bounded.

The tokenizer holds some hundred bytes for each byte of text until a call ends. Requests wait for their turn here, and
whether there is room for them is looked at again when it comes: of many that come at once, those that will be refused
are not tokenized first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from serve.errors import OverloadedError
from serve.lanes import Lane

SMALL_CHARACTERS = 1 << 18
"""Up to so much text a request is a small one."""
SMALL_AT_ONCE = {Lane.ONLINE: 4, Lane.BULK: 1}
"""Of a stream one line, so that the processors are left to those who wait online."""
RETRY_SECONDS = 5.0
"""When a request that found too many waiting may come again."""


class Turns:
    """Small requests side by side, large ones one after the other beside them, so that none waits for a large one.

    Each lane has its own places: nobody online waits for a stream.
    """

    def __init__(self, max_waiting: int) -> None:
        """`max_waiting` is how many characters of online requests may wait for their turn."""
        self._max_waiting = max_waiting
        self._waiting = 0
        self._small = {lane: Row(at_once, f"small-{lane}-texts") for lane, at_once in SMALL_AT_ONCE.items()}
        self._large = {lane: Row(1, f"large-{lane}-texts") for lane in Lane}

    @asynccontextmanager
    async def turn(self, characters: int, lane: Lane = Lane.ONLINE) -> AsyncIterator[ThreadPoolExecutor]:
        """The turn of a request with so much text, which is tokenized in the threads that this brings.

        Raises OverloadedError where too much waits online for its turn already. In the bulk lane whatever comes waits:
        a stream has few lines in work.
        """
        counted = characters if lane is Lane.ONLINE else 0
        if self._waiting and counted and self._waiting + counted > self._max_waiting:
            raise OverloadedError(RETRY_SECONDS)
        self._waiting += counted
        try:
            row = (self._small if characters <= SMALL_CHARACTERS else self._large)[lane]
            async with row.places:
                yield row.threads
        finally:
            self._waiting -= counted


class Row:
    """Those who wait for the same places. A caller that leaves frees its place, and its thread when that has ended."""

    def __init__(self, at_once: int, name: str) -> None:
        self.places = asyncio.Semaphore(at_once)
        self.threads = ThreadPoolExecutor(at_once, name)
