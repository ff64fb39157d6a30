"""/v1/rerank/stream: a request a line in, an answer a line out as each is ready, in the bulk lane.

Reading and answering go on at once. What bounds the memory: so many lines are in work at a time, and a line counts as
in work until the client has taken its answer; so a client that does not read is not read from either.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve.errors import DeadlineError, Dialect, PayloadTooLargeError, answer_to
from serve.lanes import Lane
from serve.schemas import Served, StreamRequest, read_json, sent_id, stream_line

if TYPE_CHECKING:
    from serve.endpoint import Endpoint

LINES_IN_WORK = 32
UNREAD_BYTES = 8 << 20
"""Answers that may wait for the client to read them."""
SILENT_SECONDS = 30.0
"""Without a line in or out, after which the stream ends."""


async def answer_stream(endpoint: Endpoint, body: AsyncIterator[bytes], request_id: str) -> AsyncIterator[bytes]:
    """The lines of the answer."""
    stream = Stream(endpoint, request_id)
    reading = asyncio.ensure_future(stream.read(body))
    try:
        while (line := await stream.next_answer(reading)) is not None:
            yield line
    except TimeoutError:
        error = answer_to(DeadlineError(SILENT_SECONDS), Dialect.JINA, request_id)
        yield stream_line(0, None, error.line)
    finally:
        reading.cancel()
        for work in stream.in_work:
            work.cancel()


class Stream:
    """One stream: lines in work and answers that wait."""

    def __init__(self, endpoint: Endpoint, request_id: str) -> None:
        self.endpoint = endpoint
        self.request_id = request_id
        self.in_work: set[asyncio.Task[None]] = set()
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.unread_bytes = 0
        self.changed = asyncio.Condition()

    async def read(self, body: AsyncIterator[bytes]) -> None:
        """Starts work on each line, as long as there is room for its answer."""
        number = 0
        async for line in lines_of(body, self.endpoint.args.max_body_bytes):
            number += 1
            if not (line.strip() if isinstance(line, bytes) else True):
                continue
            async with self.changed:
                await self.changed.wait_for(self._has_room)
            work = asyncio.create_task(self._answer(number, line))
            self.in_work.add(work)
            work.add_done_callback(self.in_work.discard)

    async def next_answer(self, reading: asyncio.Future[None]) -> bytes | None:
        """The next line out; None after the last. Raises TimeoutError after SILENT_SECONDS without progress."""
        waiting = asyncio.ensure_future(self.answers.get())
        try:
            while not waiting.done():
                others = {reading} if not reading.done() else set(self.in_work)
                if reading.done() and not others and self.answers.empty() and not waiting.done():
                    reading.result()  # raises what reading raised: the client is gone
                    return None
                done, _ = await asyncio.wait(
                    {waiting, *others}, timeout=SILENT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if not done and not self.in_work:
                    raise TimeoutError
            line = waiting.result()
        finally:
            waiting.cancel()
        async with self.changed:
            self.unread_bytes -= len(line)
            self.changed.notify_all()
        return line

    def _has_room(self) -> bool:
        return len(self.in_work) < LINES_IN_WORK and self.unread_bytes < UNREAD_BYTES

    async def _answer(self, number: int, line: bytes | PayloadTooLargeError) -> None:
        line_id: Any = None
        try:
            if isinstance(line, PayloadTooLargeError):
                raise line
            value = read_json(line)
            line_id = sent_id(value)
            request = StreamRequest.model_validate(value)
            tasks = request.tasks()
            rankings = await self.endpoint.rank(tasks, Lane.BULK)
            args = self.endpoint.args
            served = Served(args.name, self.request_id, args.return_documents)
            content: Any = request.answer(tasks, rankings, served)
        except (Exception, ValidationError) as error:
            content = answer_to(error, Dialect.JINA, self.request_id).line
        answer = stream_line(number, line_id, content)
        self.unread_bytes += len(answer)
        self.answers.put_nowait(answer)
        async with self.changed:
            self.changed.notify_all()


async def lines_of(body: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes | PayloadTooLargeError]:
    """The lines of a body; in place of one longer than `limit` bytes comes the error that says so."""
    rest = bytearray()
    too_long = False
    async for chunk in body:
        *ended, begun = chunk.split(b"\n")
        for line in ended:
            rest += line
            yield PayloadTooLargeError(limit) if too_long or len(rest) > limit else bytes(rest)
            rest.clear()
            too_long = False
        rest += begun
        if len(rest) > limit:
            rest.clear()
            too_long = True
    if rest or too_long:
        yield PayloadTooLargeError(limit) if too_long or len(rest) > limit else bytes(rest)
