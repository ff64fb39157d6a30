"""Gate: what every request passes on its way to a route, as ASGI middleware.

It gives the request its id, wants an API key where one is needed, reads the body up to the limit and in time, ends the
work for a client that left, turns whatever is raised into the JSON of `error_answers`, and writes the log line and the
headers that tell how long it took.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.endpoint import TOKENIZE_BYTES, Timings, logger
from serve.error_answers import answer_to, as_app_error, dialect_of
from serve.errors import EncodedBodyError, PayloadTooLargeError, SlowRequestError, UnauthorizedError
from serve.haproxy import BODY_SECONDS, COMPLETE, REPORT_HEADER, REQUEST_ID
from serve.origins import origins_of

if TYPE_CHECKING:
    from serve.bodies import Place
    from serve.endpoint import Endpoint

OPEN_PATHS = ("/health", "/ready", "/ping", "/metrics", "/docs", "/openapi.json")
"""Routes that need no key, beside the page; they tell nothing of anybody's texts."""
TOKENIZE_PATH = "/tokenize"
"""The one route whose texts are bounded in all."""
STREAM_PATH = "/v1/rerank/stream"
"""The one route whose body is read while it is answered."""
POLICY_VIOLATION = 1008
"""Why a WebSocket is closed, in the words of its protocol; the caller sees a 403."""
CORS_EXPOSED = ("Retry-After", "Server-Timing", "X-Crossray-Warning", "X-Request-Id")
"""Headers of answers that scripts of other origins may read."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How slowly a body may come."""

    silent_seconds: float = 30.0
    """Time without a byte."""
    seconds: float = float(BODY_SECONDS)
    """Time for the whole of a small body."""
    bytes_per_second: int = 32_768
    """Beyond that time, a large body may go on while it has come this fast on the whole."""


DEFAULT_BODY_LIMITS = BodyLimits()


class Gate:
    """The middleware; `endpoint_of` finds the Endpoint of this process, `page_paths` need no key."""

    def __init__(
        self,
        app: ASGIApp,
        endpoint_of: Callable[[], Endpoint],
        page_paths: frozenset[str],
        body_limits: BodyLimits = DEFAULT_BODY_LIMITS,
    ) -> None:
        self.app = app
        self.endpoint_of = endpoint_of
        self.open_paths = page_paths | set(OPEN_PATHS)
        self.body_limits = body_limits
        self.looked_at_proxy = False
        self.cors: CORSMiddleware | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await self.answer(as_connect(scope), receive, in_place_of_websocket(scope, send))
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        origins = self.endpoint_of().args.cors_origins
        if origins is None:
            await self.answer(scope, receive, send)
            return
        if self.cors is None:
            self.cors = CORSMiddleware(
                self.answer, origins_of(origins), ["GET", "POST"], ["*"], expose_headers=CORS_EXPOSED, max_age=600
            )
        await self.cors(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, whatever happens."""
        endpoint = self.endpoint_of()
        path = route_of(scope)
        headers = Headers(scope=scope)
        self.look_at_proxy(headers)
        request_id = sane_id(headers.getlist("x-request-id")) or uuid.uuid4().hex
        visit = Visit(path, request_id, send)
        app = into_page(scope) or self.app
        whole = prefix_of(scope) + path
        # Monitors ask with HEAD. The server below leaves the body out.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        scope = {
            **scope,
            "method": method,
            "path": whole,
            "raw_path": whole.encode(),
            "root_path": prefix_of(scope),
        }
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "timings": visit.timings}
        try:
            if self.is_open(path, method):
                await app(scope, replay(b""), visit.send)  # what is sent there is not read
            else:
                check_key(endpoint, headers)
                await self.pass_on(app, scope, receive, headers, visit)
        except ClientDisconnect:
            pass  # nobody is there to be answered; the log has it
        except Exception as error:
            if as_app_error(error).status == 500:
                logger.exception("request %s failed", request_id)
            if visit.status is not None:
                raise  # too late for another answer
            answer = answer_to(error, dialect_of(path), request_id)
            response = JSONResponse(answer.body, answer.status, dict(answer.headers))
            await response(scope, receive, visit.send)
        finally:
            visit.log(endpoint, known_route(scope))

    def is_open(self, path: str, method: str) -> bool:
        """Whether a request needs no key, and no body. POST / is one of the routes that rank."""
        return path in self.open_paths and (path, method) != ("/", "POST")

    async def pass_on(self, app: ASGIApp, scope: Scope, receive: Receive, headers: Headers, visit: Visit) -> None:
        """Passes on a request that was let in; raises ClientDisconnect when its client leaves before it is answered."""
        if scope["method"] != "POST":
            await app(scope, replay(b""), visit.send)
            return
        if (encoding := headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
            raise EncodedBodyError(encoding)
        if visit.path == STREAM_PATH:
            await app(scope, receive, visit.send)
            return
        endpoint = self.endpoint_of()
        limit = endpoint.args.max_body_bytes
        if visit.path == TOKENIZE_PATH:
            limit = min(limit, TOKENIZE_BYTES)
        with endpoint.room.place() as place:
            body = await read_body(receive, headers, limit, self.body_limits, place)
            await while_there(app(scope, replay(body), visit.send), receive, visit)

    def look_at_proxy(self, headers: Headers) -> None:
        """Says once in the log what a HAProxy in front of this process lacks."""
        report = headers.get(REPORT_HEADER, "without Crossray's rules")
        if not self.looked_at_proxy and report != COMPLETE:
            logger.warning(
                "requests come through a proxy %s, so that slow clients, streams and errors of the proxy are not "
                "treated as promised; docs/server-operations.md says what the environment of Ray needs",
                report,
            )
        self.looked_at_proxy = True


class Visit:
    """What the gate notes of one request while it is answered."""

    def __init__(self, path: str, request_id: str, send: Send) -> None:
        self.path = path
        self.request_id = request_id
        self.timings = Timings()
        self.status: int | None = None
        self.answered = False
        self._send = send
        self._began = time.perf_counter()

    async def send(self, message: Message) -> None:
        """Sends a message on; to the first one it adds our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers["server-timing"] = server_timing(self.timings, time.perf_counter() - self._began)
        self.answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def log(self, endpoint: Endpoint, route: str) -> None:
        """Counts the request, and writes a line of JSON about it without any text of the caller's."""
        code = str(self.status or 499)  # nginx's code for a client that left
        seconds = time.perf_counter() - self._began
        endpoint.requests.inc(tags={"route": route, "code": code})
        endpoint.request_seconds.observe(seconds, {"route": route})
        line = {
            "request_id": self.request_id,
            "route": route,
            "code": int(code),
            "milliseconds": round(seconds * 1000, 1),
        }
        logger.info(json.dumps(line))


def as_connect(scope: Scope) -> Scope:
    """The handshake of a WebSocket as the request that it is in HTTP/2: with a method that none of our routes has."""
    return {**scope, "type": "http", "method": "CONNECT"}


def in_place_of_websocket(scope: Scope, send: Send) -> Send:
    """A `send` that answers the handshake of a WebSocket, or that ends it where the server below takes no answer."""
    takes_answer = "websocket.http.response" in scope.get("extensions", {})

    async def answer(message: Message) -> None:
        if takes_answer:
            await send({**message, "type": f"websocket.{message['type']}"})
        elif message["type"] == "http.response.start":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})

    return answer


