"""Two queues of pairs -> batches under a token budget, composed when the device is free. No Ray, no torch, no timer.

A batch takes online pairs first. Bulk pairs fill what is left of the budget, at most half of it. So bulk work delays
an online request by one batch in all: half of the batch that runs when the request comes, and half of its own. Nothing
is lost by that as long as half a budget keeps the device busy; choose the budget accordingly.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import is_out_of_memory

if TYPE_CHECKING:
    from pipelines.packing import TokenPair  # torch comes with it


class Lane(StrEnum):
    """The two kinds of callers that wait for scores."""

    ONLINE = "online"
    """A request that somebody waits for: its pairs go first."""
    BULK = "bulk"
    """A job or a stream: its pairs take what is left."""


def ignore(*_: object) -> None:
    """The hook that does nothing."""


class Lanes:
    """Scores the pairs of many callers, one batch at a time; all calls come from one event loop.

    A batch that is too large for the memory is halved, down to single pairs, and `max_batch_tokens` falls with it.
    """

    def __init__(
        self,
        score: Callable[[Sequence[TokenPair]], np.ndarray],
        max_batch_tokens: int,
        *,
        on_pass: Callable[[int, int, float], object] = ignore,
        on_wait: Callable[[Lane, float], object] = ignore,
    ) -> None:
        """`score` may block: it runs in a thread of its own.

        `on_pass` is told pairs, tokens and seconds of each pass; `on_wait` the lane of each call that was answered
        and the seconds until the device took its first pair.
        """
        self.max_batch_tokens = max_batch_tokens
        self._score = score
        self._on_pass = on_pass
        self._on_wait = on_wait
        self._queues = {lane: Queue() for lane in Lane}
        self._device = ThreadPoolExecutor(1, "device")
        self._serving: asyncio.Task[None] | None = None

    async def logits(self, pairs: Sequence[TokenPair], lane: Lane = Lane.ONLINE) -> np.ndarray:
        """The logit of each pair, float32 [len(pairs)], in the order given.

        Raises what `score` raised for a batch with one of these pairs. When the caller is cancelled, its pairs that
        are in no batch yet leave the queue.
        """
        if not pairs:
            return np.empty(0, dtype=np.float32)
        queue = self._queues[lane]
        submission = Submission(pairs)
        queue.add(submission)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        try:
            error = await submission.outcome
        finally:
            queue.drop(submission)
        if error is not None:
            raise error
        self._on_wait(lane, submission.taken_at - submission.came_at)
        return submission.logits

    def queued_tokens(self, lane: Lane | None = None) -> int:
        """Tokens that are in no batch yet, of one lane or of both."""
        return sum(self._queues[each].tokens for each in (Lane if lane is None else [lane]))

    async def _serve(self) -> None:
        while batch := self._compose():
            await self._settle(batch)

    def _compose(self) -> list[Slot]:
        budget = self.max_batch_tokens
        batch = self._queues[Lane.ONLINE].take(budget, first=inf)
        left = budget - tokens_of(batch)
        # A single bulk pair may be longer than half the budget.
        batch += self._queues[Lane.BULK].take(min(left, budget // 2), first=left if batch else inf)
        return batch

    async def _settle(self, batch: list[Slot]) -> bool:
        """Gives each pair its logit or error, in smaller passes where memory ends. True if memory held every pair."""
        batch = [(submission, index) for submission, index in batch if not submission.outcome.done()]
        if not batch:
            return True
        try:
            scored = await asyncio.get_running_loop().run_in_executor(self._device, self._attempt, batch)
            if scored is not None:
                logits, seconds = scored
                self._on_pass(len(batch), tokens_of(batch), seconds)
                for (submission, index), logit in zip(batch, logits, strict=True):
                    submission.settle(index, logit)
                return True
        except Exception as error:
            for submission, _ in batch:
                submission.fail(error)
            return not is_out_of_memory(error)
        middle = len(batch) // 2
        sufficed = [await self._settle(half) for half in (batch[:middle], batch[middle:])]
        # Where a pair does not fit even alone, the size of the batch is not to blame.
        if all(sufficed):
            self.max_batch_tokens = min(self.max_batch_tokens, tokens_of(batch) // 2)
        return all(sufficed)

    def _attempt(self, batch: list[Slot]) -> tuple[np.ndarray, float] | None:
        """Logits and seconds of one pass; None where memory ends but fewer pairs may fit.

        The traceback ends here: it would keep the tensors of the failed pass alive during the next one.
        """
        start = time.perf_counter()
        try:
            logits = self._score([submission.pairs[index] for submission, index in batch])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise error.with_traceback(None) from None
            return None
        return logits, time.perf_counter() - start


class Queue:
    """The submissions of one lane that have pairs in no batch yet, in the order in which they are served.

    A new one overtakes, from the back, those that still wait with more tokens. Each lets only as many tokens pass as
    it has itself: so a small one does not wait for a large one, equal ones are served as they come, and none waits
    forever.
    """

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.tokens = 0

    def add(self, submission: Submission) -> None:
        tokens = submission.tokens
        place = len(self.submissions)
        while place and tokens < min((ahead := self.submissions[place - 1]).tokens, ahead.patience):
            ahead.patience -= tokens
            place -= 1
        self.submissions.insert(place, submission)
        self.tokens += tokens

    def take(self, room: int, first: float) -> list[Slot]:
        """Removes pairs, strictly in order, while they fit `room`; the first one needs to fit `first` only."""
        taken: list[Slot] = []
        now = time.monotonic()
        while self.submissions:
            submission = self.submissions[0]
            if submission.outcome.done():  # failed or cancelled, and its caller had no turn of the loop since
                self.drop(submission)
                continue
            length = submission.lengths[submission.waiting[-1]]
            if length > (room if taken else first):
                break
            taken.append((submission, submission.waiting.pop()))
            submission.taken_at = min(submission.taken_at, now)
            submission.tokens -= length
            self.tokens -= length
            room -= length
            if not submission.waiting:
                del self.submissions[0]
        return taken

    def drop(self, submission: Submission) -> None:
        """Removes those pairs of the submission that are in no batch yet."""
        if submission.waiting:
            self.tokens -= submission.tokens
            submission.waiting.clear()
            self.submissions.remove(submission)


class Submission:
    """The pairs of one caller, and how far they are."""

    def __init__(self, pairs: Sequence[TokenPair]) -> None:
        self.pairs = pairs
        self.lengths = [len(pair.input_ids) for pair in pairs]
        self.waiting = sorted(range(len(pairs)), key=self.lengths.__getitem__)
        """Indices of the pairs in no batch yet; taken from the end, longest first, so that alike ones share a pass."""
        self.tokens = sum(self.lengths)
        """Of the pairs in no batch yet."""
        self.patience = self.tokens
        """Tokens that may still overtake."""
        self.logits = np.empty(len(pairs), dtype=np.float32)
        self.missing = len(pairs)
        """Logits that are not there yet."""
        self.outcome: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        """Done when all logits are there (None), a pass failed, or the caller was cancelled."""
        self.came_at = time.monotonic()
        self.taken_at = inf
        """When the device took the first pair."""

    def settle(self, index: int, logit: float) -> None:
        self.logits[index] = logit
        self.missing -= 1
        if not self.missing and not self.outcome.done():
            self.outcome.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_result(error)


Slot = tuple[Submission, int]
"""A pair: its submission and its index there."""


def tokens_of(batch: Sequence[Slot]) -> int:
    """Tokens of a batch."""
    return sum(submission.lengths[index] for submission, index in batch)
