"""Every error has one status, and a JSON body that the clients of its dialect can read."""

from __future__ import annotations

import pickle

import pytest

from pipelines.records import Usage
from serve.error_answers import Dialect, ErrorAnswer, answer_to
from serve.errors import (
    AppError,
    DeadlineError,
    EncodedBodyError,
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
    TooManyTokensError,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
)

ERRORS: list[tuple[AppError, int, str]] = [
    (NotJsonError("Expecting value at character 0"), 400, "INVALID_JSON"),
    (TooLongError(Usage(cut_queries=1)), 400, "INPUT_TOKEN_LIMIT_EXCEEDED"),
    (UnknownModelError("other", ["m", "alias"]), 404, "MODEL_NOT_FOUND"),
    (HttpError(405, "no", {"Allow": "POST"}), 405, "METHOD_NOT_ALLOWED"),
    (PayloadTooLargeError(32 << 20), 413, "PAYLOAD_TOO_LARGE"),
    (EncodedBodyError("gzip"), 415, "UNSUPPORTED_ENCODING"),
    (TooManyDocumentsError(12_000, 10_000), 413, "TOO_MANY_DOCUMENTS"),
    (TooManyTokensError(60_000, 20_000_000, 1 << 24), 413, "TOO_MANY_TOKENS"),
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
        (Usage(cut_documents=2), "max_chunks_per_doc (or max_tokens_per_doc) is too small for 2 of the documents;"),
        (
            Usage(cut_queries=1, cut_documents=1),
            "max_query_length and max_chunks_per_doc (or max_tokens_per_doc) is too small for 1 of",
        ),
    ],
)
def test_what_is_too_long_is_said(usage: Usage, cut: str) -> None:
    assert cut in str(TooLongError(usage))


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    message = str(UnknownModelError("x" * 10_000, ["m", "alias"]))
    assert "use m, alias" in message
    assert len(message) < 300
