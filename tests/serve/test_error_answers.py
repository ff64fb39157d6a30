"""Whatever is raised becomes an answer that names what is wrong, and tells nothing of the inside."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from ray.exceptions import RayTaskError

from pipelines.errors import ConfigError, InvalidInputError, ModelNotFoundError
from serve.error_answers import Dialect, ErrorAnswer, answer_to, dialect_of, not_ranked
from serve.errors import OverloadedError
from serve.schemas import PlainInvocationRequest, PlainRequest, RerankRequest, parse_json
from tests.serve.schemas.dialects import DIALECTS


def jina(error: BaseException) -> ErrorAnswer:
    return answer_to(error, Dialect.JINA, "0123")


def invalid(model: Any, value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(model).validate_python(value)
    return refused.value


def test_a_422_names_the_field_in_a_string_and_in_a_list() -> None:
    error = invalid(RerankRequest, {"query": "q", "documents": ["a", None, {"title": "b"}], "top_n": 0})
    assert jina(error) == ErrorAnswer(
        422,
        {},
        {
            "detail": "Validation error: 'documents[1]': Input should be a string or an object with a string `text` "
            "(and 1 more)",
            "request_id": "0123",
            "errors": [
                {
                    "field": "documents[1]",
                    "message": "Input should be a string or an object with a string `text`",
                    "type": "document_type",
                },
                {
                    "field": "top_n",
                    "message": "Input should be greater than or equal to 1",
                    "type": "greater_than_equal",
                },
            ],
        },
    )


@pytest.mark.parametrize(
    ("model", "value", "field"),
    [
        (RerankRequest, [], "body"),
        (PlainRequest, {"query": "q", "texts": [None]}, "texts[0]"),
        (PlainRequest, {"query": "q", "documents": [None]}, "documents[0]"),
        (PlainInvocationRequest, {"data": {"query": "q", "documents": [{"text": 1}]}}, "data.documents[0].text"),
        (PlainInvocationRequest, {"data": "text"}, "data"),
        (
            RerankRequest,
            {"query": "q", "documents": [{"text": "a", "k" * 10_000: math.nan}]},
            "documents[0]." + "k" * 187,
        ),
    ],
)
def test_a_field_is_written_as_one_would_write_it(model: Any, value: Any, field: str) -> None:
    assert jina(invalid(model, value)).body["errors"][0]["field"] == field


def test_json_of_another_type_is_told_in_words_of_json() -> None:
    assert jina(invalid(RerankRequest, [])).body["detail"] == "Validation error: 'body': Input should be an object"


@pytest.mark.parametrize(
    "documents", [[None] * 10_000, [{"text": "a", **{f"field {i}": math.nan for i in range(10_000)}}]]
)
def test_of_ten_thousand_mistakes_one_is_told(documents: list[Any]) -> None:
    """The others are not even looked for."""
    body = jina(invalid(RerankRequest, {"query": "q", "documents": documents})).body
    assert len(body["errors"]) == 1
    assert "more)" not in body["detail"]


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        (
            InvalidInputError("invalid_unicode: query holds a lone surrogate"),
            "query holds a lone surrogate",
            "invalid_unicode",
        ),
        (ConfigError("max_length is 8; it is: at least 16"), "max_length is 8; it is: at least 16", "invalid_value"),
        (InvalidInputError("nothing to rank"), "nothing to rank", "invalid_value"),
    ],
)
def test_what_the_reranker_refuses_is_a_422(error: Exception, message: str, kind: str) -> None:
    answered = jina(error)
    assert answered.status == 422
    assert answered.body["detail"] == f"Validation error: 'body': {message}"
    assert answered.body["errors"] == [{"field": "body", "message": message, "type": kind}]


def test_a_list_that_was_not_ranked_is_the_callers_fault_or_the_models() -> None:
    texts = not_ranked("not_text: documents[1] is int, not a string")
    model = not_ranked("non_finite_score: the model gave nan for documents[3]")
    assert (jina(texts).status, jina(model).status, str(model)) == (422, 500, "the model gave nan for documents[3]")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the secret"),
        ModelNotFoundError("/the/secret/path is no model"),
        KeyError("the secret"),
        MemoryError(),
    ],
)
def test_an_error_that_nobody_foresaw_tells_nothing(error: Exception) -> None:
    answered = jina(error)
    assert answered.status == 500
    assert answered.body["detail"]["request_id"] == "0123"
    assert "secret" not in json.dumps(answered.body)


@pytest.mark.parametrize(
    "error", [InvalidInputError("not_text: documents[1] is int"), OverloadedError(3), ValueError("the secret")]
)
def test_an_error_of_a_replica_is_answered_like_one_of_our_own(error: Exception) -> None:
    """Ray wraps it, and its text is then a traceback."""
    wrapped = RayTaskError("score", "Traceback: the secret", error).as_instanceof_cause()  # type: ignore[no-untyped-call]
    assert "Traceback" in str(wrapped)
    assert jina(wrapped) == jina(error)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/rerank", Dialect.JINA),
        ("/v2/rerank", Dialect.COHERE),
        ("//v2//rerank", Dialect.COHERE),
        ("/v2/nothing", Dialect.COHERE),
        ("/rerank", Dialect.TEI),
        ("//rerank/", Dialect.TEI),
        ("/v1//rerank", Dialect.JINA),
        ("/", Dialect.TEI),
        ("/tokenize", Dialect.TEI),
        ("/info", Dialect.TEI),
        ("/score", Dialect.JINA),
    ],
)
def test_the_dialect_of_an_error_is_that_of_its_path(path: str, dialect: Dialect) -> None:
    assert dialect_of(path) is dialect


def test_an_error_in_a_stream_is_a_line_with_its_status() -> None:
    assert jina(OverloadedError(1)).line == {
        "error": {
            "status": 429,
            "detail": {
                "message": "the server is busy and its queue full; try again in 1 s",
                "code": "OVERLOADED",
                "request_id": "0123",
            },
        }
    }


def test_bytes_that_are_not_json_are_a_400() -> None:
    with pytest.raises(ValidationError) as refused:
        parse_json(b'{"a": \xff}')
    answered = jina(refused.value)
    assert (answered.status, answered.body["detail"]["code"]) == (400, "INVALID_JSON")
    assert (
        answered.body["detail"]["message"] == "the body is not JSON: not UTF-8 at byte 6; send a JSON object in UTF-8"
    )


any_text = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates, too
secrets = any_text.map(lambda text: f"{text}secret{text}")
values = st.none() | st.booleans() | st.integers() | st.floats() | secrets
any_json = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=8
)
names = st.sampled_from(["id", "query", "documents", "texts", "queries", "data", "top_n", "return_documents", "model"])
bodies = st.dictionaries(names, any_json | st.lists(any_json | st.dictionaries(names | st.just("text"), any_json)))


@given(any_json | bodies)
def test_no_error_repeats_a_value_or_fails_to_be_sent(sent: Any) -> None:
    for adapter in DIALECTS.values():
        try:
            adapter.validate_python(sent)
        except ValidationError as refused:
            body = JSONResponse(jina(refused).body).body
            assert b"secret" not in bytes(body)
