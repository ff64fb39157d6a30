"""Several queries in one request, over HTTP: each is answered as if it had come alone, and fails alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve.lanes import Lane
from serve.scorer import PairBlock, Scored, Scorer
from serve.settings import ServeArgs
from tests.checkpoints import words
from tests.serve.conftest import Server, Sizes, StartServer, run_server

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")


def lists(count: int) -> list[dict[str, Any]]:
    """Queries with two documents and more each, long ones among them."""
    return [
        {"query": words(3, seed=i), "documents": [words(5 + 60 * j, seed=10 * i + j) for j in range(2 + i % 3)]}
        for i in range(count)
    ]


def check_alone(server: Server, sent: dict[str, Any]) -> None:
    """Raises AssertionError unless each query is answered as it would be alone, with what stands beside it."""
    several = server.post("/v1/rerank", sent)
    assert several.status_code == 200
    beside = {name: value for name, value in sent.items() if name != "queries"}
    tokens = 0
    for query, answer in zip(sent["queries"], several.json()["responses"], strict=True):
        alone = server.post("/v1/rerank", beside | query).json()
        assert alone | {"results": []} == answer | {"results": []}
        assert [one["index"] for one in answer["results"]] == [one["index"] for one in alone["results"]]
        assert [one.get("document") for one in answer["results"]] == [one.get("document") for one in alone["results"]]
        for actual, wanted in zip(answer["results"], alone["results"], strict=True):
            assert actual["relevance_score"] == pytest.approx(wanted["relevance_score"], abs=1e-5)
        tokens += alone["usage"]["total_tokens"]
    assert several.json()["usage"] == {"total_tokens": tokens, "prompt_tokens": tokens}
    assert list(several.json()) == ["model", "usage", "responses"]


def test_each_query_is_answered_as_it_would_be_alone(start_server: StartServer) -> None:
    """Also with lengths, numbers of documents and kinds of scores of its own, in blocks, and without documents."""
    own: list[dict[str, Any]] = [
        {},
        {"top_n": 1, "return_documents": False},
        {"max_length": 32, "max_query_length": 12, "overlap_tokens": 4},
        {"max_length": 32, "max_query_length": 12, "overlap_tokens": 4, "max_tokens_per_doc": 20},
        {"raw_scores": True},
        {"documents": []},
        {"max_chunks_per_doc": 1, "documents": [{"text": words(90, seed=5), "id": 17}, ""]},
    ]
    queries = [one | settings for one, settings in zip(lists(len(own)), own, strict=True)]
    server = start_server(sizes=Sizes(block_tokens=100))
    check_alone(server, {"queries": queries})
    check_alone(server, {"queries": queries, "top_n": 2, "max_length": 48})
    check_alone(server, {"queries": queries[:1]})


def refused_beside_others(server: Server, *wrong: dict[str, Any], **beside: Any) -> list[dict[str, Any]]:
    """What is said of the wrong ones, which stand between right ones, whose answers are as without them."""
    right = lists(len(wrong) + 1)
    mixed = [right[0], *(one for pair in zip(wrong, right[1:], strict=True) for one in pair)]
    answer = server.post("/v1/rerank", {"queries": mixed, **beside}).json()
    expected = server.post("/v1/rerank", {"queries": right, **beside}).json()
    for actual, wanted in zip(answer["responses"][::2], expected["responses"], strict=True):
        assert [one["index"] for one in actual["results"]] == [one["index"] for one in wanted["results"]]
    assert answer["usage"] == expected["usage"]
    refused: list[dict[str, Any]] = answer["responses"][1::2]
    return refused


def test_what_is_wrong_with_one_costs_no_other(start_server: StartServer) -> None:
    server = start_server(strict_model=True)
    refused = refused_beside_others(
        server,
        {"query": " ", "documents": ["a"]},
        {"query": "a", "documents": ["a", None]},
        {"query": "a", "passages": ["a"]},
        {"query": words(100), "documents": ["a"], "max_query_length": 16, "truncate": False},
        {"query": "a", "documents": ["ab" * 600_000]},
        {"query": "a", "documents": ["a"], "model": "another"},
        {"query": "a", "documents": ["a"], "instruction": "find code"},
    )
    assert [list(one) for one in refused] == [["detail", "code"]] * len(refused)
    assert [(one["code"], one["detail"][:60]) for one in refused] == [
        ("VALIDATION_ERROR", "Validation error: 'queries[1].query': Query has nothing but "),
        ("VALIDATION_ERROR", "Validation error: 'queries[3].documents[1]': Input should be"),
        ("VALIDATION_ERROR", "Validation error: 'queries[5].documents': Field required"),
        ("INPUT_TOKEN_LIMIT_EXCEEDED", "truncate is false, but the query is longer than max_query_le"),
        ("UNBROKEN_TEXT", "a text has 1,200,000 characters without a space between two "),
        ("MODEL_NOT_FOUND", "model 'another' is not served here; use tiny, or leave it ou"),
        ("UNSUPPORTED_PARAMETER", "instruction is not supported here: the model takes a query a"),
    ]


class Broken:
    """A replica whose scores are no numbers for pairs of more than 200 tokens."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    async def logits(self, block: PairBlock, lane: Lane) -> Scored:
        scored = await self.scorer.logits(block, lane)
        logits = np.where(np.asarray(block.lengths) > 200, np.nan, scored.logits).astype(np.float32)
        return scored._replace(logits=logits)


