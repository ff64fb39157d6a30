"""The app on Ray Serve behind its HAProxy, and clients without good will, or that die: with a key and without one."""

from __future__ import annotations

import http.client
import json
import re
import socket
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from serve import haproxy
from serve.drain import processes
from tests.checkpoints import words
from tests.serve.conftest import LiveApp
from tests.serve.test_live import pids_of, wait_until

LINE = json.dumps({"query": words(4, seed=1), "documents": [words(200, seed=j) for j in range(50)]}).encode() + b"\n"
"""A line of a stream that takes a scorer about a second."""
MEBIBYTE = 1 << 20


def memory(pids: list[int]) -> float:
    """MiB that the processes hold together."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / MEBIBYTE


def cpu_seconds(pids: list[int]) -> float:
    """What the processes have computed."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def connect(app: LiveApp) -> socket.socket:
    url = urlsplit(app.base_url)
    return socket.create_connection((url.hostname or "", url.port or 0), timeout=2)


def head(app: LiveApp, path: str, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {app.key}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def open_stream(app: LiveApp) -> socket.socket:
    connection = connect(app)
    connection.sendall(head(app, "/v1/rerank/stream", "Transfer-Encoding: chunked"))
    return connection


def send_for(connection: socket.socket, data: bytes, seconds: float) -> int:
    """Sends the data again and again, as much as is taken; the bytes that were."""
    sent = 0
    connection.settimeout(0.5)
    end = time.monotonic() + seconds
    rest = b""
    while time.monotonic() < end:
        rest = rest or data
        try:
            taken = connection.send(rest)
        except TimeoutError:
            continue
        sent += taken
        rest = rest[taken:]
    return sent


def test_nobody_else_reaches_what_steers_haproxy(live_app: LiveApp) -> None:
    command = next(processes("haproxy")).cmdline()
    path = Path(command[command.index("-f") + 1])
    # Ray writes the file whenever endpoints change; it is edited before the new HAProxy begins.
    wait_until(lambda: f'{haproxy.REPORT_HEADER} "{haproxy.COMPLETE}"' in path.read_text())
    configuration = path.read_text()
    assert stat.S_IMODE((path.parent / "admin.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert re.findall(r"^(?:frontend prometheus|listen stats)\n\s+bind (.*):", configuration, re.MULTILINE) == [
        "127.0.0.1",
        "127.0.0.1",
    ]


def test_clients_cannot_set_serves_own_deadline(live_app: LiveApp) -> None:
    headers = live_app.headers | {"x-request-timeout-seconds": "0.001"}
    body = {"query": "apple", "documents": [words(100, seed=j) for j in range(20)]}
    assert requests.post(f"{live_app.base_url}/v1/rerank", json=body, headers=headers, timeout=60).status_code == 200


def test_a_stream_that_nobody_reads_is_read_no_further(live_app: LiveApp) -> None:
    """In six seconds a client could send gigabytes."""
    endpoints = pids_of("Endpoint")
    before = memory(endpoints)
    with open_stream(live_app) as connection:
        sent = send_for(connection, chunk(LINE * 10), 6)
        assert memory(endpoints) - before < 100
    assert sent < 40 * MEBIBYTE


def test_a_client_that_dies_in_its_stream_is_not_scored_for(live_app: LiveApp) -> None:
    scorers = pids_of("Scorer")
    cost = cost_of_line(live_app, scorers)
    before = cpu_seconds(scorers)
    with open_stream(live_app) as connection:
        lines = send_for(connection, chunk(LINE * 100), 3) / len(LINE)  # some are read ahead, most wait
        assert lines > 100
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # as when a process is killed

    wait_until_idle(scorers)
    assert 0 < cpu_seconds(scorers) - before < cost * lines / 2


def test_a_client_that_gives_up_is_not_scored_for(live_app: LiveApp) -> None:
    scorers = pids_of("Scorer")
    cost = cost_of_line(live_app, scorers)
    body = {"query": "apple", "documents": [words(200, seed=j) for j in range(2000)]}
    before = cpu_seconds(scorers)
    with pytest.raises(requests.Timeout):
        requests.post(f"{live_app.base_url}/v1/rerank", json=body, headers=live_app.headers, timeout=3)
    wait_until_idle(scorers)
    assert cpu_seconds(scorers) - before < cost * 2000 / 50 / 2


def cost_of_line(app: LiveApp, scorers: list[int]) -> float:
    """Seconds of computing that a line takes on this machine, after what other tests left is done."""
    wait_until_idle(scorers)
    before = cpu_seconds(scorers)
    assert app.post("/v1/rerank", json.loads(LINE)).status_code == 200
    return cpu_seconds(scorers) - before


def wait_until_idle(scorers: list[int]) -> None:
    """Returns when they compute nothing; on a busy machine that takes long, though they have little left to do."""

    def idle() -> bool:
        began = cpu_seconds(scorers)
        time.sleep(3)
        return cpu_seconds(scorers) - began < 0.2

    wait_until(idle, 200)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/health"), ("GET", "/metrics"), ("GET", "/ready"), ("PUT", "/")]
)
def test_bodies_that_no_route_reads_take_no_memory(live_app: LiveApp, method: str, path: str) -> None:
    endpoints = pids_of("Endpoint")
    before = memory(endpoints)

    def send(_: int) -> float:
        with connect(live_app) as connection:
            connection.sendall(head(live_app, path, f"Content-Length: {30 * MEBIBYTE}", method=method))
            with suppress(OSError):  # it was answered, and not listened to
                send_for(connection, b"x" * MEBIBYTE, 2)
        return memory(endpoints) - before

    with ThreadPoolExecutor(20) as pool:
        assert max(pool.map(send, range(20))) < 100


@pytest.mark.slow
@pytest.mark.parametrize(("path", "size"), [("/v1/rerank", 30 * MEBIBYTE), ("/tokenize", 5 * MEBIBYTE)])
def test_many_large_bodies_take_bounded_memory_and_hold_nobody_up(live_app: LiveApp, path: str, size: int) -> None:
    """Of 40 at once, many are refused; none loses its connection."""
    endpoints = pids_of("Endpoint")
    before = memory(endpoints)
    body = json.dumps({"query": 5, "documents": [words(40, seed=1)] * (size // 400)}).encode().ljust(size)

    def send(_: int) -> tuple[int, float]:
        status = requests.post(live_app.base_url + path, data=body, headers=live_app.headers, timeout=90).status_code
        return status, memory(endpoints)

    with ThreadPoolExecutor(40) as pool:
        sending = [pool.submit(send, number) for number in range(40)]
        slowest = 0.0
        while not all(one.done() for one in sending):
            began = time.monotonic()
            assert live_app.post("/v1/rerank", {"query": "apple", "documents": ["bread"]}).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        statuses, memories = zip(*(one.result() for one in sending), strict=True)
    assert set(statuses) <= {413, 422, 429}
    assert max(memories) - before < 2_000
    assert slowest < 5


@pytest.mark.parametrize("method", ["BREW", "get", "TRACE", "PROPFIND", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/health", "/nothing"])
def test_methods_that_no_route_has_are_refused_in_json(live_app: LiveApp, method: str, path: str) -> None:
    """Also those that the parser of the endpoints does not know."""
    status, headers, error = first_answer(live_app, head(live_app, path, "Content-Length: 0", method=method))
    wanted = {"/v1/rerank": (405, "POST"), "/health": (405, "GET, HEAD"), "/nothing": (404, None)}
    assert (status, headers.get("Allow")) == wanted[path]
    assert error["request_id"] == headers["X-Request-Id"]


@pytest.mark.parametrize(("path", "status"), [("/v1/rerank", 405), ("/health", 405), ("/nothing", 404)])
def test_websockets_are_refused_in_json(live_app: LiveApp, path: str, status: int) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    asked = head(live_app, path, *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method="GET")
    answered, headers, error = first_answer(live_app, asked)
    assert (answered, error["request_id"]) == (status, headers["X-Request-Id"])


def first_answer(app: LiveApp, asked: bytes) -> tuple[int, Any, Any]:
    """Status, headers and error of what is answered to these bytes."""
    with connect(app) as connection:
        connection.sendall(asked)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.headers, json.loads(response.read())["detail"]


def test_many_scrapes_at_once_are_one(live_app: LiveApp) -> None:
    """They are all answered with the same page."""

    def scrape(_: int) -> tuple[int, str]:
        response = requests.get(f"{live_app.base_url}/metrics", timeout=10)
        return response.status_code, response.text

    with ThreadPoolExecutor(16) as pool:
        pages = set(pool.map(scrape, range(64)))
    assert {code for code, _ in pages} == {200}
    assert len(pages) < 20


@pytest.mark.slow
def test_slow_clients_are_told_and_all_end(live_app: LiveApp) -> None:
    """All at once: a connection that says nothing; a small body, a large one, and a line of a stream that stop; a small
    body of which a byte comes now and then; and a stream whose answers are not read, though its client sends on. Others
    are answered meanwhile, however many are silent."""
    small = head(live_app, "/v1/rerank", "Content-Length: 100") + b"{"
    large = head(live_app, "/v1/rerank", f"Content-Length: {MEBIBYTE}") + b" " * (MEBIBYTE // 2)
    stream = head(live_app, "/v1/rerank/stream", "Transfer-Encoding: chunked") + chunk(LINE[:50])
    with ThreadPoolExecutor(6) as pool:
        silent, stopped, stopped_large, stopped_stream, trickling = (
            pool.submit(answer_to, connect(live_app), data, every)
            for data, every in ((b"", 0), (small, 0), (large, 0), (stream, 0), (small, 1))
        )
        unread = pool.submit(never_read, live_app)
        crowd = [connect(live_app) for _ in range(100)]
        answers = [live_app.post("/v1/rerank", {"query": "apple", "documents": ["bread"]}) for _ in range(50)]
        assert {answer.status_code for answer in answers} == {200}
        assert not silent.done()
        assert silent.result()[0] == pytest.approx(haproxy.HEADER_SECONDS, abs=8)
        for ending, status, seconds in (
            (stopped, 408, 30),
            (stopped_large, 408, 30),
            (stopped_stream, 200, 30),
            (trickling, 408, haproxy.BODY_SECONDS),
        ):
            took, answer = ending.result()
            assert took == pytest.approx(seconds, abs=12)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"REQUEST_TIMEOUT" in answer
        unread.result()
        for connection in crowd:
            while connection.recv(65_536):
                pass


def answer_to(connection: socket.socket, data: bytes, every: float) -> tuple[float, bytes]:
    """When the server last said something, or ended the connection without a word; and all that it said.

    A space follows the data every so many seconds.
    """
    began = time.monotonic()
    answered_after = 0.0
    answer = b""
    with connection:
        connection.sendall(data)
        connection.settimeout(every or 80)
        while time.monotonic() - began < 120:
            try:
                part = connection.recv(65_536)
            except TimeoutError:
                connection.sendall(b" ")
                continue
            if not part:
                break
            answer += part
            answered_after = time.monotonic() - began
        else:
            pytest.fail("the server never ended the connection")
    return answered_after or time.monotonic() - began, answer


def never_read(app: LiveApp) -> None:
    """Sends lines whose answers are large; the server ends the stream, though its client would go on for ever."""
    document = {"text": "bread", "note": "x" * 300_000}
    line = json.dumps({"query": "apple", "documents": [document]}).encode() + b"\n"
    with open_stream(app) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_for(connection, chunk(line), 150)


RIGHT = (200, "application/json", False)
LATER = (503, "application/json", True)


def watched(app: LiveApp) -> set[Any]:
    """What is answered to one who asks until all is well: status, kind of body, and whether he may come again."""
    answers: set[Any] = set()
    in_a_row = 0
    end = time.monotonic() + 90
    while in_a_row < 500 and time.monotonic() < end:
        in_a_row += 1
        try:
            response = requests.get(f"{app.base_url}/ready", timeout=10)
        except requests.RequestException:
            answers.add("no connection")
            in_a_row = 0
            continue
        answer = (response.status_code, response.headers["Content-Type"], "Retry-After" in response.headers)
        answers.add(answer)
        if answer != RIGHT:
            in_a_row = 0
    return answers


@pytest.mark.slow
def test_while_haproxy_is_replaced_no_answer_is_final(live_app: LiveApp) -> None:
    for one in processes("haproxy"):
        one.kill()
    assert {RIGHT} < watched(live_app) <= {"no connection", RIGHT, LATER}
