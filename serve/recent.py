"""Recent: what an open route tells, asked for once in a while and not once for every stranger who wants to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The result of a call, for all who want it within `seconds`; one call at a time. Errors are results too."""

    def __init__(self, call: Callable[[], Awaitable[Value]], seconds: float) -> None:
        self.call = call
        self.seconds = seconds
        self.running: asyncio.Task[Value] | None = None
        self.ended_at = 0.0

    async def get(self) -> Value:
        """The result; raises what the call raised."""
        if self.running is None or (self.running.done() and time.monotonic() - self.ended_at > self.seconds):
            self.running = asyncio.create_task(self._run())
        return await asyncio.shield(self.running)  # one who leaves does not end it for the others

    async def _run(self) -> Value:
        try:
            return await self.call()
        finally:
            self.ended_at = time.monotonic()
