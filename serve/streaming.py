"""/v1/rerank/stream: every line in is a request, every line out an answer, sent when it is ready; in the bulk lane.

Lines are read and answered at the same time. Two limits bound the memory: the lines in work at a time, and the bytes of
answers that wait to be read. From a client that does not read its answers, no more lines are read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.error_answers import Dialect, answer_to
from serve.errors import DeadlineError, PayloadTooLargeError
from serve.lanes import Lane
from serve.schemas import Served, StreamRequest, sent_id, stream_line

if TYPE_CHECKING:
    from serve.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What a stream may hold, and how long it may be silent."""

    lines_in_work: int = 32
    unread_bytes: int = 8 << 20
    """Answers that may wait for the client to read them."""
    silent_seconds: float = 30.0
    """Time without a line in or out, after which the stream ends."""


DEFAULT_LIMITS = StreamLimits()
STREAM_REQUEST = TypeAdapter(StreamRequest)


class DuplexResponse(Response):
    """A response that is sent while the request's body is still read.

    Starlette's StreamingResponse takes the body's messages away: it waits among them for the client to leave.
    """

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for line in self.lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer_stream(
    endpoint: Endpoint, body: AsyncIterator[bytes], request_id: str, limits: StreamLimits = DEFAULT_LIMITS
) -> AsyncIterator[bytes]:
    """The lines of the answer, as they become ready; a stream that is silent for too long ends with an error line."""
    stream = Stream(endpoint, request_id, limits)
    reading = asyncio.create_task(stream.read(body))
    try:
        while (line := await stream.next_answer()) is not None:
            yield line
    except TimeoutError:
        error = answer_to(DeadlineError(limits.silent_seconds), Dialect.JINA, request_id)
        yield stream_line(0, None, error.line)
    finally:
        for task in (reading, *stream.in_work):
            task.cancel()


class Stream:
    """One stream: the lines in work, and the answers that wait for the client to read them."""

    def __init__(self, endpoint: Endpoint, request_id: str, limits: StreamLimits) -> None:
        self.endpoint = endpoint
        self.request_id = request_id
        self.limits = limits
        self.in_work: set[asyncio.Task[None]] = set()
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        """None comes after the last."""
        self.unread_bytes = 0
        self.changed = asyncio.Event()
        """Set when there may be room for another line."""
        self.heard_at = time.monotonic()

    async def read(self, body: AsyncIterator[bytes]) -> None:
        """Starts work on each line as soon as there is room for its answer; after the last one, ends the answers."""
        number = 0
        try:
            async for line in lines_of(body, self.endpoint.args.max_body_bytes):
                number += 1
                self.heard_at = time.monotonic()
                if isinstance(line, bytes) and not line.strip():
                    continue
                while not self._has_room():
                    self.changed.clear()
                    await self.changed.wait()
                work = asyncio.create_task(self._answer(number, line))
                self.in_work.add(work)
                work.add_done_callback(self._end_work)
            if self.in_work:
                await asyncio.wait(self.in_work)
        except ClientDisconnect:
            pass  # nobody reads the answers of what is in work
        self.answers.put_nowait(None)

    async def next_answer(self) -> bytes | None:
        """The next line out, None after the last; raises TimeoutError when nothing comes in and nothing is in work."""
        while True:
            try:
                async with asyncio.timeout(self.limits.silent_seconds):
                    line = await self.answers.get()
                break
            except TimeoutError:
                if not self.in_work and time.monotonic() - self.heard_at >= self.limits.silent_seconds:
                    raise
        if line is not None:
            self.unread_bytes -= len(line)
            self.changed.set()
        return line

    def _has_room(self) -> bool:
        return len(self.in_work) < self.limits.lines_in_work and self.unread_bytes < self.limits.unread_bytes

    def _end_work(self, work: asyncio.Task[None]) -> None:
        self.in_work.discard(work)
        self.changed.set()

    async def _answer(self, number: int, line: bytes | PayloadTooLargeError) -> None:
        line_id: Any = None
        try:
            if isinstance(line, PayloadTooLargeError):
                raise line
            value = await self.endpoint.bodies.value(line)
            line_id = sent_id(value)
            request = await self.endpoint.bodies.validated(STREAM_REQUEST, value, len(line))
            tasks = request.tasks()
            rankings = await self.endpoint.rank(tasks, Lane.BULK)
            args = self.endpoint.args
            served = Served(args.name, self.request_id, args.return_documents)
            content: Any = request.answer(tasks, rankings, served)
        except Exception as error:
            content = answer_to(error, Dialect.JINA, self.request_id).line
        answer = stream_line(number, line_id, content)
        self.unread_bytes += len(answer)
        self.answers.put_nowait(answer)


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
