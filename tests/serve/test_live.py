"""The app on Ray Serve behind its HAProxy: the announcement's examples, overload, and every kind of death."""

from __future__ import annotations

import html
import io
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from ray import serve
from rich.console import Console

from jobs.scoring.app_scorer import scorer_handle
from pipelines.packing import TokenPair
from pipelines.pair_block import PairBlock
from pipelines.reranker import Reranker
from serve.app import build_app
from serve.auth import new_key
from serve.drain import processes
from serve.lanes import Lane
from serve.reloading import reload_keys
from tests.checkpoints import words, write_bert
from tests.serve.conftest import LiveApp, duplex

EXAMPLES = json.loads((Path(__file__).parents[1] / "data" / "announcement_examples.json").read_text(encoding="utf-8"))
Body = dict[str, Any]
LISTS: list[Body] = [
    {"query": words(4, seed=i), "documents": [words(30, seed=100 * i + j) for j in range(40)]} for i in range(8)
]
LARGE = [one | {"documents": [{"text": text, "note": "x" * 5_000} for text in one["documents"]]} for one in LISTS]
"""The same of 200 KB; only the texts are scored."""


@pytest.fixture(scope="module")
def embedded() -> Reranker:
    return Reranker.load("embedded", num_threads=1)


def pids_of(deployment: str, app: str = "crossray") -> list[int]:
    """The processes of a deployment's replicas."""
    found = []
    for process in psutil.Process().children(recursive=True):  # not those of another app on this machine
        with suppress(psutil.NoSuchProcess):
            if f"ServeReplica:{app}:{deployment}" in " ".join(process.cmdline()):
                found.append(process.pid)
    return sorted(found)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


@pytest.fixture
def whole(live_app: LiveApp) -> Iterator[LiveApp]:
    """The app before and after: two scorers, two endpoints, ready."""

    def is_whole() -> bool:
        replicas = len(pids_of("Scorer")), len(pids_of("Endpoint"))
        return replicas == (2, 2) and requests.get(f"{live_app.base_url}/ready", timeout=10).status_code == 200

    wait_until(is_whole)
    yield live_app
    wait_until(is_whole)


@pytest.mark.parametrize(("example", "best"), [("functions", 2), ("sql_tables", 2)])
def test_the_announcements_examples(live_app: LiveApp, embedded: Reranker, example: str, best: int) -> None:
    """Its requests as they stand: its shape, its best document, and our tokenizer's count."""
    request = EXAMPLES[example]

    answer = live_app.post("/v1/rerank", request).json()

    assert list(answer) == ["model", "usage", "results"]
    assert [list(one) for one in answer["results"]] == [["index", "document", "relevance_score"]] * len(
        request["documents"]
    )
    assert answer["results"][0]["index"] == best
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    texts = [request["query"], *request["documents"]]
    tokens = sum(len(ids) + 2 for ids in embedded.tokenizer.token_ids(texts))
    assert answer["usage"] == {"total_tokens": tokens, "prompt_tokens": tokens}


def test_scores_are_those_of_the_library(live_app: LiveApp, embedded: Reranker) -> None:
    for one in LISTS[:2]:
        answer = live_app.post("/v1/rerank", one).json()
        for actual, wanted in zip(answer["results"], embedded.rerank(**one), strict=True):
            assert actual["index"] == wanted.index
            assert actual["relevance_score"] == pytest.approx(wanted.relevance_score, abs=1e-4)


def test_several_queries_are_answered_in_their_order_and_one_that_is_wrong_costs_no_other(
    live_app: LiveApp, embedded: Reranker
) -> None:
    """In one call and on a line of a stream: each as if it had come alone."""
    sent = {"queries": [LISTS[0], {"query": " ", "documents": ["a"]}, LISTS[1]], "top_n": 3}
    answer = live_app.post("/v1/rerank", sent).json()
    line = json.loads(live_app.post("/v1/rerank/stream", sent | {"id": 7}).text)

    first, wrong, last = answer["responses"]
    for one, asked in ((first, LISTS[0]), (last, LISTS[1])):
        for actual, wanted in zip(one["results"], embedded.rerank(**asked, top_n=3), strict=True):
            assert actual["index"] == wanted.index
            assert actual["relevance_score"] == pytest.approx(wanted.relevance_score, abs=1e-4)
    assert wrong["code"] == "VALIDATION_ERROR"
    tokens = first["usage"]["total_tokens"] + last["usage"]["total_tokens"]
    assert answer["usage"] == {"total_tokens": tokens, "prompt_tokens": tokens}
    assert (line["id"], [list(one) for one in line["responses"]]) == (7, [list(one) for one in answer["responses"]])