def route_of(scope: Scope) -> str:
    """The path below the prefix at which Serve has the app, as our routes are written: one slash between, none last.

    Some clients append to a base that ends in a slash, and some end their path in one.
    """
    path, prefix = re.sub("/{2,}", "/", scope["path"]), prefix_of(scope)
    inside = path.removeprefix(prefix) if f"{path}/".startswith(f"{prefix}/") else path
    return f"/{inside.strip('/')}"


def prefix_of(scope: Scope) -> str:
    """The path at which Serve has the app; empty for /."""
    prefix: str = scope.get("root_path", "")
    return prefix.rstrip("/")


def into_page(scope: Scope) -> RedirectResponse | None:
    """Where the page is asked for by the app's prefix alone: to the same with a slash, from which its links lead on.

    The address is a relative one, since a proxy before us may have taken a part of the path away.
    """
    prefix = prefix_of(scope)
    if not prefix or scope["path"] != prefix or scope["method"] not in ("GET", "HEAD"):
        return None
    return RedirectResponse(f"{prefix.rpartition('/')[2]}/")


def check_key(endpoint: Endpoint, headers: Headers) -> None:
    """Raises UnauthorizedError without a key that is ours, where keys are wanted."""
    authorization = headers.get("authorization")
    if endpoint.keys is not None and not endpoint.keys.accepts(authorization):
        raise UnauthorizedError(key_sent=authorization is not None)


def announced(headers: Headers) -> int:
    """The bytes that a body shall have; 0 where that is not said."""
    length = headers.get("content-length", "")
    return int(length) if length.isdigit() else 0


async def read_body(receive: Receive, headers: Headers, limit: int, limits: BodyLimits, place: Place) -> bytes:
    """The whole body, of at most `limit` bytes, for which there is room at `place`.

    Raises PayloadTooLargeError and OverloadedError before it reads more, SlowRequestError, and ClientDisconnect where
    the client leaves.
    """
    if announced(headers) > limit:
        raise PayloadTooLargeError(limit)
    place.expect(announced(headers))
    body = bytearray()
    began = time.monotonic()
    while True:
        left = limits.seconds + len(body) / limits.bytes_per_second - (time.monotonic() - began)
        try:
            async with asyncio.timeout(min(limits.silent_seconds, left)):
                message = await receive()
        except TimeoutError:
            raise SlowRequestError(len(body)) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise PayloadTooLargeError(limit)
        place.grow(len(body))
        if not message.get("more_body", False):
            return bytes(body)


async def while_there(work: Awaitable[None], receive: Receive, visit: Visit) -> None:
    """Awaits the work on a request whose body was read; cancels it and raises ClientDisconnect if its client leaves.

    Serve would do the same, but reads bodies into memory for that, whoever takes them; see `serve.haproxy`.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(departure(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not visit.answered:
            raise ClientDisconnect
        await working
    finally:
        working.cancel()
        leaving.cancel()


async def departure(receive: Receive) -> None:
    """Returns when the client leaves, or when it is answered."""
    while (await receive())["type"] != "http.disconnect":
        pass


def replay(body: bytes) -> Receive:
    """A `receive` that gives this body, and then nothing ever."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return unread.pop() if unread else await asyncio.get_running_loop().create_future()

    return receive


def sane_id(sent: list[str]) -> str | None:
    """The caller's own request id, if it sent a single one, which headers and logs can carry."""
    return sent[0] if len(sent) == 1 and re.fullmatch(REQUEST_ID, sent[0]) else None


def server_timing(timings: Timings, total: float) -> str:
    """The value of the standard header Server-Timing, which browsers show too; in milliseconds."""
    phases: dict[str, float] = {"tokenize": timings.tokenize, "score": timings.score, "total": total}
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases.items() if seconds)


def known_route(scope: Any) -> str:
    """The route's own path, `other` for none: a label must not take whatever value a stranger sends."""
    return getattr(scope.get("route"), "path", "other")
