"""Gate: what every request passes on its way to a route, as ASGI middleware.

It gives the request its id, wants an API key where one is needed, reads the body up to the limit, turns whatever is
raised into the JSON of `error_answers`, and writes the log line and the headers that tell how long it took.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.endpoint import Timings
from serve.error_answers import answer_to, as_app_error, dialect_of
from serve.errors import PayloadTooLargeError, UnauthorizedError

if TYPE_CHECKING:
    from serve.endpoint import Endpoint

logger = logging.getLogger("ray.serve.crossray")
"""A child of Serve's own logger, so that lines reach the log files that Serve keeps for each replica."""

OPEN_PATHS = ("/health", "/ready", "/ping", "/metrics", "/docs", "/openapi.json")
"""Routes that need no key, beside the page; they tell nothing of anybody's texts."""
STREAM_PATH = "/v1/rerank/stream"
"""The one route whose body is read while it is answered."""
REQUEST_ID = re.compile(r"[\w.:-]{1,64}")


class Gate:
    """The middleware; `endpoint_of` finds the Endpoint of this process, `page_paths` need no key."""

    def __init__(self, app: ASGIApp, endpoint_of: Callable[[], Endpoint], page_paths: frozenset[str]) -> None:
        self.app = app
        self.endpoint_of = endpoint_of
        self.open_paths = page_paths | set(OPEN_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        endpoint = self.endpoint_of()
        path = route_of(scope)
        headers = Headers(scope=scope)
        request_id = sane_id(headers.get("x-request-id")) or uuid.uuid4().hex
        visit = Visit(path, request_id, send)
        app = into_page(scope) or self.app
        whole = prefix_of(scope) + path
        scope = {**scope, "path": whole, "raw_path": whole.encode(), "root_path": prefix_of(scope)}
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "timings": visit.timings}
        try:
            if path not in self.open_paths or scope["method"] not in ("GET", "HEAD"):
                check_key(endpoint, headers)
            if scope["method"] == "POST":
                scope["headers"] = with_json_type(scope["headers"])
                if path != STREAM_PATH:
                    receive = replay(await read_body(receive, headers, endpoint.args.max_body_bytes), receive)
            await app(scope, receive, visit.send)
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


class Visit:
    """What the gate notes of one request while it is answered."""

    def __init__(self, path: str, request_id: str, send: Send) -> None:
        self.path = path
        self.request_id = request_id
        self.timings = Timings()
        self.status: int | None = None
        self._send = send
        self._began = time.perf_counter()

    async def send(self, message: Message) -> None:
        """Sends a message on; to the first one it adds our headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers["server-timing"] = server_timing(self.timings, time.perf_counter() - self._began)
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


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body; raises PayloadTooLargeError before more than `limit` bytes are read."""
    announced = headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise PayloadTooLargeError(limit)
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            raise PayloadTooLargeError(limit)
        if not message.get("more_body", False):
            return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, then what the server has to say (that the client left)."""
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again


def with_json_type(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with JSON as their content type, whatever the client said: no route reads anything else."""
    kept = [(name, value) for name, value in headers if name.lower() != b"content-type"]
    return [*kept, (b"content-type", b"application/json")]


def sane_id(sent: str | None) -> str | None:
    """The caller's own request id, if it is one that headers and logs can carry."""
    return sent if sent and REQUEST_ID.fullmatch(sent) else None


def server_timing(timings: Timings, total: float) -> str:
    """The value of the standard header Server-Timing, which browsers show too; in milliseconds."""
    phases: dict[str, float] = {"tokenize": timings.tokenize, "score": timings.score, "total": total}
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases.items() if seconds)


def known_route(scope: Any) -> str:
    """The route's own path, `other` for none: a label must not take whatever value a stranger sends."""
    return getattr(scope.get("route"), "path", "other")