def test_a_threshold_of_the_embedded_models_scores(live_app: LiveApp, embedded: Reranker) -> None:
    threshold = embedded.rerank(**LISTS[0])[9].relevance_score - 1e-3
    answer = live_app.post("/v1/rerank", LISTS[0] | {"score_threshold": threshold}).json()
    wanted = [one.index for one in embedded.rerank(**LISTS[0], score_threshold=threshold)]
    assert [one["index"] for one in answer["results"]] == wanted
    assert 10 <= len(wanted) < 40


def test_models_health_and_ready(live_app: LiveApp, embedded: Reranker) -> None:
    [card] = requests.get(f"{live_app.base_url}/v1/models", headers=live_app.headers, timeout=10).json()["data"]
    assert (card["id"], card["max_length"], card["max_query_length"]) == ("embedded", 256, 128)
    assert (card["dtype"], card["calibrated"]) == ("float32", True)
    for path in ("/health", "/ready", "/ping"):
        assert requests.get(live_app.base_url + path, timeout=10).status_code == 200


def test_an_answer_has_one_request_id_and_never_one_that_was_refused(live_app: LiveApp) -> None:
    """Serve adds one of its own to whatever an endpoint answers."""
    for path in ("/v1/rerank", "/v1/nothing"):
        for sent, is_kept in ((None, False), ("mine-1", True), ("a b", False), ("x" * 65, False), (b"\xe9", False)):
            headers = live_app.headers | {"X-Request-Id": sent}
            response = requests.post(live_app.base_url + path, json=LISTS[0], headers=headers, timeout=60)
            ids = response.raw.headers.getlist("X-Request-Id")
            assert len(ids) == 1
            assert (ids == [sent]) is is_kept
            assert response.status_code == 200 or response.json()["detail"]["request_id"] == ids[0]
            if not is_kept:
                assert re.fullmatch("[0-9a-f-]{32,36}", ids[0])


def test_a_stream_passes_the_proxy_in_both_directions_at_once(live_app: LiveApp) -> None:
    """A line is sent when the one before it is answered."""
    with duplex(live_app) as stream:
        for number in range(3):
            stream.send(LISTS[number] | {"id": number})
            answer = stream.read()
            assert answer is not None
            assert (answer["id"], len(answer["results"])) == (number, 40)
        stream.end()
        assert stream.read() is None


@pytest.fixture
def keys_file(live_app: LiveApp) -> Iterator[Path]:
    """The file of the app's keys, which is as it was in the end."""
    file = Path(live_app.args.api_keys_file or "")
    before = file.read_text()
    yield file
    file.write_text(before)
    reload_keys("crossray", live_app.args, Console(quiet=True))


def test_keys_hold_and_no_longer_hold_within_seconds_of_a_change_of_their_file(
    live_app: LiveApp, keys_file: Path
) -> None:
    """In all endpoints; a stream under way is answered to its end, and a damaged file changes nothing."""
    before, second = keys_file.read_text(), new_key("second")

    def statuses(key: str) -> set[int]:
        bearer = {"Authorization": f"Bearer {key}"}
        body = {"query": "a", "documents": []}
        return {  # of many connections, which the proxy sends to both endpoints in turn
            requests.post(f"{live_app.base_url}/v1/rerank", json=body, headers=bearer, timeout=10).status_code
            for _ in range(12)
        }

    assert statuses(second.key) == {401}
    keys_file.write_text(f"{before}\n{second.line}\n")
    wait_until(lambda: statuses(second.key) == {200}, 5)
    with duplex(live_app) as stream:
        stream.send(LISTS[0] | {"id": 1})
        assert stream.read() is not None
        keys_file.write_text(second.line)
        wait_until(lambda: statuses(live_app.key) == {401}, 5)
        stream.send(LISTS[1] | {"id": 2})
        stream.end()
        answer = stream.read()
        assert answer is not None
        assert answer["id"] == 2
    # While a stream is open the proxy sends all others to the endpoint that has fewer connections.
    wait_until(lambda: statuses(live_app.key) == {401}, 5)
    keys_file.write_text("")
    said = io.StringIO()
    reload_keys("crossray", live_app.args, Console(file=said))  # as SIGHUP has it done
    assert (
        said.getvalue() == f"SIGHUP: {keys_file} holds no API key; `crossray keys new` makes a key and its line; "
        "the keys that were read before still hold\n"
    )
    assert (statuses(second.key), statuses(live_app.key)) == ({200}, {401})
    keys_file.write_text(before)
    reload_keys("crossray", live_app.args, Console(file=said))
    assert said.getvalue().endswith("SIGHUP: API keys were read anew: 1 accepted\n")
    assert (statuses(second.key), statuses(live_app.key)) == ({401}, {200})


