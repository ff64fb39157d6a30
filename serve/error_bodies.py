"""The bodies of errors, as /docs shows them.

Every body is JSON with a top-level `detail`, which is all that the clients of LangChain, LlamaIndex and Haystack read.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from serve.schemas.dialect import described


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
    """On TEI's routes: /, /rerank, /tokenize, /info."""
    error_type: NotRequired[Annotated[str, Field(examples=["Overloaded"])]]
    """Likewise."""


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
    400: {
        "model": ErrorBody,
        "description": "Not JSON in UTF-8; a parameter that is not supported; or `truncate` is false and a text is too "
        "long.",
    },
    401: {"model": UnauthorizedBody, "description": "No API key, or an unknown one."},
    404: {"model": ErrorBody, "description": "No such route; or a strict server does not know the model."},
    408: {"model": ErrorBody, "description": "The body came too slowly."},
    413: {"model": ErrorBody, "description": "The body has too many bytes, documents or JSON values."},
    415: {"model": ErrorBody, "description": "The body is compressed."},
    422: {"model": InvalidFieldsBody, "description": "A field is wrong."},
    429: {"model": ErrorBody, "description": "Too much is waiting.", "headers": RETRY_AFTER},
    500: {"model": ErrorBody, "description": "Our fault."},
    503: {"model": ErrorBody, "description": "No replica, or the deadline has passed.", "headers": RETRY_AFTER},
}
"""The errors of an inference route, as FastAPI's `responses` wants them."""
