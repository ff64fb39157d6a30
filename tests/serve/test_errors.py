"""Every error has one status, and a JSON body that the clients of its dialect can read."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from ray.exceptions import RayTaskError
from starlette.exceptions import HTTPException

from pipelines.errors import ConfigError, InvalidInputError, ModelNotFoundError
from pipelines.records import Usage
from serve.errors import (
    ERROR_RESPONSES,
    MAX_FIELDS,
    AppError,
    DeadlineError,
    Dialect,
    ErrorAnswer,
    HttpError,
    InternalError,
    InvalidFieldsError,
    NonFiniteScoreError,
    NoReplicaError,
    NotJsonError,
    OverloadedError,
    PayloadTooLargeError,
    TooLongError,
    TooManyDocumentsError,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
    answer_to,
    dialect_of,
    not_ranked,
)
from serve.schemas import (
    CohereAnswer,
    CohereRequest,
    InvocationAnswer,
    PlainInvocationRequest,
    PlainRequest,
    RerankAnswer,
    RerankRequest,
    ScoreAnswer,
    ScoreRequest,
    StreamRequest,
    TeiScore,
    read_json,
)

ERRORS: list[tuple[AppError, int, str]] = [
    (NotJsonError("Expecting value at character 0"), 400, "INVALID_JSON"),
    (TooLongError(Usage(cut_queries=1)), 400, "INPUT_TOKEN_LIMIT_EXCEEDED"),
    (UnknownModelError("other", ["m", "alias"]), 404, "MODEL_NOT_FOUND"),
    (HttpError(405, "no", {"Allow": "POST"}), 405, "METHOD_NOT_ALLOWED"),
    (PayloadTooLargeError(32 << 20), 413, "PAYLOAD_TOO_LARGE"),
    (TooManyDocumentsError(12_000, 10_000), 413, "TOO_MANY_DOCUMENTS"),
    (OverloadedError(2.5), 429, "OVERLOADED"),
    (NonFiniteScoreError("the model gave nan for documents[3]"), 500, "NON_FINITE_SCORE"),
    (InternalError(), 500, "INTERNAL_ERROR"),
    (UnavailableError("shutting down"), 503, "UNAVAILABLE"),
    (NoReplicaError(), 503, "NO_REPLICA"),
    (DeadlineError(300), 503, "DEADLINE_EXCEEDED"),
]
FLAT_ERRORS: list[AppError] = [
    UnauthorizedError(),
    UnauthorizedError(key_sent=True),
    InvalidFieldsError([{"field": "top_n", "message": "no", "type": "t"}], more=2),
]


def jina(error: BaseException) -> ErrorAnswer:
    return answer_to(error, Dialect.JINA, "0123")


def invalid(model: Any, value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(model).validate_python(value)
    return refused.value


@pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=lambda value: str(value)[:20])
def test_an_error_is_an_object_with_message_code_and_request_id(error: AppError, status: int, code: str) -> None:
    answered = jina(error)
    assert (answered.status, answered.body) == (
        status,
        {"detail": {"message": str(error), "code": code, "request_id": "0123"}},
    )


@pytest.mark.parametrize("error", [*(error for error, _, _ in ERRORS), *FLAT_ERRORS], ids=lambda value: str(value)[:20])
def test_cohere_and_tei_find_their_own_fields_too(error: AppError) -> None:
    plain = jina(error)
    cohere, tei = (answer_to(error, dialect, "0123") for dialect in (Dialect.COHERE, Dialect.TEI))
    assert cohere.body == {**plain.body, "message": str(error)}
    kind = {429: "Overloaded", 500: "Backend", 503: "Unhealthy"}.get(plain.status, "Validation")
    assert tei.body == {**plain.body, "error": str(error), "error_type": kind}
    assert (cohere.status, tei.status, cohere.headers, tei.headers) == (*[plain.status] * 2, *[plain.headers] * 2)


@pytest.mark.parametrize("error", [*(error for error, _, _ in ERRORS), *FLAT_ERRORS], ids=lambda value: str(value)[:20])
def test_an_error_survives_the_way_between_processes(error: AppError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), repr(copy), jina(copy)) == (type(error), str(error), repr(error), jina(error))


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(OverloadedError(2.5), "3"), (OverloadedError(0), "1"), (NoReplicaError(), "5"), (DeadlineError(1), "5")],
)
def test_who_may_come_again_is_told_when(error: AppError, seconds: str) -> None:
    assert jina(error).headers == {"Retry-After": seconds}


def test_the_seconds_stand_in_the_message_for_clients_that_see_no_headers() -> None:
    assert str(OverloadedError(2.5)).endswith("try again in 3 s")


def test_litellm_does_not_take_a_busy_server_for_too_long_a_text() -> None:
    """It looks for these words in Cohere's answers before it looks at the status."""
    assert "too many tokens" not in str(OverloadedError(1))


