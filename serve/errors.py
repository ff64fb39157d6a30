"""The errors of a request, each with its status; the only place where a status code is chosen.

CrossrayError
├── InvalidInputError, ConfigError   422  of the reranker: texts or lengths of the call
└── AppError
    ├── NotJsonError                 400
    ├── TooLongError                 400  `truncate` is false
    ├── UnsupportedParameterError    400  a dialect knows it, and we do not
    ├── UnauthorizedError            401
    ├── UnknownModelError            404
    ├── SlowRequestError             408
    ├── HttpError                         as the framework says: no such route, method, ...
    ├── PayloadTooLargeError         413
    ├── TooManyDocumentsError        413
    ├── TooManyTokensError           413
    ├── TooManyValuesError           413
    ├── UnbrokenTextError            413
    ├── EncodedBodyError             415
    ├── InvalidFieldsError           422
    │   └── UncalibratedError             `score_threshold` of scores that mean nothing
    ├── OverloadedError              429
    ├── NonFiniteScoreError          500
    ├── InternalError                500  anything else
    └── UnavailableError             503
        ├── NoReplicaError
        ├── OtherModelError
        └── DeadlineError
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from typing_extensions import override  # in typing from Python 3.12

from pipelines.errors import CrossrayError
from pipelines.records import Usage
from serve.error_bodies import FieldError

RETRY_SECONDS = 5
"""A replica that died is replaced after about 4 s."""
MAX_NAME = 200
"""Characters of a name that the caller chose, where we repeat it."""


class AppError(CrossrayError):
    """A request that is not answered with a ranking. Can be pickled: some are raised in a replica."""

    status: int
    code: str
    retry_after: float | None = None
    """Seconds until it makes sense to try again."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (type(self), self.__dict__)  # exceptions would be rebuilt from their message alone

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(whole_seconds(self.retry_after))}

    def body(self, request_id: str) -> dict[str, Any]:
        """The body in Jina's form, to which the other dialects add."""
        return {"detail": {"message": self.message, "code": self.code, "request_id": request_id}}


class NotJsonError(AppError):
    """The body is not JSON in UTF-8."""

    status, code = 400, "INVALID_JSON"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the body is not JSON: {reason}; send a JSON object in UTF-8")


class TooLongError(AppError):
    """`truncate` is false, and something would have been cut."""

    status, code = 400, "INPUT_TOKEN_LIMIT_EXCEEDED"

    def __init__(self, usage: Usage) -> None:
        cut = []
        if usage.cut_queries:
            cut.append("the query is longer than max_query_length")
        if usage.cut_documents:
            cut.append(
                f"max_chunks_per_doc (or max_tokens_per_doc) is too small for {usage.cut_documents:,} of the documents"
            )
        super().__init__(f"truncate is false, but {' and '.join(cut)}; raise the limit or leave out truncate")


class UnsupportedParameterError(AppError):
    """A parameter that would change the answer, if this server could do what it says."""

    status, code = 400, "UNSUPPORTED_PARAMETER"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} is not supported here: {reason}; leave it out")
        self.field = field


class UnauthorizedError(AppError):
    """No key, or one that is not ours."""

    status, code = 401, "UNAUTHORIZED"

    def __init__(self, key_sent: bool = False) -> None:
        wrong = "this API key is not known here" if key_sent else "no API key"
        super().__init__(f"{wrong}; send the header `Authorization: Bearer KEY`")
        self.key_sent = key_sent

    @property
    @override
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer error="invalid_token"' if self.key_sent else "Bearer"}

    @override
    def body(self, request_id: str) -> dict[str, Any]:
        return {"detail": self.message}


class UnknownModelError(AppError):
    """The server is strict about names, and this one is not among them."""

    status, code = 404, "MODEL_NOT_FOUND"

    def __init__(self, model: str, served: Sequence[str]) -> None:
        names = ", ".join(served)
        super().__init__(f"model {model[:MAX_NAME]!r} is not served here; use {names}, or leave it out")


