"""A server that loses nothing when it ends."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from serve.drain import under_way
from serve.private_ray import free_port
from serve.settings import ServeArgs
from tests.serve.conftest import LiveApp, duplex

ROOT = Path(__file__).parents[2]
STREAMED = {"query": "a b", "documents": ["c d", "e f"]}


def test_haproxys_table_tells_what_is_under_way() -> None:
    """Three clients are connected; one of them waits."""
    table = "# pxname,svname,scur,smax\nhttp_frontend,FRONTEND,3,9\nb,s,1,2\nb,BACKEND,1,2\nstats,BACKEND,0,1\n\n> "
    assert under_way(table) == 1
    assert under_way(table.replace("BACKEND,1", "BACKEND,0")) == 0


@pytest.mark.slow
def test_a_server_answers_what_is_under_way_when_it_is_told_to_end(bert_directory: Path, tmp_path: Path) -> None:
    """With a Ray of its own that wants a token, as for everybody who starts it."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    said, port = tmp_path / "said.txt", free_port(0)
    with said.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "serve.cli", "--model", str(bert_directory), "--port", str(port)],
            cwd=ROOT,
            env=environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
            stderr=file,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: f"Page      {url}/\n" in said.read_text() or server.poll() is not None, 120)
        assert answers(f"{url}/ready"), said.read_text()
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
    finally:
        if server.poll() is None:
            server.terminate()  # not kill: Ray would stay
            server.wait(90)
    assert "Traceback" not in said.read_text()


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
