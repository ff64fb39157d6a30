"""Other people's client libraries, unchanged, against our server: they rank, and their users read our errors.

The libraries have an environment of their own, since they and we want different versions of the same packages: `make
test-slow` builds it, CROSSRAY_CLIENTS_VENV names another place. `clients/ask.py` runs there.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serve.endpoint import logger
from serve.schemas import unsupported
from serve.scorer import Scorer
from serve.settings import ServeArgs
from tests.conftest import LiveApp
from tests.serve.conftest import Server, StartServer, run_server

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("CROSSRAY_CLIENTS_VENV", ROOT / ".venv-clients")) / "bin" / "python"
ASK = Path(__file__).parent / "clients" / "ask.py"
ENVIRONMENT = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it looks for its price list on the internet
    "NO_PROXY": "127.0.0.1",
}

JINA = ("RuntimeError", "RuntimeError", "RuntimeError")
COHERE = ("UnauthorizedError", "UnprocessableEntityError", "TooManyRequestsError")
LITELLM = ("AuthenticationError", "BadRequestError", "RateLimitError")
CLIENTS = {
    "langchain": JINA,
    "llama_index": JINA,
    "haystack": JINA,
    "cohere/v1": COHERE,
    "cohere/v2": COHERE,
    "litellm/cohere": LITELLM,
    "litellm/hosted_vllm": LITELLM,
    "litellm/huggingface": ("AuthenticationError", "APIError", "RateLimitError"),
    "litellm/jina_ai": LITELLM,
}
"""By library and class or provider: the exceptions that its user gets for a 401, a 422 and a 429."""

QUERY = "Organic skincare products for sensitive skin"
DOCUMENTS = [
    "New makeup trends focus on bold colors and innovative techniques",
    "Organic skincare for sensitive skin with aloe vera and chamomile.",
    "",
    "Bio-Hautpflege für empfindliche Haut mit Aloe Vera und Kamille",
]

Outcome = dict[str, Any]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason=f"{PYTHON} is missing: `make test-slow` builds the clients' environment; or set CROSSRAY_CLIENTS_VENV",
    ),
]
each_client = pytest.mark.parametrize("client", CLIENTS)


def ask(calls: list[dict[str, Any]]) -> list[Outcome]:
    """The outcome of each call, all of one library, in a process of its own."""
    library = calls[0]["client"].partition("/")[0]
    command = [str(PYTHON), "-I", str(ASK), library]
    environment = os.environ | ENVIRONMENT
    finished = subprocess.run(
        command, input=json.dumps(calls), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    outcomes: list[Outcome] = json.loads(finished.stdout)
    return outcomes


def call_of(client: str, server: Server | LiveApp, **changes: Any) -> dict[str, Any]:
    """A call that succeeds, unless the changes are to the contrary."""
    call = {"client": client, "base_url": server.base_url, "key": server.key}
    return call | {"query": QUERY, "documents": DOCUMENTS, "top_n": 2} | changes


@pytest.fixture(scope="module")
def overloaded(scorers: dict[str, Scorer], bert_directory: Path) -> Iterator[Server]:
    """A server whose queue is full as long as the tests run."""
    args = ServeArgs(model=str(bert_directory), max_queued_tokens=1)
    with run_server(args, True, scorers) as server, server.endpoint.admission.admit(tokens=1, documents=1):
        yield server


@pytest.fixture(scope="module")
def outcomes_of(live_app: LiveApp, overloaded: Server) -> Callable[[str], dict[str, Outcome]]:
    """The outcomes of a client by case; a library is imported, which takes seconds, once for all of its clients."""

    @functools.cache
    def of_library(library: str) -> dict[str, dict[str, Outcome]]:
        calls = {}
        for client in CLIENTS:
            if client.partition("/")[0] == library:
                calls[client, "top 2"] = call_of(client, live_app)
                calls[client, "all"] = call_of(client, live_app, top_n=None)
                calls[client, "slash"] = call_of(client, live_app, base_url=live_app.base_url + "/")
                calls[client, "401"] = call_of(client, live_app, key="wrong")
                calls[client, "422"] = call_of(client, live_app, query=" ")
                calls[client, "429"] = call_of(client, overloaded)
        outcomes: dict[str, dict[str, Outcome]] = {client: {} for client, _ in calls}
        for (client, case), outcome in zip(calls, ask(list(calls.values())), strict=True):
            outcomes[client][case] = outcome
        return outcomes

    return lambda client: of_library(client.partition("/")[0])[client]


@pytest.fixture(scope="module")
def expected(live_app: LiveApp) -> list[tuple[str, float]]:
    """The ranking of all documents, without any client."""
    return ranking_of(live_app)


def ranking_of(server: Server | LiveApp) -> list[tuple[str, float]]:
    answer = server.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS}).json()
    return [(one["document"]["text"], one["relevance_score"]) for one in answer["results"]]


def check_ranking(outcome: Outcome, expected: list[tuple[str, float]]) -> None:
    assert "ranking" in outcome, outcome
    assert [text for text, _ in outcome["ranking"]] == [text for text, _ in expected]
    assert [score for _, score in outcome["ranking"]] == pytest.approx([score for _, score in expected], abs=1e-4)


@each_client
def test_the_best_come_back_in_order(
    client: str, outcomes_of: Callable[[str], dict[str, Outcome]], expected: list[tuple[str, float]]
) -> None:
    check_ranking(outcomes_of(client)["top 2"], expected[:2])


@each_client
def test_all_come_back_where_no_number_is_given(
    client: str, outcomes_of: Callable[[str], dict[str, Outcome]], expected: list[tuple[str, float]]
) -> None:
    """LangChain and Haystack send null."""
    assert len(expected) == len(DOCUMENTS)
    check_ranking(outcomes_of(client)["all"], expected)


@each_client
def test_a_base_url_may_end_in_a_slash(
    client: str, outcomes_of: Callable[[str], dict[str, Outcome]], expected: list[tuple[str, float]]
) -> None:
    """Most clients append their path to it, and so send `//v1/rerank`."""
    check_ranking(outcomes_of(client)["slash"], expected[:2])


@each_client
def test_who_has_a_wrong_key_reads_so(client: str, outcomes_of: Callable[[str], dict[str, Outcome]]) -> None:
    outcome = outcomes_of(client)["401"]
    assert outcome["error"] == CLIENTS[client][0]
    assert "this API key is not known here" in outcome["message"]


@each_client
def test_who_sends_a_blank_query_reads_so(client: str, outcomes_of: Callable[[str], dict[str, Outcome]]) -> None:
    outcome = outcomes_of(client)["422"]
    assert outcome["error"] == CLIENTS[client][1]
    assert "'query': Query has nothing but white space" in outcome["message"].replace("\\", "")


@each_client
def test_who_comes_when_the_server_is_busy_reads_so(
    client: str, outcomes_of: Callable[[str], dict[str, Outcome]]
) -> None:
    outcome = outcomes_of(client)["429"]
    assert outcome["error"] == CLIENTS[client][2]
    assert "the server is busy and its queue full; try again in" in outcome["message"]


def test_warnings_break_no_client(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers have one, as if each client had sent a near miss."""
    server = start_server(keys=True)
    expected = ranking_of(server)
    monkeypatch.setattr(unsupported, "near_misses", lambda *_: ["`topn` is not read here; did you mean `top_n`?"])
    assert "warnings" in server.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS}).json()
    for library in sorted({client.partition("/")[0] for client in CLIENTS}):
        clients = [client for client in CLIENTS if client.partition("/")[0] == library]
        for outcome in ask([call_of(client, server) for client in clients]):
            check_ranking(outcome, expected[:2])


def test_cohere_comes_again_when_the_server_says_so(
    start_server: StartServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its class retries by itself, after the seconds of Retry-After."""
    monkeypatch.setattr(logger, "parent", logging.root)  # Serve's logger keeps lines to itself once Serve runs
    caplog.set_level(logging.INFO, logger.name)
    server = start_server(keys=True, max_queued_tokens=1)
    expected = ranking_of(server)
    with ThreadPoolExecutor(1) as asking:
        with server.endpoint.admission.admit(tokens=1, documents=1):
            outcomes = asking.submit(ask, [call_of("cohere/v2 with retries", server)])
            deadline = time.monotonic() + 60
            while len(codes(caplog)) < 2:
                assert time.monotonic() < deadline, "waited in vain"
                time.sleep(0.01)
        [outcome] = outcomes.result()

    check_ranking(outcome, expected[:2])
    assert codes(caplog) == [200, 429, 200]


def codes(caplog: pytest.LogCaptureFixture) -> list[int]:
    """What the requests so far were answered with, by the lines of the log."""
    return [json.loads(record.message)["code"] for record in caplog.records if record.levelno == logging.INFO]
