"""The server against its own OpenAPI: whatever comes in, what goes out is no 5xx and looks as documented."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError
from schemathesis.generation import GenerationMode

from serve.gate import STREAM_PATH, BodyLimits
from serve.scorer import Scorer
from serve.settings import ServeArgs
from tests.serve.conftest import Server, Sizes, StartServer, run_server

ROOT = Path(__file__).parents[2]
INFERENCE = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/score", "/invocations")
BODY = {"query": "apple", "documents": ["bread", "candle"], "model": "tiny"}
"""A valid request on each of them: vLLM's word for `query` is another one, and is added."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(scorers: dict[str, Scorer], bert_directory: Path) -> Iterator[Server]:
    with run_server(ServeArgs(model=str(bert_directory), served_model_name="tiny"), True, scorers) as server:
        yield server


@pytest.fixture(scope="module")
def api(server: Server) -> Any:
    """The OpenAPI as schemathesis reads it."""
    return schemathesis.openapi.from_url(f"{server.base_url}/openapi.json")


def test_whatever_comes_in_the_answer_is_as_documented(server: Server) -> None:
    """Not negative_data_rejection: we read liberally, `"true"` for true, as real clients want it.

    A process of its own, since schemathesis 4.32 is no plug-in for pytest 9.2.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.base_url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {server.key}"]
    command += ["--exclude-path", "/metrics"]  # asks Ray, which is not here
    command += ["--exclude-checks", "negative_data_rejection,positive_data_acceptance"]
    command += ["--max-examples", "120", "--generation-database", "none", "--suppress-health-check", "all"]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.serve.fuzz_checks"}

    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert server.handle.calls.count("logits") > 500


@pytest.mark.parametrize("path", INFERENCE)
def test_every_error_looks_as_documented(path: str, start_server: StartServer, api: Any) -> None:
    """Those of the documentation all happen, and no others."""
    sizes = Sizes(body=BodyLimits(silent_seconds=0.2))
    valid = BODY | ({"queries": "apple"} if "score" in path else {})
    server = start_server(keys=True, sizes=sizes, strict_model=True, max_documents=2, max_queued_tokens=1)
    provoked: dict[int, Callable[[], requests.Response]] = {
        400: lambda: server.post(path, data=b"{"),
        401: lambda: server.post(path, valid, headers={"Authorization": "Bearer wrong"}),
        404: lambda: server.post(path, valid | {"model": "another"}),
        408: lambda: server.post(path, data=slowly()),
        413: lambda: server.post(path, valid | {"documents": ["bread"] * 3}),
        415: lambda: server.post(path, valid, headers={"Content-Encoding": "gzip"}),
        422: lambda: server.post(path, {}),
        429: lambda: refused(server, path, valid),
        500: lambda: failing(server, path, valid, RuntimeError()),
        503: lambda: failing(server, path, valid, ActorDiedError()),
    }
    operation = api[path]["POST"]
    assert set(provoked) == {int(status) for status in operation.definition.raw["responses"]} - {200}
    for status, provoke in provoked.items():
        response = provoke()
        assert response.status_code == status
        operation.validate_response(response)


def slowly() -> Iterator[bytes]:
    """A body that is longer silent than the server waits."""
    yield b"{"
    time.sleep(0.6)


def refused(server: Server, path: str, body: dict[str, Any]) -> requests.Response:
    """The answer of a server that is busy."""
    with server.endpoint.admission.admit(tokens=1, documents=1):
        return server.post(path, body)


def failing(server: Server, path: str, body: dict[str, Any], error: Exception) -> requests.Response:
    """The answer of a server whose replicas fail, one after the other."""
    server.handle.failures[:] = [error, error]
    response = server.post(path, body)
    server.handle.failures.clear()
    return response


def as_line(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@given(data=st.data())
@settings(max_examples=50)
def test_a_line_of_a_stream_is_answered_as_the_route_would(data: st.DataObject, server: Server, api: Any) -> None:
    """Bodies that fit the schema, and others, which may be bytes."""
    route = api["/v1/rerank"]["POST"]
    bodies = st.one_of(*(route.as_strategy(mode) for mode in GenerationMode)).map(lambda case: case.body)
    lines = bodies.filter(lambda body: isinstance(body, dict | list | str | bytes)).map(as_line)
    sent = data.draw(st.lists(lines.filter(lambda line: line.strip() and b"\n" not in line), min_size=1, max_size=5))

    answers = [json.loads(line) for line in server.post(STREAM_PATH, data=b"\n".join(sent)).text.splitlines()]

    assert sorted(answer["line"] for answer in answers) == list(range(1, len(sent) + 1))
    for answer in answers:
        alone = server.post("/v1/rerank", data=sent[answer["line"] - 1])
        assert answer.get("error", {"status": 200})["status"] == alone.status_code
        for name in ("results", "responses"):
            assert len(answer.get(name, [])) == len(alone.json().get(name, []))
