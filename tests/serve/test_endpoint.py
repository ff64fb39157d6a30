"""A request on its way: checked, tokenized, admitted, scored, retried, ranked. A real port, the real engine, no Ray."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from pipelines.preparation import Preparation
from pipelines.reranker import Reranker
from serve.endpoint import blocks_of
from serve.lanes import Lane
from serve.schemas import RerankTask
from serve.scorer import PairBlock, Scored, Scorer
from serve.turns import SMALL_AT_ONCE
from tests.checkpoints import words, write_roberta
from tests.serve.conftest import Sizes, StartServer

DOCUMENTS = [words(3 + 5 * i, seed=i) for i in range(12)]


def body(**fields: Any) -> dict[str, Any]:
    return {"query": "apple bread", "documents": DOCUMENTS} | fields


def test_scores_over_http_are_those_of_the_reranker(start_server: StartServer, bert_directory: Any) -> None:
    """Long documents in chunks, lengths of the caller's own."""
    documents = [*DOCUMENTS, words(700)]
    options = {"max_length": 64, "max_query_length": 16, "overlap_tokens": 10}
    expected = Reranker.load(str(bert_directory)).rerank("apple bread", documents, **options)

    answer = start_server().post("/v1/rerank", body(documents=documents, **options)).json()

    assert [one["index"] for one in answer["results"]] == [one.index for one in expected]
    for actual, wanted in zip(answer["results"], expected, strict=True):
        assert actual["relevance_score"] == pytest.approx(wanted.relevance_score, abs=1e-4)
        assert actual["document"] == {"text": wanted.document}


def test_usage_counts_by_the_served_tokenizer(start_server: StartServer) -> None:
    answer = start_server().post("/v1/rerank", body(documents=["apple", "bread candle"])).json()
    assert answer["usage"] == {"total_tokens": 2 + 2 + 1 + 2 + 2 + 2, "prompt_tokens": 11}


def test_raw_scores_are_logits(start_server: StartServer) -> None:
    server = start_server()
    scores = [one["relevance_score"] for one in server.post("/v1/rerank", body()).json()["results"]]
    logits = [one["relevance_score"] for one in server.post("/v1/rerank", body(raw_scores=True)).json()["results"]]
    assert scores == pytest.approx([1 / (1 + np.exp(-logit)) for logit in logits], abs=1e-6)


def test_no_documents_have_an_empty_ranking(start_server: StartServer) -> None:
    response = start_server().post("/v1/rerank", body(documents=[]))
    assert (response.status_code, response.json()["results"]) == (200, [])


