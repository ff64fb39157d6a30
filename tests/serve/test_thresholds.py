"""`score_threshold`: what is left out of an answer, for whose scores, and in which dialects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.calibration import CALIBRATION, Calibration
from pipelines.model_sources import find_model
from serve.pinning import with_calibration
from serve.settings import ServeArgs
from tests.checkpoints import copy_model, words
from tests.serve.conftest import Server, StartServer

QUERY, DOCUMENTS = words(4), [words(5, seed=seed) for seed in range(1, 9)]
BODY: dict[str, Any] = {"query": QUERY, "documents": DOCUMENTS, "return_documents": False}


@pytest.fixture(scope="module")
def calibrated(bert_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, whose logits a calibration spreads over 0..1."""
    directory = copy_model(bert_directory, tmp_path_factory.mktemp("calibrated") / "model")
    (directory / CALIBRATION).write_text(Calibration(4.0, 0.3, find_model(str(directory)).digest()).as_json())
    return directory


@pytest.fixture
def server(start_server: StartServer, calibrated: Path) -> Server:
    return start_server(model=str(calibrated))


def results(server: Server, path: str = "/v1/rerank", **fields: Any) -> list[dict[str, Any]]:
    answer = server.post(path, BODY | fields)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def middle(server: Server) -> float:
    """A score that half of the documents reach."""
    scores = [one["relevance_score"] for one in results(server)]
    assert scores[3] > scores[4]
    return float(scores[3])


def test_results_below_it_are_left_out_before_top_n_and_usage_counts_all(server: Server) -> None:
    everything, threshold = results(server), middle(server)
    assert results(server, score_threshold=threshold) == everything[:4]
    assert results(server, score_threshold=threshold, top_n=2) == everything[:2]
    assert results(server, score_threshold=threshold, top_n=7) == everything[:4]
    assert results(server, score_threshold=1) == []
    assert results(server, score_threshold=None) == everything
    usages = [server.post("/v1/rerank", BODY | one).json()["usage"] for one in ({}, {"score_threshold": 1})]
    assert usages[0] == usages[1]


def test_scores_are_calibrated_and_raw_ones_are_logits_with_a_threshold_of_scores(server: Server) -> None:
    threshold = middle(server)
    scores = {one["index"]: one["relevance_score"] for one in results(server)}
    raw = results(server, raw_scores=True, score_threshold=threshold)
    assert [one["index"] for one in raw] == list(scores)[:4]
    for one in raw:
        probability = 1 / (1 + pow(2.718281828459045, -(4.0 * one["relevance_score"] + 0.3)))
        assert scores[one["index"]] == pytest.approx(probability, abs=1e-6)


def test_each_of_several_queries_has_its_own_or_that_of_all(server: Server) -> None:
    threshold = middle(server)
    one = {"query": QUERY, "documents": DOCUMENTS}
    body = {"queries": [one, one | {"score_threshold": 0}, one | {"score_threshold": 1}], "score_threshold": threshold}
    answer = server.post("/v1/rerank", body).json()
    assert [len(each["results"]) for each in answer["responses"]] == [4, 8, 0]


def test_lines_of_a_stream_have_it(server: Server) -> None:
    threshold = middle(server)
    lines = [BODY | {"id": 1, "score_threshold": threshold}, BODY | {"id": 2}, BODY | {"id": 3, "score_threshold": 2}]
    text = server.post("/v1/rerank/stream", data="".join(json.dumps(one) + "\n" for one in lines)).text
    found = {one["id"]: one for one in map(json.loads, text.splitlines())}
    assert [len(found[number]["results"]) for number in (1, 2)] == [4, 8]
    assert found[3]["error"]["status"] == 422


@pytest.mark.parametrize(
    ("value", "kind"),
    [(-0.1, "greater_than_equal"), (1.5, "less_than_equal"), (True, "float_type"), ("a lot", "float_parsing")],
)
def test_what_is_no_score_is_a_422(server: Server, value: Any, kind: str) -> None:
    answer = server.post("/v1/rerank", BODY | {"score_threshold": value})
    assert answer.status_code == 422
    assert [(one["field"], one["type"]) for one in answer.json()["errors"]] == [("score_threshold", kind)]


def test_not_a_number_is_refused(server: Server) -> None:
    """Python's own JSON writes it."""
    body = json.dumps(BODY | {"score_threshold": float("nan")})
    answer = server.post("/v1/rerank", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


def test_scores_that_are_not_calibrated_refuse_it_unless_that_is_allowed(start_server: StartServer) -> None:
    server = start_server()
    answer = server.post("/v1/rerank", BODY | {"score_threshold": 0.5})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("Validation error: 'score_threshold': the scores of tiny are not calib")
    [error] = answer.json()["errors"]
    assert (error["field"], error["type"]) == ("score_threshold", "uncalibrated")
    everything = results(server)
    kept = results(server, score_threshold=0.5, allow_uncalibrated=True)
    assert kept == [one for one in everything if one["relevance_score"] >= 0.5]
    one = {"query": QUERY, "documents": DOCUMENTS}
    body = {"queries": [one, one | {"score_threshold": 0.5}], "return_documents": False}
    ranked, refused = server.post("/v1/rerank", body).json()["responses"]
    assert ranked["results"] == everything
    assert refused["code"] == "VALIDATION_ERROR"
    allowed = server.post("/v1/rerank", body | {"allow_uncalibrated": True}).json()["responses"]
    assert allowed[1]["results"] == kept


def test_the_list_of_models_says_whether_scores_are_calibrated(server: Server, start_server: StartServer) -> None:
    found = [one.get("/v1/models").json()["data"][0] for one in (server, start_server())]
    assert [one["calibrated"] for one in found] == [True, False]
    assert found[0]["fingerprint"] != found[1]["fingerprint"]


def test_a_file_calibrates_a_model_that_has_none(
    start_server: StartServer, bert_directory: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.json"
    given.write_text(Calibration(2.0, -9.0, find_model(str(bert_directory)).digest()).as_json())
    server = start_server(calibration=str(given))
    assert results(server, score_threshold=0.5) == []
    assert all(one["relevance_score"] < 0.5 for one in results(server))
    args = ServeArgs(model=str(bert_directory), calibration=str(given))
    assert with_calibration(args).calibration == Calibration.read(given)


@pytest.mark.parametrize("field", ["score_threshold", "allow_uncalibrated"])
def test_what_looks_like_it_is_named(server: Server, field: str) -> None:
    sent = {"score_threshold": "min_score", "allow_uncalibrated": "allow_uncalibrate"}[field]
    answer = server.post("/v1/rerank", BODY | {sent: 0.5})
    assert answer.json()["warnings"] == [f"`{sent}` is not read here; did you mean `{field}`?"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/rerank", BODY),
        ("/rerank", {"query": QUERY, "texts": DOCUMENTS}),
        ("/rerank", BODY),
        ("/v1/score", {"queries": QUERY, "documents": DOCUMENTS}),
        ("/invocations", {"data": BODY}),
    ],
    ids=["cohere", "tei", "vllm", "score", "sagemaker"],
)
def test_dialects_of_others_refuse_it_by_its_name(server: Server, path: str, body: dict[str, Any]) -> None:
    assert server.post(path, body).status_code == 200
    answer = server.post(path, body | {"score_threshold": 0.5})
    assert answer.status_code == 400
    assert "score_threshold is not supported here" in answer.text
