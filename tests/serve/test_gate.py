"""What every request passes: keys, the body's limit, request ids, JSON for every error, the log without texts."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from serve.endpoint import TOKENIZE_BYTES, TOKENIZE_CHARACTERS
from serve.gate import OPEN_PATHS, BodyLimits, logger
from serve.haproxy import COMPLETE, REPORT_HEADER
from tests.serve.conftest import Server, Sizes, StartServer

BODY: dict[str, Any] = {"query": "apple", "documents": ["bread", "candle"]}
INFERENCE = (
    "/",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/tokenize",
    "/invocations",
    "/v1/rerank/stream",
    "/v1/models",
    "/info",
)


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.base_url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


@pytest.mark.parametrize("path", [*INFERENCE, "/v1//rerank", "//v1/rerank", "/v1/nothing"])
def test_without_a_key_there_is_nothing_but_a_401(start_server: StartServer, path: str) -> None:
    """Also for routes that do not exist: a stranger learns nothing."""
    server = start_server(keys=True)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {server.key}"}):
        response = requests.post(server.base_url + path, json=BODY, headers=headers, timeout=10)
        assert response.status_code == 401
        assert isinstance(response.json()["detail"], str)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert server.handle.calls == []


def test_bodies_are_not_read_where_no_route_reads_them(start_server: StartServer) -> None:
    """The answer comes before the body does."""
    server = start_server(keys=True)
    key = f"Authorization: Bearer {server.key}"
    for method, path, code in (
        ("POST", "/health", 405),
        ("GET", "/health", 200),
        ("GET", "/ready", 200),
        ("PUT", "/docs", 405),
        ("PUT", "/v1/rerank", 405),
    ):
        with connect(server) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: a\r\n{key}\r\nContent-Length: 9\r\n\r\n".encode())
            assert connection.recv(1000).startswith(f"HTTP/1.1 {code} ".encode())


@pytest.mark.parametrize("path", [*OPEN_PATHS, "/", "/page/style.css"])
def test_health_metrics_docs_and_the_page_need_no_key(start_server: StartServer, path: str) -> None:
    if path == "/metrics":
        pytest.skip("asks Ray, which is not here; tests of the live app have it")
    url = start_server(keys=True).base_url + path
    with requests.Session() as session:
        whole, head, again = (session.request(method, url, timeout=10) for method in ("GET", "HEAD", "GET"))
    assert [one.status_code for one in (whole, head, again)] == [200, 200, 200]
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(again.content)))


def test_the_body_is_read_up_to_the_limit(start_server: StartServer) -> None:
    server = start_server(max_body_bytes=2000)
    fits = BODY | {"documents": ["x" * 1000]}
    assert server.post("/v1/rerank", fits).status_code == 200
    for body in (json.dumps(fits | {"extra": "x" * 2000}).encode(), (chunk for chunk in [b"{" + b" " * 1500] * 10)):
        response = server.post("/v1/rerank", data=body)
        assert (response.status_code, response.json()["detail"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


HEAD = b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize("rest", [[], [b"{"], [b" "] * 20], ids=["nothing", "a byte", "a byte now and then"])
def test_a_body_that_comes_too_slowly_is_a_408(start_server: StartServer, rest: list[bytes]) -> None:
    server = start_server(sizes=Sizes(body=BodyLimits(silent_seconds=0.3, seconds=0.6)))
    with connect(server) as connection:
        connection.sendall(HEAD)
        for part in rest:
            connection.sendall(part)
            time.sleep(0.05)
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]["code"] == "REQUEST_TIMEOUT"


def test_a_large_body_may_take_its_time(start_server: StartServer) -> None:
    server = start_server(sizes=Sizes(body=BodyLimits(silent_seconds=0.5, seconds=0.2, bytes_per_second=10_000)))
    body = json.dumps(BODY | {"ignored": "x" * 10_000}).encode()

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]
            time.sleep(0.05)

    assert server.post("/v1/rerank", data=slowly()).status_code == 200


def test_large_bodies_are_held_up_to_a_bound_and_small_ones_find_room(start_server: StartServer) -> None:
    """Four of the largest; what has not come of a body yet takes no room."""
    mebibyte = 1 << 20
    server = start_server(max_body_bytes=mebibyte)
    url = urlsplit(server.base_url)
    with ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % mebibyte)
            connection.sendall(b" " * (mebibyte * 3 // 4))
        wait_until(lambda: server.endpoint.room.taken == 5 * mebibyte * 3 // 4)
        refused = server.post("/v1/rerank", data=b" " * mebibyte)
        assert (refused.status_code, refused.json()["detail"]["code"]) == (429, "OVERLOADED")
        assert refused.headers["Retry-After"] == "5"
        assert server.post("/v1/rerank", BODY).status_code == 200
    wait_until(lambda: server.endpoint.room.taken == 0)
    assert server.post("/v1/rerank", data=json.dumps(BODY) + " " * (mebibyte - 1000)).status_code == 200
    wait_until(lambda: server.endpoint.room.taken == 0)


def test_a_body_to_tokenize_is_as_large_as_its_text_may_be(start_server: StartServer) -> None:
    server = start_server()
    fits = server.post("/tokenize", data=json.dumps({"prompt": "\U0001f600 " * (TOKENIZE_CHARACTERS // 2)}))
    assert fits.status_code == 200
    assert server.post("/tokenize", data=b'{"prompt": "a"}' + b" " * TOKENIZE_BYTES).status_code == 413
    too_long = server.post("/tokenize", json={"prompt": "a " * (TOKENIZE_CHARACTERS // 2) + "a"})
    assert (too_long.status_code, f"{TOKENIZE_CHARACTERS:,} characters of text" in too_long.text) == (413, True)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_client_that_leaves_is_not_worked_for(start_server: StartServer) -> None:
    server = start_server()
    started, cancelled = threading.Event(), threading.Event()

    class Stalled:
        async def logits(self, *_: Any) -> Any:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    server.handle.target = Stalled()
    body = json.dumps(BODY).encode()
    with connect(server) as connection:
        connection.sendall(HEAD.replace(b"1000", b"%d" % len(body)) + body)
        assert started.wait(5)
    assert cancelled.wait(5)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"query": "\xe9"}', b"[" * 100_000, b"1" * 5000], ids=lambda body: repr(body[:9])
)
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank", "/invocations"])
def test_what_is_not_json_is_a_400(start_server: StartServer, body: bytes, path: str) -> None:
    response = start_server().post(path, data=body)
    assert response.status_code in (400, 422)
    assert response.json()["detail"]
    if body[:1] in (b"{", b"\xff", b"["):
        assert response.status_code == 400


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/tokenize", "/v1/rerank/stream"])
def test_a_compressed_body_is_a_415_and_no_broken_json(start_server: StartServer, path: str) -> None:
    server = start_server()
    response = server.post(path, data=gzip.compress(json.dumps(BODY).encode()), headers={"Content-Encoding": "gzip"})
    assert (response.status_code, response.json()["detail"]["code"]) == (415, "UNSUPPORTED_ENCODING")
    assert server.post("/v1/rerank", BODY, headers={"Content-Encoding": "identity"}).status_code == 200


def test_the_content_type_does_not_matter(start_server: StartServer) -> None:
    """curl -d says it sends a form."""
    server = start_server()
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"):
        response = server.post("/v1/rerank", data=json.dumps(BODY), headers={"Content-Type": kind})
        assert response.status_code == 200


def test_every_answer_has_a_request_id_and_keeps_the_callers(start_server: StartServer) -> None:
    server = start_server()
    for mine in ("mine-1", "a.b:c_D", "x" * 64):
        assert server.post("/v1/rerank", BODY, headers={"X-Request-ID": mine}).headers["X-Request-ID"] == mine
    for odd in ("a b", "x" * 65, "a,b", "", b"\xe9", "a;b"):
        refused = server.post("/v1/nothing", BODY, headers={"X-Request-ID": odd})
        [new] = refused.raw.headers.getlist("X-Request-ID")
        assert new == refused.json()["detail"]["request_id"]
        assert re.fullmatch("[0-9a-f]{32}", new)


def test_the_headers_tell_where_the_time_went(start_server: StartServer) -> None:
    timing = start_server().post("/v1/rerank", BODY).headers["Server-Timing"]
    phases = dict(one.split(";dur=") for one in timing.split(", "))
    assert list(phases) == ["tokenize", "score", "total"]
    assert float(phases["tokenize"]) + float(phases["score"]) <= float(phases["total"]) + 0.2


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/v1/rerank", 405), ("POST", "/v1/x", 404), ("GET", "/x", 404)]
)
def test_unknown_routes_and_methods_are_json(start_server: StartServer, method: str, path: str, code: int) -> None:
    response = requests.request(method, start_server().base_url + path, timeout=10)
    assert (response.status_code, response.json()["detail"]["code"]) == (
        code,
        {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}[code],
    )


@pytest.mark.parametrize("path", ["//v1//rerank", "/v1/rerank/", "//v1/rerank//"])
def test_doubled_slashes_and_one_at_the_end_lead_to_the_route(start_server: StartServer, path: str) -> None:
    """Without a redirection, which clients do not follow with a POST."""
    server = start_server()
    with closing(http.client.HTTPConnection(urlsplit(server.base_url).netloc)) as connection:
        connection.request("POST", path, json.dumps(BODY))
        assert connection.getresponse().status == 200


def test_other_origins_are_let_in_only_where_they_are_named(start_server: StartServer) -> None:
    """Also with the errors, and before a key is asked for."""
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    closed, opened = (
        start_server(keys=True),
        start_server(keys=True, cors_origins="https://a.example, https://b.example"),
    )
    refused = requests.options(f"{closed.base_url}/v1/rerank", headers=asked, timeout=10)
    assert (refused.status_code, refused.headers.get("Access-Control-Allow-Origin")) == (401, None)
    asked["Access-Control-Request-Headers"] = "authorization"
    preflight = requests.options(f"{opened.base_url}/v1/rerank", headers=asked, timeout=10)
    assert (preflight.status_code, preflight.headers["Access-Control-Allow-Origin"]) == (200, "https://a.example")
    for key in (opened.key, "wrong"):
        headers = {"Origin": "https://a.example", "Authorization": f"Bearer {key}"}
        answer = requests.post(f"{opened.base_url}/v1/rerank", json=BODY, headers=headers, timeout=10)
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
    other = opened.post("/v1/rerank", BODY, headers={"Origin": "https://c.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def test_the_documentation_of_the_api_loads_nothing_from_elsewhere(start_server: StartServer) -> None:
    """And runs no script where the page keeps its key."""
    server = start_server()
    answer = server.get("/docs")
    assert "https://" not in answer.text
    assert "<script" not in answer.text
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    api = server.get("/openapi.json").json()
    for path in api["paths"]:
        assert f" {path}</h2>" in answer.text
    for name, schema in api["components"]["schemas"].items():
        assert f'<h2 id="{name}">' in answer.text
        assert all(f"<code>{field}</code>" in answer.text for field in schema.get("properties", ()))


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records = [one for one in caplog.records if one.name == logger.name and one.levelno == logging.INFO]
    return [json.loads(record.message) for record in records]


def test_a_client_that_leaves_before_its_body_is_whole_is_a_499_in_the_log(
    start_server: StartServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "parent", logging.root)
    with caplog.at_level(logging.INFO, logger=logger.name):
        with connect(start_server()) as connection:
            connection.sendall(HEAD + b"{")
            time.sleep(0.1)
        deadline = time.monotonic() + 5
        while not access_lines(caplog) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [line["code"] for line in access_lines(caplog)] == [499]


def test_a_proxy_that_lacks_our_rules_is_named_once_in_the_log(
    start_server: StartServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "parent", logging.root)
    for report, said in ((COMPLETE, []), ("without errors in JSON", ["errors in JSON"]), (None, ["Crossray's rules"])):
        caplog.clear()
        server = start_server()
        for _ in range(2):
            server.get("/health", headers={REPORT_HEADER: report})
        warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
        assert len(warnings) == len(said)
        assert all(f"a proxy without {what}" in warning for what, warning in zip(said, warnings, strict=True))


def test_the_log_has_a_line_a_request_and_no_texts(
    start_server: StartServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "parent", logging.root)  # Serve's logger keeps lines to itself once Serve runs
    with caplog.at_level(logging.INFO, logger=logger.name):
        server: Server = start_server(keys=True)
        server.post("/v1/rerank", {"query": "hush", "documents": ["whisper"]})
        server.post("/v1/rerank", {"query": "hush", "documents": [None, "whisper"]})
        server.handle.failures[:] = [ValueError("hidden")]
        server.post("/v1/rerank", {"query": "hush", "documents": ["whisper"]})
        deadline = time.monotonic() + 5
        while len(access_lines(caplog)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)  # a line is written when its answer is on its way
    lines = access_lines(caplog)
    assert [(line["route"], line["code"]) for line in lines] == [("/v1/rerank", code) for code in (200, 422, 500)]
    assert all(line["request_id"] and line["milliseconds"] > 0 for line in lines)
    for secret in ("hush", "whisper", server.key or ""):
        assert secret not in caplog.text
    assert "ValueError: hidden" in caplog.text  # the cause of the 500, for those who run the server
