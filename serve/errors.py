"""What went wrong -> status, headers and JSON body; the only place where a status code is chosen.

Every body is JSON with a top-level `detail`, which is all that the clients of LangChain, LlamaIndex and Haystack read.

CrossrayError
├── InvalidInputError, ConfigError   422  of the reranker: texts or lengths of the call
└── AppError
    ├── NotJsonError                 400
    ├── TooLongError                 400  `truncate` is false
    ├── UnauthorizedError            401
    ├── UnknownModelError            404
    ├── HttpError                         as the framework says: no such route, method, ...
    ├── PayloadTooLargeError         413
    ├── TooManyDocumentsError        413
    ├── InvalidFieldsError           422
    ├── OverloadedError              429
    ├── NonFiniteScoreError          500
    ├── InternalError                500  anything else
    └── UnavailableError             503
        ├── NoReplicaError
        └── DeadlineError
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, NotRequired

from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError, with_config
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.errors import ConfigError, CrossrayError, InvalidInputError
from pipelines.records import Usage
from serve.schemas import UNION_TAGS, why_not_json

RETRY_SECONDS = 5
"""A replica that died is replaced after about 4 s."""
MAX_FIELDS = 20
"""Field errors named in one answer; a list of ten thousand nulls needs no ten thousand messages."""
MAX_NAME = 200
"""Characters of a name that the caller chose, where we repeat it."""

TEI_ERROR_TYPES = {429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
"""TEI's word by status; for all others it is `Validation`."""


class Dialect(StrEnum):
    """Whose form an error's body takes; all forms have `detail`."""

    JINA = "jina"
    COHERE = "cohere"
    TEI = "tei"


def dialect_of(path: str) -> Dialect:
    """The dialect of a route, also of one that does not exist; slashes may be doubled.

    Errors of `/rerank` have TEI's fields whatever was sent: who does not know them does not see them.
    """
    match [part for part in path.split("/") if part]:
        case ["v2", *_]:
            return Dialect.COHERE
        case ["rerank"]:
            return Dialect.TEI
        case _:
            return Dialect.JINA


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as it leaves the server."""

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def line(self) -> dict[str, Any]:
        """The same in a stream, for `schemas.stream_line`."""
        return {"error": {"status": self.status, **self.body}}


def answer_to(error: BaseException, dialect: Dialect, request_id: str) -> ErrorAnswer:
    """The answer to any error at all; what is not known here becomes a 500 that tells nothing of the inside."""
    refusal = as_app_error(error)
    body = refusal.body(request_id)
    if dialect is Dialect.COHERE:
        body["message"] = refusal.message
    if dialect is Dialect.TEI:
        body |= {"error": refusal.message, "error_type": TEI_ERROR_TYPES.get(refusal.status, "Validation")}
    return ErrorAnswer(refusal.status, refusal.headers, body)


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
            cut.append(f"max_chunks_per_doc is too small for {usage.cut_documents:,} of the documents")
        super().__init__(f"truncate is false, but {' and '.join(cut)}; raise the limit or leave out truncate")


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


class PayloadTooLargeError(AppError):
    """The body, or a line of a stream, has more bytes than allowed."""

    status, code = 413, "PAYLOAD_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit:,} bytes; split it into several requests")


class TooManyDocumentsError(AppError):
    """More documents than one request may have."""

    status, code = 413, "TOO_MANY_DOCUMENTS"

    def __init__(self, documents: int, limit: int) -> None:
        super().__init__(
            f"the request has {documents:,} documents; at most {limit:,} are allowed, split it into several requests"
        )


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
    """Whatever nobody foresaw."""

    status, code = 500, "INTERNAL_ERROR"

    def __init__(self) -> None:
        super().__init__("internal error; the server's log has its cause under this request id")


class UnavailableError(AppError):
    """Not now; the message says why."""

    status, code = 503, "UNAVAILABLE"
    retry_after = RETRY_SECONDS


class NoReplicaError(UnavailableError):
    """The replica died, and so did the one that was asked instead."""

    code = "NO_REPLICA"

    def __init__(self) -> None:
        super().__init__("no replica could answer, not at the second try either; try again in a few seconds")


class DeadlineError(UnavailableError):
    """No answer within the deadline."""

    code = "DEADLINE_EXCEEDED"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s; send fewer documents at once, or try again later")


def whole_seconds(seconds: float) -> int:
    """As Retry-After wants them: whole, and no invitation to come back at once."""
    return max(1, math.ceil(seconds))


def rebuilt(kind: type[AppError], attributes: dict[str, Any]) -> AppError:
    """The error that `__reduce__` took apart."""
    error = kind.__new__(kind, attributes["message"])
    error.__dict__.update(attributes)
    return error


def as_app_error(error: BaseException) -> AppError:
    """The error as one of ours."""
    cause = getattr(error, "cause", None)  # what was raised in a replica, inside Ray's RayTaskError
    match cause if isinstance(cause, Exception) else error:
        case AppError() as known:
            return known
        case RequestValidationError() | ValidationError() as invalid:
            return not_valid(invalid.errors())
        case HTTPException() as refused:
            return of_framework(refused)
        case InvalidInputError() | ConfigError() as invalid:
            return invalid_input(str(invalid))
        case _:
            return InternalError()


def not_ranked(reason: str) -> AppError:
    """The error for a `Ranking` that has one, which is `reason`."""
    if reason.startswith("non_finite_score"):
        return NonFiniteScoreError(reason.partition(": ")[2])
    return invalid_input(reason)


def invalid_input(message: str) -> InvalidFieldsError:
    """An error of the reranker, `reason: what is wrong`, which names the text or the length by itself."""
    reason, _, what = message.partition(": ")
    if not what or not reason.isidentifier():
        reason, what = "invalid_value", message
    return InvalidFieldsError([{"field": "body", "message": what, "type": reason}])


def not_valid(errors: Sequence[Any]) -> AppError:
    """What pydantic or FastAPI found wrong, without the values that it found wrong: they can be huge, or secret."""
    first = errors[0]
    if first["type"] == "json_invalid":
        position = f" at character {first['loc'][1]}" if len(first["loc"]) > 1 else ""
        return NotJsonError(f"{first['ctx']['error']}{position}")
    fields: list[FieldError] = [
        {"field": field_at(one["loc"]), "message": message_of(one), "type": one["type"]} for one in errors[:MAX_FIELDS]
    ]
    return InvalidFieldsError(fields, len(errors) - 1)


def field_at(loc: Sequence[str | int]) -> str:
    """A place in the body as one writes it: `documents[3].text`."""
    inside = loc[1:] if loc[:1] == ("body",) else loc  # FastAPI says where the request had it
    parts = [part for part in inside if part not in UNION_TAGS]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return path[:MAX_NAME] or "body"


def message_of(error: Any) -> str:
    """Pydantic's message; where it would speak of dictionaries and our classes, one that speaks of JSON."""
    is_no_object = error["type"] in ("model_type", "model_attributes_type", "dict_type")
    return "Input should be an object" if is_no_object else str(error["msg"])


