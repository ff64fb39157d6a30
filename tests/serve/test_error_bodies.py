"""Through FastAPI, as the endpoint uses it: the bodies of errors as clients meet them, and as /docs shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException

from serve.error_answers import answer_to, dialect_of
from serve.error_bodies import ERROR_RESPONSES
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
    TeiScore,
)

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
        assert {"200", "400", "401", "404", "408", "413", "415", "422", "429", "500", "503"} == operation[
            "responses"
        ].keys()
    shapes = docs["components"]["schemas"]
    assert "HTTPValidationError" not in shapes
    assert shapes["RankedResult"]["required"] == ["index", "relevance_score"]
    assert shapes["RerankRequest"]["required"] == ["query", "documents"]
