"""Methods that no route has, and WebSockets, get JSON too: asked of the app itself, since servers below refuse some."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import requests
from starlette.types import Message, Scope

from serve.routes import create_api
from tests.serve.conftest import Server, StartServer

ODD = ("BREW", "TRACE", "CONNECT", "PROPFIND", "OPTIONS", "DELETE", "get", "")
HTTP_RESPONSE = "websocket.http.response"


class App:
    """The app of a server, without the server."""

    def __init__(self, server: Server) -> None:
        self.api = create_api(lambda: server.endpoint)
        self.headers = [(b"authorization", f"Bearer {server.key}".encode())] if server.key else []

    def ask(self, path: str, **differences: Any) -> list[Message]:
        """What the app sends."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "path": path,
            "query_string": b"",
            "headers": self.headers,
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return await asyncio.get_running_loop().create_future()  # nothing is read of what is refused

        async def send(message: Message) -> None:
            sent.append(message)

        asyncio.run(asyncio.wait_for(self.api(scope | differences, receive, send), 10))
        return sent


def error_in(sent: list[Message], prefix: str = "") -> tuple[int, str, str | None]:
    """Status, code and the header Allow of an answer in our form."""
    assert [one["type"] for one in sent] == [f"{prefix}http.response.start", f"{prefix}http.response.body"]
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    assert headers["content-type"] == "application/json"
    detail = json.loads(sent[1]["body"])["detail"]
    assert detail["request_id"] == headers["x-request-id"]
    return sent[0]["status"], detail["code"], headers.get("allow")


ALLOWED = {
    "/v1/rerank": "POST",
    "/v1/rerank/stream": "POST",
    "/tokenize": "POST",
    "/": "GET, HEAD, POST",
    "/health": "GET, HEAD",
    "/v1/models": "GET, HEAD",
    "/docs": "GET, HEAD",
    "/page/app.js": "GET, HEAD",
}
HANDSHAKE = {"type": "websocket", "scheme": "ws", "subprotocols": []}


def test_odd_methods_are_a_405_that_names_the_others(start_server: StartServer) -> None:
    app = App(start_server(keys=True))
    for path, allowed in ALLOWED.items():
        for method in ODD:
            assert error_in(app.ask(path, method=method)) == (405, "METHOD_NOT_ALLOWED", allowed)


def test_odd_methods_elsewhere_are_a_404(start_server: StartServer) -> None:
    app = App(start_server())
    for path in ("/v1/nothing", "example.com:443", "*"):
        for method in ODD:
            assert error_in(app.ask(path, method=method)) == (404, "NOT_FOUND", None)


def test_a_websocket_is_refused_in_json_or_closed(start_server: StartServer) -> None:
    app = App(start_server(keys=True))
    for path, status, code in (
        *((path, 405, "METHOD_NOT_ALLOWED") for path in ALLOWED),
        ("/v1/nothing", 404, "NOT_FOUND"),
    ):
        answered = app.ask(path, **HANDSHAKE, extensions={HTTP_RESPONSE: {}})
        assert error_in(answered, "websocket.") == (status, code, ALLOWED.get(path))
        for without in ({}, {"extensions": {}}):
            assert app.ask(path, **HANDSHAKE, **without) == [{"type": "websocket.close", "code": 1008}]
    [start, _] = app.ask("/v1/rerank", **HANDSHAKE, extensions={HTTP_RESPONSE: {}}, headers=[])
    assert (start["type"], start["status"]) == (f"{HTTP_RESPONSE}.start", 401)


def test_a_websocket_through_a_real_server_gets_json(start_server: StartServer) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = start_server().get("/v1/rerank", headers=upgrade)
    assert (answer.status_code, answer.json()["detail"]["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_odd_methods_through_a_real_server_are_json(start_server: StartServer) -> None:
    server = start_server()
    for method in ("TRACE", "PROPFIND", "DELETE"):
        answer = requests.request(method, f"{server.base_url}/v1/rerank", timeout=10)
        assert (answer.status_code, answer.json()["detail"]["code"]) == (405, "METHOD_NOT_ALLOWED")
