"""Decides how much may wait before requests are refused, and when they may come again. Knows no HTTP and no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from serve.errors import OverloadedError, TooManyDocumentsError
from serve.lanes import Lane

UNMEASURED_SECONDS = 5.0
"""Seconds after which a refused request may come again while no speed is known yet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait at one endpoint."""

    wait_seconds: float
    """Of an online request: more than can be answered in so much time is not admitted, once the speed is known."""
    tokens: int
    """Of either lane, whatever the speed."""
    documents: int
    """Of one request."""


def unmeasured() -> float | None:
    """The speed of a server that has answered nothing yet."""
    return None


class Admission:
    """Admits requests to one endpoint; each lane has a budget of its own, so that bulk work refuses nobody online.

    A request is admitted as long as the tokens admitted before it are below the budget, however many it brings: one
    large request on an idle server is never refused. The budget of the online lane are the tokens that are answered
    within the wait that is allowed.
    """

    def __init__(self, limits: Limits, tokens_per_second: Callable[[], float | None] = unmeasured) -> None:
        """`tokens_per_second` is what this endpoint can count on now, None while it is not known."""
        self.limits = limits
        self._speed = tokens_per_second
        self._backlogs = {lane: Backlog() for lane in Lane}

    def check(self, documents: int, lane: Lane = Lane.ONLINE) -> None:
        """Raises what `admit` would raise; called before tokenizing, so that a refusal costs next to nothing."""
        if documents > self.limits.documents:
            raise TooManyDocumentsError(documents, self.limits.documents)
        if self._is_full(lane):
            raise OverloadedError(self._retry_after(lane))

    @contextmanager
    def admit(self, tokens: int, documents: int, lane: Lane = Lane.ONLINE) -> Iterator[None]:
        """Counts the request until it is answered, fails or is cancelled.

        Raises OverloadedError where the lane is full, TooManyDocumentsError for more documents than a request may have.
        """
        self.check(documents, lane)
        backlog = self._backlogs[lane]
        # Half of the budget at most, since the lanes let small requests overtake a large one.
        charge = min(tokens, ceil(self._budget(lane) / 2))
        backlog.add(tokens, charge)
        try:
            yield
        finally:
            backlog.remove(tokens, charge)

    async def room(self, lane: Lane) -> None:
        """Waits until the lane is not full: for callers that are kept waiting instead of being refused."""
        while self._is_full(lane):
            await self._backlogs[lane].next_removal()

    def waiting_tokens(self, lane: Lane) -> int:
        """Tokens of the requests that were admitted and are not answered yet."""
        return self._backlogs[lane].tokens

    def _budget(self, lane: Lane) -> float:
        speed = self._speed() if lane is Lane.ONLINE else None
        return self.limits.tokens if speed is None else min(self.limits.tokens, self.limits.wait_seconds * speed)

    def _is_full(self, lane: Lane) -> bool:
        charged = self._backlogs[lane].charged
        return charged > 0 and charged >= self._budget(lane)

    def _retry_after(self, lane: Lane) -> float:
        """Seconds until the backlog is gone at the present speed; 1 to 60."""
        speed = self._speed()
        seconds = UNMEASURED_SECONDS if speed is None else self._backlogs[lane].tokens / speed
        return min(max(seconds, 1.0), 60.0)


class Backlog:
    """The requests of one lane that wait."""

    def __init__(self) -> None:
        self.tokens = 0
        self.charged = 0
        """What they take of the budget."""
        self._removal: asyncio.Future[None] | None = None

    def add(self, tokens: int, charge: int) -> None:
        self.tokens += tokens
        self.charged += charge

    def remove(self, tokens: int, charge: int) -> None:
        self.tokens -= tokens
        self.charged -= charge
        if self._removal is not None:
            self._removal.set_result(None)
            self._removal = None

    async def next_removal(self) -> None:
        """Waits until a request leaves; all that wait here go on in the order in which they came."""
        if self._removal is None:
            self._removal = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._removal)  # one who gives up does not end the others' wait