def test_a_score_that_is_no_number_costs_no_other(start_server: StartServer) -> None:
    server = start_server()
    server.handle.target = Broken(server.handle.target)
    [refused] = refused_beside_others(server, {"query": "a", "documents": ["b", words(300)]})
    assert refused == {"detail": "the model gave nan for documents[1]", "code": "NON_FINITE_SCORE"}


def test_all_may_be_wrong(start_server: StartServer) -> None:
    answer = start_server().post("/v1/rerank", {"queries": [None, {}]})
    assert answer.status_code == 200
    assert answer.json()["usage"] == {"total_tokens": 0, "prompt_tokens": 0}
    assert [one["code"] for one in answer.json()["responses"]] == ["VALIDATION_ERROR"] * 2


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ({"queries": []}, 422, None),
        ({"queries": lists(1), "query": "a"}, 422, None),
        ({"queries": lists(1), "model": "another"}, 404, "MODEL_NOT_FOUND"),
        ({"queries": lists(1), "truncation_side": "left"}, 400, "UNSUPPORTED_PARAMETER"),
        ({"queries": [{"query": "a", "documents": ["b"] * 6}] * 2}, 413, "TOO_MANY_DOCUMENTS"),
    ],
)
def test_what_is_wrong_with_all_is_an_error_as_elsewhere(
    start_server: StartServer, sent: dict[str, Any], status: int, code: str | None
) -> None:
    server = start_server(strict_model=True, max_documents=11)
    response = server.post("/v1/rerank", sent)
    assert response.status_code == status
    assert code is None or response.json()["detail"]["code"] == code
    line = json.loads(server.post("/v1/rerank/stream", sent).text)
    assert line["error"]["status"] == status


def test_a_busy_server_refuses_all(start_server: StartServer) -> None:
    server = start_server(max_queued_tokens=1)
    with server.endpoint.admission.admit(tokens=1, documents=1):
        response = server.post("/v1/rerank", {"queries": lists(2)})
    assert (response.status_code, response.json()["detail"]["code"]) == (429, "OVERLOADED")


def test_a_thousand_that_are_wrong_are_read_without_looking_for_what_was_meant(start_server: StartServer) -> None:
    """Twenty unknown fields in each: their near misses are looked for once, and not in each."""
    queries = [{f"field{i}x{j}": 0 for j in range(20)} for i in range(1_000)]
    answer = start_server().post("/v1/rerank", {"queries": queries}).json()
    assert {one["detail"].partition(": ")[2].partition(": ")[2] for one in answer["responses"]} == {
        "Field required (and 1 more)"
    }


def test_the_example_of_the_page_is_answered_as_it_says() -> None:
    """To two digits."""
    section = PAGE.partition("### Several queries in one request\n")[2].partition("\n## ")[0]
    [sent] = re.findall(r"-d '(\{.*?\})'\n```", section, re.DOTALL)
    [expected] = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    with run_server(ServeArgs(), keys=False, scorers={}) as server:
        answer = server.post("/v1/rerank", data=sent).json()
    assert json.loads(json.dumps(answer), parse_float=lambda digits: round(float(digits), 2)) == json.loads(expected)