def test_what_would_be_cut_is_refused_where_the_caller_wants_that(start_server: StartServer) -> None:
    server = start_server()
    long_query = body(query=words(100), max_query_length=16, truncate=False)

    response = server.post("/v1/rerank", long_query)

    assert (response.status_code, response.json()["detail"]["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")
    assert server.post("/v1/rerank", long_query | {"truncate": True}).status_code == 200
    assert server.post("/v1/rerank", body(documents=[words(2000)], truncate=False)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_of_a_document_no_more_is_read_than_the_caller_wants(start_server: StartServer, path: str) -> None:
    server = start_server()
    long, short = words(100, seed=1), " ".join(words(100, seed=1).split()[:20])
    [[tokens]] = [server.endpoint.preparation.tokenizer.token_ids([short])]

    whole, cut, alone = (
        server.post(path, body(documents=documents, **fields)).json()["results"][0]["relevance_score"]
        for documents, fields in (([long], {}), ([long], {"max_tokens_per_doc": len(tokens)}), ([short], {}))
    )

    assert cut == pytest.approx(alone, abs=1e-6)
    assert cut != pytest.approx(whole, abs=1e-6)
    refused = server.post(path, body(documents=[long], max_tokens_per_doc=len(tokens), truncate=False))
    assert (refused.status_code, refused.json()["detail"]["code"]) == (400, "INPUT_TOKEN_LIMIT_EXCEEDED")


def test_a_prompt_that_is_truncated_is_scored_as_one_chunk(start_server: StartServer, bert_directory: Any) -> None:
    long = words(300, seed=1)
    [expected] = Reranker.load(str(bert_directory)).compute_score([("apple", long)], max_length=64)
    sent = {"text_1": "apple", "text_2": long, "truncate_prompt_tokens": 64}
    [score] = start_server().post("/score", sent).json()["data"]
    assert score["score"] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_honoured_is_a_400_that_names_it(start_server: StartServer) -> None:
    response = start_server().post("/v1/rerank", body(truncation_side="left"))
    assert (response.status_code, response.json()["detail"]["code"]) == (400, "UNSUPPORTED_PARAMETER")
    assert response.json()["detail"]["message"].startswith("truncation_side is not supported here")


def test_a_body_of_too_many_values_is_a_413(start_server: StartServer) -> None:
    """Whatever they are: they are counted before any is read."""
    server = start_server(max_documents=100)
    for documents in ([0] * 200_000, [{"text": "a", "numbers": [0] * 200_000}], [{str(i): i for i in range(50_000)}]):
        response = server.post("/v1/rerank", body(documents=documents))
        assert (response.status_code, response.json()["detail"]["code"]) == (413, "TOO_MANY_VALUES")


def test_lengths_that_cannot_work_are_a_422(start_server: StartServer) -> None:
    response = start_server().post("/v1/rerank", body(max_length=3))
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "max_length"


def test_any_model_is_taken_unless_the_server_is_strict(start_server: StartServer) -> None:
    named = body(model="jina-reranker-v1-base-en")
    assert start_server().post("/v1/rerank", named).json()["model"] == "tiny"
    strict = start_server(strict_model=True)
    refused = strict.post("/v1/rerank", named)
    assert refused.status_code == 404
    assert "tiny" in refused.json()["detail"]["message"]
    assert strict.post("/v1/rerank", body(model="tiny")).status_code == 200
    assert strict.post("/v1/rerank", body()).status_code == 200


def test_more_documents_than_allowed_are_a_413(start_server: StartServer) -> None:
    response = start_server(max_documents=11).post("/v1/rerank", body())
    assert (response.status_code, response.json()["detail"]["code"]) == (413, "TOO_MANY_DOCUMENTS")


def test_a_replica_that_dies_is_asked_again_elsewhere(start_server: StartServer) -> None:
    server = start_server()
    undisturbed = server.post("/v1/rerank", body()).json()
    server.handle.failures[:] = [ActorDiedError()]

    answer = server.post("/v1/rerank", body())

    assert server.handle.failures == []
    assert (answer.status_code, answer.json()) == (200, undisturbed)


def test_two_replicas_that_die_are_a_503(start_server: StartServer) -> None:
    server = start_server()
    server.handle.failures[:] = [ActorDiedError(), ActorDiedError()]

    response = server.post("/v1/rerank", body())

    assert (response.status_code, response.json()["detail"]["code"]) == (503, "NO_REPLICA")
    assert int(response.headers["Retry-After"]) >= 1


def test_a_deployment_that_has_failed_is_a_503(start_server: StartServer) -> None:
    server = start_server()
    gone = DeploymentUnavailableError(DeploymentID("Scorer", "app"))
    server.endpoint.description = None
    for ask in (
        lambda: server.post("/v1/rerank", body()),
        lambda: server.get("/v1/models"),
        lambda: server.get("/ready"),
    ):
        server.handle.failures[:] = [gone, gone]
        response = ask()
        assert response.status_code == 503, response.text
        assert int(response.headers["Retry-After"]) >= 1


def test_a_speed_that_cannot_be_asked_for_costs_no_request(start_server: StartServer) -> None:
    async def fail() -> float:
        raise DeploymentUnavailableError(DeploymentID("Scorer", "app"))

    server = start_server()
    server.handle.target = scorer = copy.copy(server.handle.target)
    scorer.tokens_per_second = fail
    assert server.post("/v1/rerank", body()).status_code == 200
    assert "tokens_per_second" in server.handle.calls


def test_an_error_nobody_foresaw_is_a_500_that_tells_nothing(start_server: StartServer) -> None:
    server = start_server()
    server.handle.failures[:] = [RuntimeError("secret"), RuntimeError("secret")]

    response = server.post("/v1/rerank", body())

    assert (response.status_code, response.json()["detail"]["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text


class Stalled:
    """A replica that answers when it is told to."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.go_on = threading.Event()
        self.cancelled = threading.Event()

    async def logits(self, block: PairBlock, lane: Lane) -> Scored:
        try:
            while not self.go_on.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await self.scorer.logits(block, lane)


def test_a_deadline_that_passes_is_a_503_and_the_replica_is_told(start_server: StartServer) -> None:
    server = start_server(deadline_seconds=0.2)
    server.handle.target = stalled = Stalled(server.handle.target)

    response = server.post("/v1/rerank", body())

    assert (response.status_code, response.json()["detail"]["code"]) == (503, "DEADLINE_EXCEEDED")
    assert stalled.cancelled.wait(5)


def test_past_the_budget_is_a_429_and_a_first_request_of_any_size_is_taken(start_server: StartServer) -> None:
    """Half of the budget is all that one request takes of it: two fill it, the third is refused."""
    server = start_server(max_queued_tokens=20)
    server.handle.target = stalled = Stalled(server.handle.target)
    answers = []
    large = [threading.Thread(target=lambda: answers.append(server.post("/v1/rerank", body()))) for _ in range(2)]
    for thread in large:
        thread.start()
    while server.handle.calls.count("logits") < 2:
        pass

    refused = server.post("/v1/rerank", body())
    stalled.go_on.set()
    for thread in large:
        thread.join()

    assert [answer.status_code for answer in answers] == [200, 200]
    assert (refused.status_code, refused.json()["detail"]["code"]) == (429, "OVERLOADED")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert server.post("/v1/rerank", body()).status_code == 200


@pytest.mark.parametrize(("seconds", "status"), [(1e-6, 429), (1e6, 200)])
def test_once_the_speed_is_measured_the_wait_decides(start_server: StartServer, seconds: float, status: int) -> None:
    """While one request waits, another one is taken if both will be answered in time; one alone always is."""
    server = start_server(max_wait_seconds=seconds)
    assert server.post("/v1/rerank", body()).status_code == 200
    server.handle.target = stalled = Stalled(server.handle.target)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(server.post("/v1/rerank", body()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(answers) + server.handle.calls.count("logits") < 1 + len(threads):
        time.sleep(0.01)
    stalled.go_on.set()
    for thread in threads:
        thread.join()

    assert sorted(answer.status_code for answer in answers) == [200, status]
    for answer in answers:
        assert answer.status_code == 200 or int(answer.headers["Retry-After"]) >= 1
    assert server.post("/v1/rerank", body()).status_code == 200


class CountedPreparation:
    """A preparation that takes its time, and notes how often it is asked."""

    def __init__(self, preparation: Preparation) -> None:
        self.preparation = preparation
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.preparation, name)

    def tokenized(self, *arguments: Any) -> Any:
        self.calls += 1
        time.sleep(0.05)
        return self.preparation.tokenized(*arguments)


def test_of_many_that_come_at_once_few_are_tokenized_in_vain(start_server: StartServer) -> None:
    """There is room for one; those whose turn comes when it is there are refused before they are tokenized."""
    server = start_server(max_queued_tokens=1)
    server.handle.target = stalled = Stalled(server.handle.target)
    server.endpoint.preparation = counted = CountedPreparation(server.endpoint.preparation)  # type: ignore[assignment]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.post("/v1/rerank", body()).status_code))
        for _ in range(5 * SMALL_AT_ONCE[Lane.ONLINE])
    ]
    for thread in threads:
        thread.start()
    while len(answers) < len(threads) - 1:
        time.sleep(0.01)
    stalled.go_on.set()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [200] + [429] * (len(threads) - 1)
    assert counted.calls <= SMALL_AT_ONCE[Lane.ONLINE]


def test_a_text_that_cannot_be_tokenized_in_pieces_is_bounded(start_server: StartServer) -> None:
    server = start_server()
    with_words = server.post("/v1/rerank", body(documents=["ab " * 400_000], max_chunks_per_doc=1))
    without = server.post("/v1/rerank", body(documents=["ab" * 600_000], max_chunks_per_doc=1))
    assert with_words.status_code == 200
    assert (without.status_code, without.json()["detail"]["code"]) == (413, "UNBROKEN_TEXT")


def test_a_long_text_for_a_tokenizer_that_takes_all_in_one_piece_is_told_so(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(model=str(write_roberta(tmp_path / "model")))
    answer = server.post("/v1/rerank", body(documents=["ab " * 400_000], max_chunks_per_doc=1))
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["code"]) == (413, "UNBROKEN_TEXT")
    assert detail["message"].startswith("a text has 1,200,000 characters, which this model takes in one piece; at most")


class Narrow:
    """A replica that takes 100 tokens at once, or a longer pair alone."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    async def logits(self, block: PairBlock, lane: Lane) -> Scored:
        if len(block.input_ids) > 100 and len(block.lengths) > 1:
            raise ValueError(f"{len(block.input_ids)} tokens at once")
        return await self.scorer.logits(block, lane)


def test_pairs_of_too_many_tokens_are_a_413_before_they_are_made(start_server: StartServer) -> None:
    """A long query with very many short documents, in one list or in several; a stream goes on after such a line."""
    server = start_server(max_documents=100_000)
    large = {"query": words(300), "documents": ["a"] * 60_000, "max_length": 512}
    several = {"queries": [large | {"documents": ["a"] * 30_000}] * 2}
    for sent in (large, several):
        response = server.post("/v1/rerank", sent)
        assert (response.status_code, response.json()["detail"]["code"]) == (413, "TOO_MANY_TOKENS")
        assert "60,000 pairs" in response.json()["detail"]["message"]
    lines = "\n".join(json.dumps(one) for one in (large, body()))
    answers = {
        one["line"]: one for one in map(json.loads, server.post("/v1/rerank/stream", data=lines).text.split("\n")[:2])
    }
    assert answers[1]["error"]["status"] == 413
    assert len(answers[2]["results"]) == len(DOCUMENTS)


def test_blocks_are_made_beside_the_event_loop(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def noted(*arguments: Any) -> list[PairBlock]:
        threads.append(threading.current_thread().name)
        return blocks_of(*arguments)

    monkeypatch.setattr("serve.endpoint.blocks_of", noted)
    assert start_server().post("/v1/rerank", body()).status_code == 200
    assert [name.partition("-texts")[0] for name in threads] == ["small-online"]


def test_a_large_request_travels_in_blocks(start_server: StartServer) -> None:
    whole = start_server().post("/v1/rerank", body()).json()["results"]
    server = start_server(sizes=Sizes(block_tokens=100))
    server.handle.target = Narrow(server.handle.target)

    answer = server.post("/v1/rerank", body())

    assert answer.status_code == 200
    for actual, expected in zip(answer.json()["results"], whole, strict=True):
        assert actual["index"] == expected["index"]
        assert actual["relevance_score"] == pytest.approx(expected["relevance_score"], abs=1e-4)


def test_blocks_keep_every_pair_in_order_and_the_limit(start_server: StartServer) -> None:
    preparation = start_server().endpoint.preparation
    [prepared] = preparation.prepare([RerankTask("apple", DOCUMENTS, DOCUMENTS).candidates], preparation.lengths)
    for limit in (1, 50, 100, 10_000):
        blocks = blocks_of(prepared.pairs, limit)
        sent = [pair for block in blocks for pair in block.pairs()]
        assert [list(pair.input_ids) for pair in sent] == [list(pair.input_ids) for pair in prepared.pairs]
        assert all(len(block.lengths) == 1 or len(block.input_ids) <= limit for block in blocks)
    assert blocks_of([], 10) == []


def test_blocks_travel_as_few_arrays_and_come_back_as_the_same_pairs(start_server: StartServer) -> None:
    preparation = start_server().endpoint.preparation
    [prepared] = preparation.prepare([RerankTask("apple", DOCUMENTS, DOCUMENTS).candidates], preparation.lengths)
    for pairs in (prepared.pairs, [pair._replace(token_type_ids=None) for pair in prepared.pairs]):
        for before, after in zip(pairs, PairBlock.of(pairs).pairs(), strict=True):
            np.testing.assert_array_equal(before.input_ids, after.input_ids)
            if before.token_type_ids is None:
                assert after.token_type_ids is None
            else:
                np.testing.assert_array_equal(before.token_type_ids, after.token_type_ids)
