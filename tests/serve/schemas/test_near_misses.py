"""Fields that nobody reads: those that look like a known one are named, and none is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serve.error_answers import Dialect, answer_to
from serve.schemas import (
    CohereRequest,
    InvocationRequest,
    PlainRequest,
    PlainTokenizeRequest,
    RerankRequest,
    ScoreRequest,
    TeiRequest,
)

LIST = {"query": "a", "documents": ["b"]}
TEXTS = {"query": "a", "texts": ["b"]}
SCORES = {"text_1": "a", "text_2": ["b"]}


def warnings_of(kind: Any, sent: dict[str, Any]) -> list[str]:
    warnings: list[str] = TypeAdapter(kind).validate_python(sent).warnings
    return warnings


@pytest.mark.parametrize(
    ("kind", "sent", "name", "meant"),
    [
        (RerankRequest, LIST, "topn", "top_n"),
        (RerankRequest, LIST, "topN", "top_n"),
        (RerankRequest, LIST, "top-k", "top_k"),
        (RerankRequest, LIST, "limit", "top_n"),
        (RerankRequest, LIST, "return_document", "return_documents"),
        (RerankRequest, LIST, "returnDocuments", "return_documents"),
        (RerankRequest, LIST, "passages", "documents"),
        (RerankRequest, LIST, "querry", "query"),
        (RerankRequest, LIST, "instruct", "instruction"),
        (RerankRequest, LIST, "max_len", None),
        (RerankRequest, LIST, "max_query_len", "max_query_length"),
        (CohereRequest, LIST, "documnets", "documents"),
        (TeiRequest, TEXTS, "passages", "texts"),
        (TeiRequest, TEXTS, "return_texts", "return_documents"),
        (ScoreRequest, SCORES, "querry", "queries"),
        (InvocationRequest, {"data": LIST}, "dataa", "data"),
        (PlainTokenizeRequest, {"inputs": "a"}, "add_special_token", "add_special_tokens"),
    ],
)
def test_a_near_miss_is_named_with_what_may_be_meant(kind: Any, sent: Any, name: str, meant: str | None) -> None:
    expected = [] if meant is None else [f"`{name}` is not read here; did you mean `{meant}`?"]
    assert warnings_of(kind, sent | {name: 1}) == expected


@pytest.mark.parametrize(
    "name", ["user", "priority", "top_p", "request_id", "input_type", "metadata", "", "q\r\n", "é"]
)
def test_what_looks_like_nothing_is_passed_over(name: str) -> None:
    assert warnings_of(RerankRequest, LIST | {name: 1}) == []


@pytest.mark.parametrize("name", ["top_k", "return_text", "truncation", "model", "rank_fields", "activation"])
def test_what_is_known_is_no_near_miss(name: str) -> None:
    assert warnings_of(RerankRequest, LIST | {name: None}) == []


def test_what_stands_inside_data_is_looked_at_too() -> None:
    [warning] = warnings_of(InvocationRequest, {"data": LIST | {"topn": 1}})
    assert "`top_n`" in warning


def test_a_body_full_of_unknown_fields_takes_no_time() -> None:
    sent = LIST | {f"max_query_lengt{i}": 1 for i in range(200_000)}
    began = time.perf_counter()
    assert len(warnings_of(RerankRequest, sent)) <= 20
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("kind", "sent", "field", "instead"),
    [
        (RerankRequest, {"query": "a", "passages": ["b"]}, "documents", "passages"),
        (RerankRequest, {"query": "a", "texts": ["b"]}, "documents", "texts"),
        (RerankRequest, {"querry": "a", "documents": ["b"]}, "query", "querry"),
        (RerankRequest, {"query": "a", "documents": [{"txt": "b"}]}, "documents[0].text", "txt"),
        (PlainRequest, {"query": "a", "passages": ["b"]}, "documents", "passages"),
        (ScoreRequest, {"query": "a", "documents": ["b"]}, "queries", "query"),
        (PlainTokenizeRequest, {"input": "a"}, "prompt", "input"),
        (InvocationRequest, {"data": {"query": "a", "docs": ["b"]}}, "data.documents", "docs"),
    ],
)
def test_where_a_field_is_missing_the_answer_says_what_stands_in_its_place(
    kind: Any, sent: dict[str, Any], field: str, instead: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(kind).validate_python(sent)
    answer = answer_to(raised.value, Dialect.JINA, "0123")
    assert answer.status == 422
    assert answer.body["detail"] == f"Validation error: '{field}': Field required; `{instead}` is not read here"