def test_a_missing_key_is_told_from_a_wrong_one() -> None:
    missing, wrong = jina(UnauthorizedError()), jina(UnauthorizedError(key_sent=True))
    assert missing == ErrorAnswer(
        401, {"WWW-Authenticate": "Bearer"}, {"detail": "no API key; send the header `Authorization: Bearer KEY`"}
    )
    assert wrong.headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert wrong.body["detail"].startswith("this API key is not known here")


@pytest.mark.parametrize(
    ("usage", "cut"),
    [
        (Usage(cut_queries=1), "the query is longer than max_query_length;"),
        (Usage(cut_documents=2), "max_chunks_per_doc is too small for 2 of the documents;"),
        (Usage(cut_queries=1, cut_documents=1), "max_query_length and max_chunks_per_doc is too small for 1 of"),
    ],
)
def test_what_is_too_long_is_said(usage: Usage, cut: str) -> None:
    assert cut in str(TooLongError(usage))


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    message = str(UnknownModelError("x" * 10_000, ["m", "alias"]))
    assert "use m, alias" in message
    assert len(message) < 300


def test_a_422_names_the_field_in_a_string_and_in_a_list() -> None:
    error = invalid(RerankRequest, {"query": "q", "documents": ["a", None, {"title": "b"}], "top_n": 0})
    assert jina(error) == ErrorAnswer(
        422,
        {},
        {
            "detail": "Validation error: 'documents[1]': Input should be a string or an object with a string `text` "
            "(and 2 more)",
            "request_id": "0123",
            "errors": [
                {
                    "field": "documents[1]",
                    "message": "Input should be a string or an object with a string `text`",
                    "type": "document_type",
                },
                {"field": "documents[2].text", "message": "Field required", "type": "missing"},
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
        (PlainInvocationRequest, {"data": None}, "data"),
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


def test_ten_thousand_mistakes_make_a_short_answer() -> None:
    body = jina(invalid(RerankRequest, {"query": "q", "documents": [None] * 10_000})).body
    assert len(body["errors"]) == MAX_FIELDS
    assert "(and 9,999 more)" in body["detail"]


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
        ("/", Dialect.JINA),
        ("", Dialect.JINA),
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
        read_json(b'{"a": \xff}')
    answered = jina(refused.value)
    assert (answered.status, answered.body["detail"]["code"]) == (400, "INVALID_JSON")
    assert (
        answered.body["detail"]["message"] == "the body is not JSON: not UTF-8 at byte 6; send a JSON object in UTF-8"
    )


# Through FastAPI, as the endpoint uses it.

ROUTES: list[tuple[str, Any, Any]] = [
    ("/v1/rerank", RerankRequest, RerankAnswer),
    ("/v2/rerank", CohereRequest, CohereAnswer),
    ("/rerank", PlainRequest, RerankAnswer | list[TeiScore]),
    ("/v1/score", ScoreRequest, ScoreAnswer),
    ("/invocations", PlainInvocationRequest, RerankAnswer | InvocationAnswer),
]
JSON = {"content-type": "application/json"}


async def refuse(request: Request, error: Exception) -> JSONResponse:
    answered = answer_to(error, dialect_of(request.url.path), "0123")
    return JSONResponse(answered.body, answered.status, answered.headers)


def route_of(kind: Any) -> Any:
    async def rerank(body: Any) -> JSONResponse:
        if body.tasks()[0].query == "fail":
            raise RuntimeError("the secret")
        return JSONResponse([task.query for task in body.tasks()])

    rerank.__annotations__["body"] = kind
    return rerank


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI(exception_handlers=dict.fromkeys([Exception, HTTPException, RequestValidationError], refuse))
    for path, kind, answer in ROUTES:
        app.post(path, responses={200: {"model": answer}, **ERROR_RESPONSES})(route_of(kind))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("path", [path for path, _, _ in ROUTES])
def test_fastapi_reads_our_models(client: TestClient, path: str) -> None:
    sent = {"query": {"text": "q"}, "queries": "q", "documents": ["a", {"text": "b", "id": 1}]}
    answered = client.post(path, json=sent)
    assert (answered.status_code, answered.json()) == (200, ["q"])


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "words"),
    [
        ("POST", "/v1/rerank", b"{", 400, "not JSON: Expecting property name"),
        ("POST", "/v1/rerank", b'{"query": "\xff"}', 400, "not JSON: not UTF-8 at byte 11"),
        ("POST", "/v1/rerank", b"[" * 100_000, 400, "not JSON: nested too deeply"),
        ("POST", "/v1/rerank", b"[" + b"1" * 5_000 + b"]", 400, "not JSON: a number has too many digits"),
        ("POST", "/v1/rerank", b"[]", 422, "'body': Input should be an object"),
        ("POST", "/v1/rerank", b"null", 422, "'body': "),
        ("POST", "/v1/rerank", b"", 422, "'body': Field required"),
        ("POST", "/v1/rerank", b'{"query": "q"}', 422, "'documents': Field required"),
        ("POST", "/v1/rerank", b'{"query": "\\ud800", "documents": []}', 422, "'query': Text holds a lone surrogate"),
        ("POST", "/v1/rerank", b'{"query": "q", "documents": [{"text": "a", "x": NaN}]}', 422, "'documents[0].x': NaN"),
        ("POST", "/rerank", b'{"query": "q", "texts": [null]}', 422, "'texts[0]': Input should be a string"),
        ("POST", "/v2/rerank", b'{"query": "", "documents": []}', 422, "'query': Query has nothing but white space"),
        ("POST", "/v1/rerank", b'{"query": "fail", "documents": []}', 500, "internal error"),
        ("POST", "/nothing", b"{}", 404, "there is no such route"),
        ("GET", "/v1/rerank", b"", 405, "this route has other methods"),
    ],
)
def test_every_error_that_a_client_meets_is_json_with_detail(
    client: TestClient, method: str, path: str, content: bytes, status: int, words: str
) -> None:
    answered = client.request(method, path, content=content, headers=JSON)
    body = answered.json()
    message = body["detail"] if status == 422 else body["detail"]["message"]
    assert (answered.status_code, words in message) == (status, True), body
    assert ("message" in body, "error_type" in body) == (path == "/v2/rerank", path == "/rerank")


def test_a_405_says_what_is_allowed(client: TestClient) -> None:
    assert client.get("/v1/rerank").headers["allow"] == "POST"


def test_the_docs_show_every_request_answer_and_error(client: TestClient) -> None:
    docs = client.get("/openapi.json").json()
    for path, _, _ in ROUTES:
        operation = docs["paths"][path]["post"]
        assert operation["requestBody"]["content"]["application/json"]["schema"]
        assert {"200", "400", "401", "404", "413", "422", "429", "500", "503"} == operation["responses"].keys()
    shapes = docs["components"]["schemas"]
    assert "HTTPValidationError" not in shapes
    assert shapes["RankedResult"]["required"] == ["index", "relevance_score"]
    assert shapes["RerankRequest"]["required"] == ["query", "documents"]


any_text = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates, too
secrets = any_text.map(lambda text: f"{text}secret{text}")
values = st.none() | st.booleans() | st.integers() | st.floats() | secrets
any_json = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=8
)
names = st.sampled_from(["id", "query", "documents", "texts", "queries", "data", "top_n", "return_documents", "model"])
bodies = st.dictionaries(names, any_json | st.lists(any_json | st.dictionaries(names | st.just("text"), any_json)))

ADAPTERS: list[TypeAdapter[Any]] = [TypeAdapter(kind) for kind in (*(kind for _, kind, _ in ROUTES), StreamRequest)]


@given(any_json | bodies)
def test_no_error_repeats_a_value_or_fails_to_be_sent(sent: Any) -> None:
    for adapter in ADAPTERS:
        try:
            adapter.validate_python(sent)
        except ValidationError as refused:
            body = JSONResponse(jina(refused).body).body
            assert b"secret" not in bytes(body)
