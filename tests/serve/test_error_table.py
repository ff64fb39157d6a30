"""The table of errors in docs/server.md: its examples are what the server answers, to the letter."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from ray.exceptions import ActorDiedError

from serve.gate import BodyLimits
from tests.conftest import LiveApp
from tests.serve.conftest import Server, Sizes, StartServer

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
ROWS = {
    int(status): (shape, json.loads(example))
    for status, shape, example in re.findall(r"^\| (\d{3}) \| .* \| ([a-z ]+) \| `+(\{.*\})`+ \|$", PAGE, re.MULTILINE)
}
"""The shape and the example of each status."""
LIST = {"query": "a", "documents": ["b"]}
Provoke = Callable[[LiveApp], requests.Response]


def without_key(app: LiveApp) -> requests.Response:
    return requests.post(f"{app.base_url}/v1/rerank", json=LIST, timeout=10)


LIVE: dict[int, Provoke] = {
    400: lambda app: app.post("/v1/rerank", data=b"{"),
    401: without_key,
    404: lambda app: app.post("/v1/nothing", LIST),
    405: lambda app: requests.get(f"{app.base_url}/v1/rerank", headers=app.headers, timeout=10),
    413: lambda app: app.post("/v1/rerank", LIST | {"documents": [""] * 10_001}),
    414: lambda app: app.post(f"/v1/rerank?{'x' * 65_000}", LIST),
    415: lambda app: requests.post(
        f"{app.base_url}/v1/rerank", data=b"x", headers=app.headers | {"Content-Encoding": "gzip"}, timeout=10
    ),
    422: lambda app: app.post("/v1/rerank", {"query": "a", "passages": ["b"]}),
}
"""How to come to the errors that any server gives at any time."""
IN_NEED = (408, 429, 500, 503)
"""Those that a server gives which is busy, broken or waited for."""


def check(status: int, answered_status: int, body: Any, headers: Any) -> None:
    """Raises AssertionError unless the answer is the example, and has the shape that stands beside it."""
    shape, example = ROWS[status]
    assert answered_status == status
    for one in (body, body["detail"]):
        if isinstance(one, dict) and "request_id" in one:
            assert one["request_id"] == headers["X-Request-Id"]
            one["request_id"] = "..."
    assert body == example
    if shape == "object":
        assert body.keys() == {"detail"}
        assert body["detail"].keys() == {"message", "code", "request_id"}
    else:
        assert isinstance(body["detail"], str)
        assert body.keys() == ({"detail"} if shape == "text" else {"detail", "request_id", "errors"})
    assert ("Retry-After" in headers) is (status in (429, 503))


def test_every_status_of_the_table_is_tested() -> None:
    assert sorted(ROWS) == sorted([*LIVE, *IN_NEED])
    assert {shape for shape, _ in ROWS.values()} == {"object", "text", "text with errors"}


@pytest.mark.parametrize("status", LIVE)
def test_the_deployed_app_answers_as_the_table_says(live_app: LiveApp, status: int) -> None:
    response = LIVE[status](live_app)
    check(status, response.status_code, response.json(), response.headers)
    assert len(response.raw.headers.getlist("X-Request-Id")) == 1


def test_a_server_in_need_answers_as_the_table_says(start_server: StartServer) -> None:
    """What a deployed app cannot be brought to in a second, from the same routes without Ray."""
    server = start_server()
    server.handle.failures[:] = [ActorDiedError(), ActorDiedError()]
    check_post(503, server)
    server.handle.failures[:] = [RuntimeError("secret")]
    check_post(500, server)
    busy = start_server(max_queued_tokens=1)
    with busy.endpoint.admission.admit(tokens=1, documents=1):
        check_post(429, busy)


@pytest.mark.parametrize(
    "wrong",
    [
        {"query": " "},
        {"documents": None},
        {"truncation_side": "left"},
        {"documents": ["a " * 3_000], "truncate": False},
    ],
)
def test_one_of_several_queries_that_fails_says_what_it_would_alone(
    start_server: StartServer, wrong: dict[str, Any]
) -> None:
    server = start_server(max_chunks_per_doc=1)
    alone = server.post("/v1/rerank", LIST | wrong).json()["detail"]
    message, code = (alone, "VALIDATION_ERROR") if isinstance(alone, str) else (alone["message"], alone["code"])
    [one] = server.post("/v1/rerank", {"queries": [LIST | wrong]}).json()["responses"]
    assert (one["detail"].replace("queries[0].", ""), one["code"]) == (message, code)


def check_post(status: int, server: Server) -> None:
    response = server.post("/v1/rerank", LIST)
    check(status, response.status_code, response.json(), response.headers)


def test_a_body_that_does_not_come_is_answered_as_the_table_says(start_server: StartServer) -> None:
    server = start_server(sizes=Sizes(body=BodyLimits(silent_seconds=0.1)))
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{")
        answer = b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.title(): value for name, _, value in (line.partition(": ") for line in lines)}
    check(408, int(first.split()[1]), json.loads(body), headers)
