"""Turns whatever was raised into an answer: status, headers and body, in the dialect of the route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from itertools import islice
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from pipelines.errors import ConfigError, InvalidInputError, NoScore
from serve.error_bodies import FieldError
from serve.errors import (
    MAX_NAME,
    AppError,
    HttpError,
    InternalError,
    InvalidFieldsError,
    NonFiniteScoreError,
    NotJsonError,
    TooManyDocumentsError,
    UnsupportedParameterError,
)
from serve.schemas import UNION_TAGS, UNSUPPORTED, nearest, why_not_json

MAX_FIELDS = 20
"""Field errors named in one answer; a list of ten thousand nulls needs no ten thousand messages."""

TEI_ERROR_TYPES = {429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
"""TEI's word by status; for all others it is `Validation`."""


class Dialect(StrEnum):
    """Whose form an error's body takes; all forms have `detail`."""

    JINA = "jina"
    COHERE = "cohere"
    TEI = "tei"


def dialect_of(path: str) -> Dialect:
    """The dialect of a route, also of one that does not exist; slashes may be doubled.

    Errors of TEI's routes have its fields whatever was sent: clients that do not know these fields ignore them.
    """
    match [part for part in path.split("/") if part]:
        case ["v2", *_]:
            return Dialect.COHERE
        case [] | ["rerank" | "tokenize" | "info"]:
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
    if reason.startswith(NoScore.NON_FINITE_SCORE):
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
    for one in errors:
        if one["type"] == "too_many_documents":
            return TooManyDocumentsError(**one["ctx"])
        if one["type"] == UNSUPPORTED:
            return UnsupportedParameterError(field_at(one["loc"]), one["ctx"]["reason"])
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
    """Pydantic's message; where it would speak of dictionaries and our classes, one that speaks of JSON.

    Of a field that is missing it says which other one may have been meant for it.
    """
    if error["type"] == "missing" and (instead := meant_as(str(error["loc"][-1]), error.get("input"))):
        return f"{error['msg']}; `{instead}` is not read here"
    is_no_object = error["type"] in ("model_type", "model_attributes_type", "dict_type")
    return "Input should be an object" if is_no_object else str(error["msg"])


def meant_as(field: str, sent: Any) -> str | None:
    """Which of the first fields that were sent looks like the one that is missing."""
    names = islice(sent, MAX_FIELDS) if isinstance(sent, Mapping) else ()
    return next((name for name in names if nearest(name, frozenset([field])) is not None), None)


def of_framework(error: HTTPException) -> AppError:
    """A route or method that is not there, or a body that FastAPI could not read at all."""
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, ValueError | RecursionError):
        return NotJsonError(why_not_json(error.__cause__))
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = "there is no such route; /docs lists them"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = "this route has other methods, which the header Allow lists, and no WebSockets"
    return HttpError(error.status_code, message, error.headers)