def test_bodies_that_are_wrong_hold_nobody_up(live_app: LiveApp) -> None:
    """Eight million zeros in place of documents, again and again from several sides: others are answered in between."""
    zeros = b'{"query": "a", "documents": [' + b"0," * (8 << 20) + b"0]}"
    small = {"query": "a", "documents": ["b"]}
    order: list[str] = []

    def send_wrong(_: int) -> None:
        for _ in range(4):
            response = live_app.post("/v1/rerank", data=zeros)
            assert (response.status_code, response.json()["detail"]["code"]) == (413, "TOO_MANY_VALUES")
            order.append("wrong")

    with ThreadPoolExecutor(4) as pool:
        wrong = [pool.submit(send_wrong, client) for client in range(4)]
        while not all(one.done() for one in wrong):
            assert live_app.post("/v1/rerank", small).status_code == 200
            order.append("right")
    for one in wrong:
        one.result()
    first, last = order.index("wrong"), len(order) - order[::-1].index("wrong")
    assert order[first:last].count("right") >= 3


@pytest.mark.parametrize(
    ("path", "sent", "status", "code"),
    [
        ("/v1/rerank", {"query": "a", "documents": [0] * 300_000}, 413, "TOO_MANY_DOCUMENTS"),
        ("/v2/rerank", {"query": "a", "documents": [0] * 10_000}, 422, None),
        ("/rerank", {"query": "a", "texts": [0] * 300_000}, 413, "TOO_MANY_DOCUMENTS"),
        ("/v1/score", {"queries": [0] * 300_000, "documents": "a"}, 413, "TOO_MANY_DOCUMENTS"),
        ("/invocations", {"data": {"query": "a", "documents": [0] * 300_000}}, 413, "TOO_MANY_DOCUMENTS"),
        ("/v1/rerank", {"query": "a", "documents": [{"text": "a", "n": [[]] * 2_000_000}]}, 413, "TOO_MANY_VALUES"),
        ("/v1/rerank", {"query": "a", "documents": [dict.fromkeys(map(str, range(300_000)), 0)]}, 422, None),
        ("/v1/rerank", {"queries": [0] * 300_000}, 422, None),
        ("/v1/rerank", {"queries": [{"query": "a", "documents": [0] * 300_000}]}, 413, "TOO_MANY_DOCUMENTS"),
    ],
)
def test_bounds_hold_before_work(live_app: LiveApp, path: str, sent: Body, status: int, code: str | None) -> None:
    """Also for the lines of a stream, where the dialect is Jina's."""
    response = live_app.post(path, sent)
    assert response.status_code == status
    assert code is None or response.json()["detail"]["code"] == code
    if path == "/v1/rerank":
        lines = live_app.post("/v1/rerank/stream", data=json.dumps(sent)).text.splitlines()
        assert [json.loads(line)["error"]["status"] for line in lines] == [status]


TEXTS = {"query": "apple", "texts": ["bread", "candle"]}
LIST = {"query": "apple", "documents": ["bread", "candle"]}
SCORES = {"text_1": "apple", "text_2": ["bread", "candle"]}
BODIES: dict[str, list[Body]] = {
    "/": [TEXTS],
    "/v1/rerank": [LIST],
    "/v2/rerank": [LIST],
    "/rerank": [TEXTS, LIST],
    "/v1/score": [SCORES],
    "/score": [SCORES],
    "/tokenize": [{"inputs": "apple"}, {"prompt": "apple"}],
    "/invocations": [{"data": LIST}, TEXTS, SCORES, LIST],
    "/v1/rerank/stream": [LIST],
}
"""What each route that takes a body is asked in the next test."""


