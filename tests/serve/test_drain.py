"""A server that loses nothing when it ends."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from serve.auth import new_key
from serve.drain import under_way
from serve.private_ray import reserve_port
from serve.settings import ServeArgs
from tests.serve.conftest import LiveApp, duplex

ROOT = Path(__file__).parents[2]
STREAMED = {"query": "a b", "documents": ["c d", "e f"]}


def test_haproxys_table_tells_what_is_under_way() -> None:
    """Three clients are connected; one of them waits."""
    table = "# pxname,svname,scur,smax\nhttp_frontend,FRONTEND,3,9\nb,s,1,2\nb,BACKEND,1,2\nstats,BACKEND,0,1\n\n> "
    assert under_way(table) == 1
    assert under_way(table.replace("BACKEND,1", "BACKEND,0")) == 0


@dataclass
class Started:
    """`crossray serve`, as a process that was started."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path

    @property
    def said(self) -> str:
        """All that stands in its terminal."""
        return self.output.read_text()


@pytest.fixture
def flags() -> list[str]:
    """What the server is started with, beside model and port."""
    return []


@pytest.fixture
def started(bert_directory: Path, tmp_path: Path, flags: list[str]) -> Iterator[Started]:
    """With a Ray of its own that wants a token, as for everybody who starts it."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    # Not one that the system gives out: others take those before the server is up.
    output, port = tmp_path / "said.txt", reserve_port(20_000)
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "serve.cli", "--model", str(bert_directory), "--port", str(port), *flags],
            cwd=ROOT,
            env=environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    server = Started(process, f"http://127.0.0.1:{port}", output)
    try:
        yield server
    finally:
        if process.poll() is None:
            process.terminate()  # not kill: Ray would stay
            process.wait(90)
    assert "Traceback" not in server.said


def wait_until_up(server: Started) -> set[int]:
    """Returns when the command says that all is up: what `/health` answered from its first answer on."""
    statuses = set()

    def is_up() -> bool:
        with suppress(requests.RequestException):
            statuses.add(requests.get(f"{server.url}/health", timeout=5).status_code)
        return f"Page      {server.url}/\n" in server.said or server.process.poll() is not None

    wait_until(is_up, 120)
    assert answers(f"{server.url}/ready"), server.said
    return statuses


@pytest.mark.slow
def test_nothing_is_unknown_while_a_server_starts_and_a_death_is_a_line_in_its_terminal(started: Started) -> None:
    assert wait_until_up(started) <= {200, 503}
    assert "crossray: " not in started.said  # our script before HAProxy found a place for all of its edits
    said = len(started.said.splitlines())
    [replica] = [one for one in psutil.Process(started.process.pid).children(recursive=True) if is_scorer(one)]
    replica.kill()
    wait_until(lambda: f"a process of Scorer died (process {replica.pid}) and is being replaced" in started.said, 30)
    wait_until(lambda: answers(f"{started.url}/ready"), 60)
    assert len(started.said.splitlines()) == said + 1
    haproxy = settled_haproxy(psutil.Process(started.process.pid))
    haproxy.kill()
    wait_until(lambda: f"HAProxy died (process {haproxy.pid}) and is being replaced" in started.said, 30)
    wait_until(lambda: answers(f"{started.url}/ready"), 60)
    assert len(started.said.splitlines()) == said + 2


@pytest.mark.slow
@pytest.mark.parametrize("all_at_once", [True, False])
def test_nothing_listens_any_more_when_a_server_is_killed(started: Started, all_at_once: bool) -> None:
    """Whether the one process is killed that was started, or every one but HAProxy."""
    wait_until_up(started)
    server = psutil.Process(started.process.pid)
    children = server.children(recursive=True)
    balancers = haproxies(server)  # two while it is reloaded
    for one in (server, *children) if all_at_once else (server,):
        if one not in balancers:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    assert balancers
    wait_until(lambda: is_refused(started.url), 20)
    wait_until(lambda: not any(one.is_running() for one in balancers), 20)


def settled_haproxy(server: psutil.Process) -> psutil.Process:
    """The one HAProxy, once none has taken its place for a while: it is reloaded for new endpoints."""
    since, before = time.monotonic(), haproxies(server)
    while time.monotonic() < since + 5 or len(before) != 1:
        time.sleep(0.2)
        if (now := haproxies(server)) != before:
            since, before = time.monotonic(), now
    return before[0]


def haproxies(server: psutil.Process) -> list[psutil.Process]:
    found = []
    for one in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if one.name() == "haproxy":
                found.append(one)
    return found


def is_scorer(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "ServeReplica:crossray:Scorer" in " ".join(process.cmdline())
    return False


@pytest.mark.slow
def test_a_server_answers_what_is_under_way_when_it_is_told_to_end(started: Started) -> None:
    wait_until_up(started)
    server, url = started.process, started.url
    with duplex(LiveApp(url, "", ServeArgs())) as stream:
        stream.send({"id": 1, **STREAMED})
        first = stream.read()
        assert first is not None
        assert len(first["results"]) == 2
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: not answers(f"{url}/health"), 10)
        time.sleep(5)  # a controller that still looked after HAProxy would have replaced it by now
        assert server.poll() is None
        stream.send({"id": 2, **STREAMED})
        stream.end()
        second = stream.read()
        assert second is not None
        assert (second["id"], second["results"]) == (2, first["results"])
        assert stream.read() is None
    began = time.monotonic()
    assert server.wait(60) == 0
    assert time.monotonic() - began < 30


@pytest.fixture
def keys_file(tmp_path: Path, flags: list[str]) -> Path:
    """The file of the server's keys, named from the folder that it is started in."""
    file = tmp_path / "keys.txt"
    flags += ["--api-keys-file", os.path.relpath(file, ROOT)]
    file.write_text(new_key("first").line)
    return file


@pytest.mark.slow
def test_sighup_reads_the_keys_anew_and_ends_nothing(keys_file: Path, started: Started) -> None:
    wait_until_up(started)
    second = new_key("second")

    def is_let_in() -> bool:
        headers = {"Authorization": f"Bearer {second.key}"}
        return requests.post(f"{started.url}/v1/rerank", json=STREAMED, headers=headers, timeout=10).status_code == 200

    assert not is_let_in()
    keys_file.write_text(f"{keys_file.read_text()}\n{second.line}\n")
    started.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP: API keys were read anew: 2 accepted" in started.said, 10)
    assert all(is_let_in() for _ in range(20))
    keys_file.write_text("damaged")
    started.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "line 1 is not the hash of a key" in started.said, 10)
    assert is_let_in()
    assert started.process.poll() is None


def is_refused(url: str) -> bool:
    """Whether nothing listens there."""
    try:
        requests.get(url, timeout=5)
    except requests.RequestException as error:
        return "Connection refused" in str(error)
    return False


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def wait_until(holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
