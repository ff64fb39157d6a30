"""Decides how much may wait before requests are refused, and when they may come again. Knows no HTTP and no Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil

from serve.errors import OverloadedError, TooManyDocumentsError
from serve.lanes import Lane

HALF_LIFE_SECONDS = 30.0
"""A second of work this long ago counts half in the measured rate."""
UNMEASURED_SECONDS = 5.0
"""Seconds after which a refused request may come again while no request has been answered yet."""


class Admission:
    """Admits requests to one endpoint; each lane has a budget of its own, so that bulk work refuses nobody online.

    A request is admitted as long as the tokens admitted before it are below the budget, however many it brings: one
    large request on an idle server is never refused.
    """

    def __init__(
        self, budgets: Mapping[Lane, int], max_documents: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_documents = max_documents
        self._backlogs = {lane: Backlog(budget, clock) for lane, budget in budgets.items()}

    def check(self, documents: int, lane: Lane = Lane.ONLINE) -> None:
        """Raises what `admit` would raise; called before tokenizing, so that a refusal costs next to nothing."""
        if documents > self.max_documents:
            raise TooManyDocumentsError(documents, self.max_documents)
        if (backlog := self._backlogs[lane]).is_full():
            raise OverloadedError(backlog.retry_after())

    @contextmanager
    def admit(self, tokens: int, documents: int, lane: Lane = Lane.ONLINE) -> Iterator[None]:
        """Counts the request until it is answered, fails or is cancelled.

        Raises OverloadedError where the lane is full, TooManyDocumentsError for more than `max_documents`.
        """
        self.check(documents, lane)
        backlog = self._backlogs[lane]
        backlog.add(tokens)
        answered = False
        try:
            yield
            answered = True
        finally:
            backlog.remove(tokens, answered)

    async def room(self, lane: Lane) -> None:
        """Waits until the lane is not full: for callers that are kept waiting instead of being refused."""
        while (backlog := self._backlogs[lane]).is_full():
            await backlog.next_removal()

    def waiting_tokens(self, lane: Lane) -> int:
        """Tokens of the requests that were admitted and are not answered yet."""
        return self._backlogs[lane].tokens


class Backlog:
    """The requests of one lane that wait, and the rate at which requests were answered while any waited."""

    def __init__(self, budget: int, clock: Callable[[], float]) -> None:
        self.budget = budget
        self.clock = clock
        self.tokens = 0
        self.charged = 0
        self.answered_tokens = 0.0
        self.busy_seconds = 0.0
        self.updated_at = clock()
        self._removal: asyncio.Future[None] | None = None

    def is_full(self) -> bool:
        return self.charged >= self.budget

    def charge(self, tokens: int) -> int:
        """What a request takes of the budget: half at most, since the lanes let small requests overtake a large one."""
        return min(tokens, ceil(self.budget / 2))

    def add(self, tokens: int) -> None:
        self.update()
        self.tokens += tokens
        self.charged += self.charge(tokens)

    def remove(self, tokens: int, answered: bool) -> None:
        self.update()
        self.tokens -= tokens
        self.charged -= self.charge(tokens)
        self.answered_tokens += tokens * answered
        if self._removal is not None:
            self._removal.set_result(None)
            self._removal = None

    async def next_removal(self) -> None:
        """Waits until a request leaves; all that wait here go on in the order in which they came."""
        if self._removal is None:
            self._removal = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._removal)  # one who gives up does not end the others' wait

    def update(self) -> None:
        """Lets earlier measurements fade by the time that was spent working since the last update."""
        now = self.clock()
        if self.tokens:
            elapsed = now - self.updated_at
            fading = 0.5 ** (elapsed / HALF_LIFE_SECONDS)
            self.answered_tokens *= fading
            self.busy_seconds = self.busy_seconds * fading + elapsed
        self.updated_at = now

    def retry_after(self) -> float:
        """Seconds until the backlog is gone at the measured rate; 1 to 60."""
        self.update()
        seconds = UNMEASURED_SECONDS
        if self.answered_tokens:
            seconds = self.tokens * self.busy_seconds / self.answered_tokens
        return min(max(seconds, 1.0), 60.0)