@pytest.mark.parametrize(
    ("path", "sent", "place"),
    [
        ("/v1/rerank", LIST, ["warnings"]),
        ("/v2/rerank", LIST, ["meta", "warnings"]),
        ("/rerank", LIST, ["warnings"]),
        ("/rerank", TEXTS, None),
        ("/v1/score", SCORES, ["warnings"]),
        ("/invocations", {"data": LIST}, ["warnings"]),
        ("/tokenize", {"prompt": "apple"}, ["warnings"]),
        ("/tokenize", {"inputs": "apple"}, None),
    ],
)
def test_near_misses_are_named_in_each_dialect(
    live_app: LiveApp, path: str, sent: Body, place: list[str] | None
) -> None:
    """In the answer where it has a place for them, and always in a header; who makes none has no such field."""
    near, meant = ("add_special_token", "add_special_tokens") if path == "/tokenize" else ("maxlength", "max_length")
    warning = f"`{near}` is not read here; did you mean `{meant}`?"
    inside = {"data": sent["data"] | {near: 1}} if "data" in sent else sent | {near: 1}

    plain, warned = (live_app.post(path, body) for body in (sent, inside))

    assert (plain.status_code, warned.status_code) == (200, 200)
    assert warned.headers["X-Crossray-Warning"] == warning
    assert "X-Crossray-Warning" not in plain.headers
    answer = warned.json()
    if place is None:
        assert answer == plain.json()
    else:
        for name in place:
            answer = answer[name]
        assert answer == [warning]
        assert "warnings" not in plain.text


def test_near_misses_are_named_in_the_lines_of_a_stream(live_app: LiveApp) -> None:
    line = json.loads(live_app.post("/v1/rerank/stream", LIST | {"topn": 1}).text)
    assert line["warnings"] == ["`topn` is not read here; did you mean `top_n`?"]


def test_each_example_of_docs_works(live_app: LiveApp) -> None:
    """Tools that offer a form for each route begin with it; every route that takes a body has one."""
    paths = requests.get(f"{live_app.base_url}/openapi.json", timeout=10).json()["paths"]
    page = requests.get(f"{live_app.base_url}/docs", timeout=10).text
    for path in (path for path, methods in paths.items() if "post" in methods):
        [content] = paths[path]["post"]["requestBody"]["content"].values()
        assert content["examples"], path
        for example in content["examples"].values():
            value = example["value"]
            body = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            answer = live_app.post(path, data=body.encode())
            assert answer.status_code == 200, (path, answer.text)
            assert "X-Crossray-Warning" not in answer.headers
            assert '"error"' not in answer.text
            assert html.escape(body) in page
    for path in (path for path, methods in paths.items() if "get" in methods):
        assert requests.get(live_app.base_url + path, headers=live_app.headers, timeout=20).status_code == 200


def test_every_route_works_under_a_prefix(live_app: LiveApp) -> None:
    """As at /: answers, keys, the form of errors, the page and what it loads."""
    args = live_app.args.model_copy(update={"min_replicas": 1, "max_replicas": 1, "endpoints": 1})
    serve.run(build_app(args), name="prefixed", route_prefix="/some/prefix")
    prefixed = LiveApp(f"{live_app.base_url}/some/prefix", live_app.key, args)
    try:
        openapi = f"{prefixed.base_url}/openapi.json"
        wait_until(lambda: requests.get(openapi, timeout=10).status_code == 200)  # until HAProxy knows the app
        paths = requests.get(openapi, timeout=30).json()["paths"]
        assert {path for path, methods in paths.items() if "post" in methods} == set(BODIES) - {"/"}  # not in /docs
        for path, bodies in BODIES.items():
            check_posts(live_app, prefixed, path, bodies)
        for path in [path for path, methods in paths.items() if "get" in methods] + ["/docs"]:
            check_get(live_app, prefixed, path)
        check_page(prefixed)
        with duplex(prefixed) as stream:
            for number in range(2):
                stream.send(LIST | {"id": number})
                answer = stream.read()
                assert answer is not None
                assert answer["id"] == number
    finally:
        serve.delete("prefixed", _blocking=False)