class HttpError(AppError):
    """What the framework itself refuses."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = HTTPStatus(status).name
        self.passed_on = dict(headers or {})

    @property
    @override
    def headers(self) -> dict[str, str]:
        return self.passed_on


class SlowRequestError(AppError):
    """The request, or the next line of a stream, does not come, or comes too slowly."""

    status, code = 408, "REQUEST_TIMEOUT"

    def __init__(self, received: int) -> None:
        super().__init__(
            f"the body came too slowly, or nothing more of it came ({received:,} bytes did); send it again, in smaller "
            "requests where the line is slow"
        )


class PayloadTooLargeError(AppError):
    """The body, a line of a stream, or the text in it, is larger than allowed."""

    status, code = 413, "PAYLOAD_TOO_LARGE"

    def __init__(self, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"the body is larger than {limit:,} {unit}; split it into several requests")


class TooManyDocumentsError(AppError):
    """More documents than one request may have."""

    status, code = 413, "TOO_MANY_DOCUMENTS"

    def __init__(self, documents: int, limit: int) -> None:
        super().__init__(
            f"the request has {documents:,} documents; at most {limit:,} are allowed, split it into several requests"
        )


class TooManyTokensError(AppError):
    """The pairs of one request, each of which repeats the query, would have more tokens than allowed."""

    status, code = 413, "TOO_MANY_TOKENS"

    def __init__(self, pairs: int, tokens: int, limit: int) -> None:
        super().__init__(
            f"the request makes {pairs:,} pairs of the query and a chunk, which count as {tokens:,} tokens; at most "
            f"{limit:,} are allowed, send fewer documents at once, a shorter query or instruction, or a larger "
            "max_length"
        )


class TooManyValuesError(AppError):
    """More JSON values than a body may have."""

    status, code = 413, "TOO_MANY_VALUES"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body holds more than {limit:,} JSON values (texts, numbers, lists, ...); send fewer documents at "
            "once, or less with each"
        )


class UnbrokenTextError(AppError):
    """A text that the tokenizer can only take in one piece, and that is too long for that."""

    status, code = 413, "UNBROKEN_TEXT"

    def __init__(self, characters: int, limit: int, cuts_at_spaces: bool) -> None:
        without = " without a space between two words" if cuts_at_spaces else ", which this model takes in one piece"
        super().__init__(
            f"a text has {characters:,} characters{without}; at most {limit:,} are allowed, split it into several "
            "documents"
        )


class EncodedBodyError(AppError):
    """The body is compressed, or encoded otherwise."""

    status, code = 415, "UNSUPPORTED_ENCODING"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"the body has the Content-Encoding {encoding!r:.40}; send it as plain JSON")


class InvalidFieldsError(AppError):
    """Fields of the request are wrong; `more` is how many beside the first, which may be more than are listed."""

    status, code = 422, "VALIDATION_ERROR"

    def __init__(self, fields: Sequence[FieldError], more: int = 0) -> None:
        rest = f" (and {more:,} more)" if more else ""
        super().__init__(f"Validation error: '{fields[0]['field']}': {fields[0]['message']}{rest}")
        self.fields = fields

    @override
    def body(self, request_id: str) -> dict[str, Any]:
        return {"detail": self.message, "request_id": request_id, "errors": list(self.fields)}


class UncalibratedError(InvalidFieldsError):
    """A threshold for scores without calibration; `why` they have none."""

    def __init__(self, why: str) -> None:
        message = (
            f"{why}, so that a threshold means nothing; whoever runs the server can fit them with `crossray "
            "calibrate`, and `allow_uncalibrated` true takes the threshold as it is"
        )
        super().__init__([{"field": "score_threshold", "message": message, "type": "uncalibrated"}])


class OverloadedError(AppError):
    """Too much is waiting already."""

    status, code = 429, "OVERLOADED"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the server is busy and its queue full; try again in {whole_seconds(retry_after)} s")
        self.retry_after = retry_after


class NonFiniteScoreError(AppError):
    """The model gave NaN or infinity for a document, which the message names."""

    status, code = 500, "NON_FINITE_SCORE"


class InternalError(AppError):
    """Any error that the server did not foresee."""

    status, code = 500, "INTERNAL_ERROR"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has its cause under this request id")


class UnavailableError(AppError):
    """The server cannot answer now; the message says why."""

    status, code = 503, "UNAVAILABLE"
    retry_after = RETRY_SECONDS


class NoReplicaError(UnavailableError):
    """The replica died, and so did the one that was asked instead."""

    code = "NO_REPLICA"

    def __init__(self) -> None:
        super().__init__("no replica could answer, not at the second try either; try again in a few seconds")


class OtherModelError(UnavailableError):
    """The replica, and the one that was asked instead, has other model files than the endpoint that tokenized."""

    code = "OTHER_MODEL"

    def __init__(self, replicas: str, endpoints: str) -> None:
        super().__init__(
            f"a replica has other model files (SHA-256 {replicas}) than this endpoint ({endpoints}), and scores would "
            "be wrong; try again when the deployment that is under way has ended, or deploy the app again"
        )


class DeadlineError(UnavailableError):
    """No answer within the deadline."""

    code = "DEADLINE_EXCEEDED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s; send fewer documents at once, or try again later")


def whole_seconds(seconds: float) -> int:
    """Seconds as Retry-After wants them: rounded up to a whole number, at least 1."""
    return max(1, math.ceil(seconds))


def rebuilt(kind: type[AppError], attributes: dict[str, Any]) -> AppError:
    """The error that `__reduce__` took apart."""
    error = kind.__new__(kind, attributes["message"])
    error.__dict__.update(attributes)
    return error
