"""A model that is told what to look for, behind HTTP: by the server's setting, and by a request's own."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest

from pipelines.calibration import Calibration
from pipelines.model_sources import find_model
from pipelines.preparation import INSTRUCTIONS_KEPT
from pipelines.reranker import Reranker
from pipelines.tokens import PairTemplate
from serve.endpoint import characters_of
from serve.schemas import RerankTask
from tests.checkpoints import words, write_qwen
from tests.serve.conftest import StartServer

QUERY, DOCUMENTS = words(4, seed=1), [words(3 + 9 * i, seed=10 + i) for i in range(5)]
OWN, OTHER = "Given a question, find the bridge that answers it", "Given a word, find rivers"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_qwen(tmp_path_factory.mktemp("qwen") / "model"))


def test_a_request_may_have_an_instruction_of_its_own(model: str, start_server: StartServer) -> None:
    server = start_server(model=model, instruction=OWN)
    reranker = Reranker.load(model, device="cpu", num_threads=1)
    sent = {"query": QUERY, "documents": DOCUMENTS}
    for path, instruction in (("/v1/rerank", None), ("/v1/rerank", OTHER), ("/v2/rerank", OTHER)):
        answer = server.post(path, sent | ({"instruction": instruction} if instruction else {}))
        assert answer.status_code == 200, answer.text
        expected = {
            one.index: one.relevance_score for one in reranker.rerank(QUERY, DOCUMENTS, instruction=instruction or OWN)
        }
        found = {one["index"]: one["relevance_score"] for one in answer.json()["results"]}
        assert found == pytest.approx(expected, abs=1e-4)
    queries = [{**sent, "instruction": OWN}, sent]
    several = server.post("/v1/rerank", {"queries": queries, "instruction": OTHER}).json()["responses"]
    scores = [sorted(one["relevance_score"] for one in answer["results"]) for answer in several]
    assert scores[0] != pytest.approx(scores[1], abs=1e-4)


def test_a_threshold_is_refused_with_another_instruction_than_scores_are_calibrated_for(
    model: str, start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "calibration.json"
    fitted = Calibration(2.0, -0.5, find_model(model).digest(), instruction=OWN)
    file.write_text(fitted.as_json())
    server = start_server(model=model, instruction=OWN, calibration=str(file))
    sent = {"query": QUERY, "documents": DOCUMENTS, "score_threshold": 0.0}
    assert server.post("/v1/rerank", sent).status_code == 200
    refused = server.post("/v1/rerank", sent | {"instruction": OTHER})
    assert refused.status_code == 422
    assert "calibrated for another instruction" in refused.text
    allowed = server.post("/v1/rerank", sent | {"instruction": OTHER, "allow_uncalibrated": True}).json()["results"]
    expected = Reranker.load(model, device="cpu", num_threads=1).rerank(QUERY, DOCUMENTS, instruction=OTHER)
    scores = {one.index: one.relevance_score for one in expected}
    assert {one["index"]: one["relevance_score"] for one in allowed} == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(("qwen", "family", "takes"), [(True, "Qwen3-Reranker", True), (False, "BERT", False)])
def test_the_list_of_models_says_whether_one_is_taken(
    model: str, start_server: StartServer, qwen: bool, family: str, takes: bool
) -> None:
    server = start_server(model=model, instruction=OWN) if qwen else start_server()
    [card] = server.get("/v1/models").json()["data"]
    assert (card["family"], card["takes_instruction"], card["licence"]) == (family, takes, None)
    assert card["instruction"] == (OWN if qwen else None)


def test_an_instruction_that_leaves_no_room_is_a_422(model: str, start_server: StartServer) -> None:
    server = start_server(model=model)
    answer = server.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "instruction": words(2000)})
    assert answer.status_code == 422
    assert "the model's prompt alone has" in answer.text


def test_each_instruction_of_a_request_is_tokenized_once_and_beside_the_event_loop(
    model: str, start_server: StartServer
) -> None:
    """More of them than the preparation keeps, and each with two queries that are not read alike."""
    server = start_server(model=model)
    tokenizer = server.endpoint.preparation.tokenizer
    ask = tokenizer.ask
    assert ask is not None
    asked: list[tuple[str, str]] = []

    @lru_cache(INSTRUCTIONS_KEPT)
    def noted(instruction: str) -> PairTemplate:
        asked.append((instruction, threading.current_thread().name))
        return ask(instruction)

    tokenizer.ask = noted
    instructions = [f"Given a question, find bridge {i}" for i in range(INSTRUCTIONS_KEPT + 20)]
    queries = [
        {"query": QUERY, "documents": DOCUMENTS[:1], "instruction": one, "overlap_tokens": overlap}
        for overlap in (0, 10)
        for one in instructions
    ]
    answer = server.post("/v1/rerank", {"queries": queries})
    assert answer.status_code == 200, answer.text
    assert all("results" in one for one in answer.json()["responses"])
    assert sorted(instruction for instruction, _ in asked) == sorted(instructions)
    assert all("-texts" in thread for _, thread in asked)


def test_what_an_instruction_counts_as_text_is_its_length_once() -> None:
    task = RerankTask("ab", ["c", "de"], ["c", "de"], instruction="fghi")
    assert characters_of([task, task, replace(task, instruction=None)]) == 3 * 5 + 4


def test_a_model_that_takes_none_refuses_it_by_name(start_server: StartServer) -> None:
    server = start_server()
    answer = server.post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "instruction": OWN})
    assert (answer.status_code, answer.json()["detail"]["code"]) == (400, "UNSUPPORTED_PARAMETER")
    assert "instruction is not supported here" in answer.json()["detail"]["message"]