def check_posts(plain: LiveApp, prefixed: LiveApp, path: str, bodies: list[Body]) -> None:
    for sent in bodies:
        for slash in ("", "/"):
            answers = [app.post(path + slash, sent) for app in (plain, prefixed)]
            assert [one.status_code for one in answers] == [200, 200], path
            if path != "/v1/rerank/stream":
                first, second = (one.json() for one in answers)
                assert type(first) is type(second)
                assert set(first) == set(second) if isinstance(first, dict) else len(first) == len(second)
    without_key = requests.post(prefixed.base_url + path, json=bodies[0], timeout=10)
    wrong = [app.post(path, data=b"{") for app in (plain, prefixed)]
    assert without_key.status_code == 401
    if path != "/v1/rerank/stream":
        assert [one.status_code for one in wrong] == [400, 400]
        assert set(wrong[0].json()) == set(wrong[1].json())


def check_get(plain: LiveApp, prefixed: LiveApp, path: str) -> None:
    with requests.Session() as session:
        for headers in ({}, plain.headers):
            statuses = [
                session.request(method, app.base_url + path, headers=headers, timeout=20).status_code
                for app in (plain, prefixed)
                for method in ("HEAD", "GET")
            ]
            assert len(set(statuses)) == 1, path
    assert statuses == [200] * 4, path


def check_page(prefixed: LiveApp) -> None:
    """Where it is asked for without its last slash, it is sent there: its links are relative."""
    page = requests.get(prefixed.base_url, timeout=10)
    assert (page.status_code, page.url) == (200, f"{prefixed.base_url}/")
    assert "page/app.js" in page.text
    assert requests.get(f"{page.url}page/app.js", timeout=10).status_code == 200


def under_load(
    app: LiveApp, disturb: Callable[[], Any], lists: list[Body] = LISTS, clients: int = 6, seconds: float = 8
) -> Counter[Any]:
    """What clients are answered who ask all the time while something is done to the app."""
    answers: Counter[Any] = Counter()
    ends = time.monotonic() + seconds

    def ask(client: int) -> None:
        session = requests.Session()
        while time.monotonic() < ends:
            try:
                body = lists[client % len(lists)]
                response = session.post(f"{app.base_url}/v1/rerank", json=body, headers=app.headers, timeout=60)
                answers[response.status_code, reason_of(response)] += 1
            except (requests.RequestException, ValueError) as error:
                answers[type(error).__name__] += 1

    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, client) for client in range(clients)]
        time.sleep(seconds / 4)
        disturb()
        for one in asking:
            one.result()
    return answers


def reason_of(response: requests.Response) -> str | None:
    """The code of an error, or its words where it has none."""
    detail = response.json().get("detail", {}) if response.status_code != 200 else {}
    return detail if isinstance(detail, str) else detail.get("code")


@pytest.mark.slow
def test_a_scorer_killed_under_load_costs_no_answer(whole: LiveApp) -> None:
    answers = under_load(whole, lambda: os.kill(pids_of("Scorer")[0], signal.SIGKILL))
    assert set(answers) <= {(200, None), (503, "NO_REPLICA")}
    assert answers[200, None] > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lists", "deaths"), [(LISTS, 1), (LARGE, 1), (LARGE, 2)], ids=["8 KB", "200 KB", "200 KB, both endpoints"]
)
def test_endpoints_killed_under_load_cost_no_answer(whole: LiveApp, lists: list[Body], deaths: int) -> None:
    """HAProxy sends their requests to the other one, and to Serve's own proxy if there is none."""

    def kill() -> None:
        for pid in pids_of("Endpoint")[:deaths]:
            os.kill(pid, signal.SIGKILL)

    assert set(under_load(whole, kill, lists)) == {(200, None)}


@pytest.mark.slow
def test_an_endpoint_killed_under_load_of_large_requests_costs_no_connection(whole: LiveApp) -> None:
    """What HAProxy cannot hold and send again is answered, too; its clients keep their connections."""
    larger = [one | {"documents": [one | {"note": "x" * 15_000} for one in one["documents"]]} for one in LARGE]
    answers = under_load(whole, lambda: os.kill(pids_of("Endpoint")[0], signal.SIGKILL), larger)
    assert set(answers) <= {(200, None), (503, "UNAVAILABLE")}
    assert answers[200, None] > 10


