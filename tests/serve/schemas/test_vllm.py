"""vLLM's dialect: which texts make pairs, and how they are scored."""

from __future__ import annotations

from typing import Any

import pytest

from serve.schemas import ScoreRequest
from tests.serve.schemas.dialects import answer, body, errors, task_of


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"), ("queries", "items")]
)
def test_one_query_is_scored_against_every_document_in_their_order(names: tuple[str, str]) -> None:
    answered = answer("/v1/score", {names[0]: "q", names[1]: ["a", "b", "c"]}, [0.25, 0.75, 0.5])
    assert answered.pop("created") > 1_700_000_000
    assert answered == {
        "id": "0123",
        "object": "list",
        "model": "served-model",
        "data": [
            {"index": 0, "object": "score", "score": 0.25},
            {"index": 1, "object": "score", "score": 0.75},
            {"index": 2, "object": "score", "score": 0.5},
        ],
        "usage": {"total_tokens": 7, "prompt_tokens": 7},
    }


def test_as_many_queries_as_documents_are_scored_pair_by_pair() -> None:
    sent = {"queries": ["p", {"text": "q"}], "documents": ["a", {"text": "b"}]}
    tasks = ScoreRequest.model_validate(sent).tasks()
    assert [(task.query, task.documents) for task in tasks] == [("p", ["a"]), ("q", ["b"])]
    answered = answer("/v1/score", sent, [0.25, 0.75])
    assert [(one["index"], one["score"]) for one in answered["data"]] == [(0, 0.25), (1, 0.75)]
    assert answered["usage"] == {"total_tokens": 14, "prompt_tokens": 14}


@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({"queries": ["p", "q"], "documents": ["a"]}, ("documents",), "lengths_differ"),
        ({"queries": ["p", "q"], "documents": ["a", "b", "c"]}, ("documents",), "lengths_differ"),
        ({"queries": [], "documents": []}, ("queries",), "too_short"),
        ({"queries": ["q", " "], "documents": ["a", "b"]}, ("queries", 1), "blank_query"),
        ({"text_1": "q", "text_2": [None]}, ("text_2", 0), "document_type"),
        ({"documents": ["a"]}, ("queries",), "missing"),
        ({"queries": None, "documents": ["a"]}, ("queries",), "list_type"),
    ],
)
def test_texts_that_make_no_pairs_are_refused(sent: dict[str, Any], field: tuple[Any, ...], kind: str) -> None:
    assert errors("/v1/score", sent) == [(field, kind)]


@pytest.mark.parametrize(
    ("sent", "raw"),
    [
        ({}, False),
        ({"use_activation": False}, True),
        ({"use_activation": True}, False),
        ({"activation": False}, True),
        ({"softmax": False}, True),
        ({"softmax": True}, False),
        ({"raw_scores": True}, True),
        ({"raw_scores": True, "use_activation": False}, True),
    ],
)
def test_vllms_way_to_ask_for_logits(sent: dict[str, Any], raw: bool) -> None:
    assert task_of(ScoreRequest.model_validate({"queries": "q", "documents": "a"} | sent)).raw_scores is raw


@pytest.mark.parametrize(
    ("name", "value"), [("top_n", 1), ("top_k", 1), ("return_documents", True), ("return_text", True)]
)
def test_what_scores_in_order_have_no_place_for_is_refused_with_its_name(name: str, value: object) -> None:
    sent = {"queries": "q", "documents": "a", name: value}
    assert errors("/v1/score", sent) == [((name,), "unsupported_parameter")]


@pytest.mark.parametrize("top_n", [0, "0", None])
def test_top_n_0_is_all_of_them_in_vllms_words_alone(top_n: Any) -> None:
    """Its own default is 0."""
    assert len(answer("/rerank", body(top_n=top_n), [0.25, 0.75, 0.5])["results"]) == 3
    assert len(answer("/rerank", body(top_n=1), [0.25, 0.75, 0.5])["results"]) == 1
    for path, sent in (("/v1/rerank", body(top_n=0)), ("/rerank", {"query": "q", "texts": ["a"], "top_n": 0})):
        assert errors(path, sent) == [(("top_n",), "greater_than_equal")]
