"""/v1/rerank/stream: every line in is a request, every line out an answer, sent when it is ready; in the bulk lane.

Lines are read and answered at the same time. Limits bound the memory: on the lines in work at a time and their bytes,
and on the bytes of answers that wait to be read. From a client that does not read its answers, no more lines are read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.answers import answer_of
from serve.error_answers import Dialect, answer_to
from serve.errors import PayloadTooLargeError, SlowRequestError
from serve.lanes import Lane
from serve.schemas import AnyStreamRequest, StreamQueriesRequest, StreamRequest, sent_id, stream_line

if TYPE_CHECKING:
    from serve.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What a stream may hold, and how long it may be silent."""

    lines_in_work: int = 32
    bytes_in_work: int = 8 << 20
    """Bytes of the lines in work beyond which no other line is begun."""
    unread_bytes: int = 8 << 20
    """Answers that may wait for the client to read them."""
    ahead_bytes: int = 256 << 10
    """Bytes that are read before their lines can be begun: to see that a client is there, the server must read."""
    silent_seconds: float = 30.0
    """Time without a byte in or out, after which the stream ends."""
    pause_seconds: float = 2.0
    """Time without an answer, after which a space is sent before the next one: to see that the client is there, and so
    that no proxy on the way takes the stream for a dead one."""


DEFAULT_LIMITS = StreamLimits()
STREAM_REQUEST: TypeAdapter[StreamQueriesRequest | StreamRequest] = TypeAdapter(AnyStreamRequest)
LINES_AT_A_TIME = 500
"""Lines that are looked at before others have their turn on the event loop."""
LOOKED_AHEAD = 8
"""What is read ahead at most, in multiples of `ahead_bytes`, when the server looks whether a client is still there."""


class DuplexResponse(Response):
    """A response that is sent while the request's body is still read.

    Starlette's StreamingResponse takes the body's messages away: it waits among them for the client to leave.
    """

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncGenerator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.lines) as lines:
            async for line in lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer_stream(
    endpoint: Endpoint, receive: Receive, request_id: str, limits: StreamLimits = DEFAULT_LIMITS
) -> AsyncGenerator[bytes]:
    """The lines of the answer, as they become ready; a stream that is silent for too long ends with an error line."""
    stream = Stream(endpoint, request_id, limits)
    tasks = [asyncio.create_task(stream.listen(receive)), asyncio.create_task(stream.read())]
    try:
        while (line := await stream.next_answer()) is not None:
            yield line
    except SlowRequestError as error:
        yield stream_line(0, None, answer_to(error, Dialect.JINA, request_id).line)
    finally:
        for task in (*tasks, *stream.in_work):
            task.cancel()


class Stream:
    """One stream: what was read ahead, the lines in work, and the answers that wait for the client to read them."""

    def __init__(self, endpoint: Endpoint, request_id: str, limits: StreamLimits) -> None:
        self.endpoint = endpoint
        self.request_id = request_id
        self.limits = limits
        self.ahead: asyncio.Queue[bytes | None] = asyncio.Queue()
        """Parts of the body; None comes after the last."""
        self.ahead_bytes = 0
        self.in_work: set[asyncio.Task[None]] = set()
        self.bytes_in_work = 0
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        """None comes after the last."""
        self.unread_bytes = 0
        self.changed = asyncio.Event()
        """Set when there may be room for another line."""
        self.wanted = asyncio.Event()
        """Set when more of the body may be read."""
        self.client_left = False
        self.received = 0
        self.active_at = time.monotonic()
        """When a byte came in, or an answer went out."""

    async def listen(self, receive: Receive) -> None:
        """Reads the body a little ahead of the lines that are begun, and notices when the client leaves."""
        more = True
        while (message := await receive())["type"] != "http.disconnect":
            part = message.get("body", b"")
            self.ahead_bytes += len(part)
            self.received += len(part)
            self.active_at = time.monotonic()
            if more:
                self.ahead.put_nowait(part)
                more = message.get("more_body", False)
                if not more:
                    self.ahead.put_nowait(None)
            if self.ahead_bytes >= self.limits.ahead_bytes:
                self.wanted.clear()
                await self.wanted.wait()
        self.client_left = True
        self.answers.put_nowait(None)

    async def read(self) -> None:
        """Starts work on each line as soon as there is room for its answer; after the last one, ends the answers."""
        number = 0
        async for line in lines_of(self._parts(), self.endpoint.args.max_body_bytes):
            number += 1
            if number % LINES_AT_A_TIME == 0:
                await asyncio.sleep(0)  # a stream may be all blank lines: others have their turn between them
            if isinstance(line, bytes) and not line.strip():
                continue
            while not self._has_room():
                self.changed.clear()
                await self.changed.wait()
            self._begin_work(number, line)
        if self.in_work:
            await asyncio.wait(self.in_work)
        self.answers.put_nowait(None)

    async def next_answer(self) -> bytes | None:
        """The next line out, or a space before it; None after the last, and when the client has left.

        Raises SlowRequestError when nothing comes in and nothing is in work.
        """
        while not self.client_left:
            left = self.active_at + self.limits.silent_seconds - time.monotonic()
            if left <= 0:
                if not self.in_work and self.answers.empty():
                    raise SlowRequestError(self.received)
                left = self.limits.pause_seconds
            try:
                async with asyncio.timeout(min(left, self.limits.pause_seconds)):
                    line = await self.answers.get()
            except TimeoutError:
                if self.in_work:
                    self._look_for_client()
                    return b" "
                continue
            if line is not None:
                self.unread_bytes -= len(line)
                self.active_at = time.monotonic()
                self.changed.set()
                self._look_for_client()
            return line
        return None

    async def _parts(self) -> AsyncIterator[bytes]:
        """What was read ahead, part by part."""
        while (part := await self.ahead.get()) is not None:
            yield part
            self.ahead_bytes -= len(part)  # its lines are begun
            if self.ahead_bytes < self.limits.ahead_bytes:
                self.wanted.set()

    def _look_for_client(self) -> None:
        """Has another part of the body read, though there is no room for its lines: a client that left is seen so."""
        if self.ahead_bytes < LOOKED_AHEAD * self.limits.ahead_bytes:
            self.wanted.set()

    def _has_room(self) -> bool:
        return (
            len(self.in_work) < self.limits.lines_in_work
            and self.bytes_in_work < self.limits.bytes_in_work
            and self.unread_bytes < self.limits.unread_bytes
        )

    def _begin_work(self, number: int, line: bytes | PayloadTooLargeError) -> None:
        size = len(line) if isinstance(line, bytes) else 0
        self.bytes_in_work += size
        work = asyncio.create_task(self._answer(number, line))
        self.in_work.add(work)
        work.add_done_callback(partial(self._end_work, size))

    def _end_work(self, size: int, work: asyncio.Task[None]) -> None:
        self.bytes_in_work -= size
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
            content: Any = await answer_of(self.endpoint, request, self.request_id, Lane.BULK)
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