@pytest.mark.slow
def test_a_redeployment_under_load_costs_no_answer(whole: LiveApp) -> None:
    """All processes are replaced, by others that batch differently."""
    before = pids_of("Scorer") + pids_of("Endpoint")
    args = whole.args.model_copy(update={"max_batch_tokens": 4_096})

    def redeploy() -> None:
        serve.run(build_app(args), name="crossray", route_prefix="/")

    answers = under_load(whole, redeploy, seconds=20)

    assert set(answers) == {(200, None)}
    assert answers[200, None] > 10
    wait_until(lambda: not set(before) & {*pids_of("Scorer"), *pids_of("Endpoint")})


@pytest.mark.slow
def test_the_replicas_follow_the_tokens_that_wait(live_app: LiveApp) -> None:
    """One replica, and a second one once there is more to do than one is meant to have."""
    args = live_app.args.model_copy(update={"min_replicas": 1, "max_replicas": 2, "queued_tokens_per_replica": 5_000})
    pairs = [TokenPair(list(range(first, first + 400)), [0] * 400) for first in range(1000, 1100)]
    serve.run(build_app(args), name="growing", route_prefix="/growing")
    try:
        assert len(pids_of("Scorer", app="growing")) == 1
        scorer = scorer_handle("growing")
        waiting = [scorer.logits.remote(PairBlock.of(pairs), Lane.BULK) for _ in range(20)]
        wait_until(lambda: len(pids_of("Scorer", app="growing")) == 2)
        for one in waiting:
            one.cancel()
    finally:
        serve.delete("growing")


@pytest.mark.slow
def test_a_replica_that_finds_other_files_than_were_deployed_does_not_start(live_app: LiveApp, tmp_path: Path) -> None:
    """The directory is replaced in place, and the replica is too."""
    model = write_bert(tmp_path / "model")
    args = live_app.args.model_copy(
        update={"model": str(model), "min_replicas": 1, "max_replicas": 1, "endpoints": 1, "deadline_seconds": 2}
    )
    serve.run(build_app(args), name="replaced", route_prefix="/replaced")
    app = LiveApp(f"{live_app.base_url}/replaced", live_app.key, args)
    try:
        wait_until(lambda: app.post("/v1/rerank", LISTS[0]).status_code == 200)
        write_bert(model, seed=99)
        os.kill(pids_of("Scorer", app="replaced")[0], signal.SIGKILL)
        reason = "are not those that the app was deployed with"
        wait_until(lambda: reason in serve.status().applications["replaced"].deployments["Scorer"].message)
        assert app.post("/v1/rerank", LISTS[0]).status_code == 503
    finally:
        serve.delete("replaced", _blocking=False)


@pytest.mark.slow
def test_three_times_the_budget_is_answered_with_200_or_429(whole: LiveApp) -> None:
    """More clients than there is room for: each is answered at once, the app is ready right after."""
    large = {"query": "apple", "documents": [words(120, seed=i) for i in range(200)]}

    def ask(_: int) -> tuple[int, str | None]:
        response = whole.post("/v1/rerank", large)
        assert response.status_code == 200 or int(response.headers["Retry-After"]) >= 1
        return response.status_code, response.json().get("detail", {}).get("code")

    with ThreadPoolExecutor(24) as pool:
        answers = Counter(pool.map(ask, range(24)))
    assert set(answers) == {(200, None), (429, "OVERLOADED")}
    assert whole.post("/v1/rerank", LISTS[0]).status_code == 200


@pytest.mark.slow
def test_the_proxy_killed_is_back_by_itself(whole: LiveApp) -> None:
    for proxy in processes("haproxy"):
        proxy.kill()
    time.sleep(0.1)

    def is_back() -> bool:
        try:
            return whole.post("/v1/rerank", LISTS[0]).status_code == 200
        except requests.RequestException:
            return False

    wait_until(is_back, 30)


def test_metrics_of_all_processes_are_on_one_page(live_app: LiveApp) -> None:
    live_app.post("/v1/rerank", LISTS[0])
    wanted = ("crossray_requests", "crossray_tokens", "crossray_batch_tokens", "crossray_inference_seconds")

    def names() -> set[str]:
        page = requests.get(f"{live_app.base_url}/metrics", timeout=10).text
        return {line.split("{")[0].split()[0] for line in page.splitlines() if not line.startswith("#")}

    wait_until(lambda: all(any(name.startswith(one) for name in names()) for one in wanted), 30)
    assert all(name.startswith("crossray_") for name in names())