def of_framework(error: HTTPException) -> AppError:
    """A route or method that is not there, or a body that FastAPI could not read at all."""
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, ValueError | RecursionError):
        return NotJsonError(why_not_json(error.__cause__))
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = "there is no such route; /docs lists them"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = "this route has other methods; the header Allow lists them"
    return HttpError(error.status_code, message, error.headers)


described = with_config(ConfigDict(use_attribute_docstrings=True))


@described
class FieldError(TypedDict):
    """A field that is wrong."""

    field: Annotated[str, Field(examples=["documents[3].text"])]
    message: Annotated[str, Field(examples=["Input should be a valid string"])]
    type: Annotated[str, Field(examples=["string_type"])]
    """A stable word for the kind of error."""


@described
class ErrorDetail(TypedDict):
    """What went wrong."""

    message: str
    """For people."""
    code: Annotated[str, Field(examples=["OVERLOADED"])]
    """For programs."""
    request_id: str


@described
class DialectErrorFields(TypedDict):
    """What two dialects say beside `detail`."""

    message: NotRequired[str]
    """On /v2 routes, for Cohere's clients."""
    error: NotRequired[str]
    """On /rerank, for TEI's clients."""
    error_type: NotRequired[Annotated[str, Field(examples=["Overloaded"])]]
    """On /rerank, for TEI's clients."""


class ErrorBody(DialectErrorFields):
    """The body of an error."""

    detail: ErrorDetail


class UnauthorizedBody(DialectErrorFields):
    """The body of a 401."""

    detail: str


@described
class InvalidFieldsBody(DialectErrorFields):
    """The body of a 422."""

    detail: Annotated[str, Field(examples=["Validation error: 'documents[3].text': Input should be a valid string"])]
    """The first error, for clients that show nothing else."""
    request_id: str
    errors: list[FieldError]
    """At most 20."""


RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before trying again.", "schema": {"type": "integer"}}}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Not JSON in UTF-8; or `truncate` is false and a text is too long."},
    401: {"model": UnauthorizedBody, "description": "No API key, or an unknown one."},
    404: {"model": ErrorBody, "description": "No such route; or a strict server does not know the model."},
    413: {"model": ErrorBody, "description": "The body has too many bytes or documents."},
    422: {"model": InvalidFieldsBody, "description": "A field is wrong."},
    429: {"model": ErrorBody, "description": "Too much is waiting.", "headers": RETRY_AFTER},
    500: {"model": ErrorBody, "description": "Our fault."},
    503: {"model": ErrorBody, "description": "No replica, or the deadline has passed.", "headers": RETRY_AFTER},
}
"""The errors of an inference route, as FastAPI's `responses` wants them."""
