"""What a value in a request may be: texts, queries, documents, and whatever else is sent back."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Tag,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serve.schemas.unsupported import not_supported

MAX_DEPTH = 64
"""Levels of arrays and objects in what is echoed: far from Python's recursion limit, far beyond any real metadata."""
STRING, OBJECT, TEI, JINA, QUERIES, SAGEMAKER, VLLM = UNION_TAGS = (
    "(string)",
    "(object)",
    "(tei)",
    "(jina)",
    "(queries)",
    "(sagemaker)",
    "(vllm)",
)
"""The choices in our unions: they stand in the `loc` of pydantic's errors, which no caller needs to see."""
MAX_DOCUMENTS = "max_documents"
"""The key in the context of a validation under which the most elements of a list stand."""

NOT_TEXT = ("image", "content")
"""What a query may have beside or in place of its `text`, for models that see images."""

T = TypeVar("T")


def is_body(value: Any, kind: type[BaseModel], *names: str) -> bool:
    """Whether a body is of this kind: it has one of the fields of these names, and not as null."""
    return isinstance(value, kind) or (isinstance(value, dict) and any(value.get(name) is not None for name in names))


def check_unicode(text: str) -> str:
    """`text` itself; raises PydanticCustomError for one that neither a tokenizer nor UTF-8 can carry."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError(
                "invalid_unicode",
                "Text holds a lone surrogate at character {position}; replace it before sending",
                {"position": error.start},
            ) from None
    return text


def check_echo(value: Any) -> Any:
    """`value` itself; raises PydanticCustomError for one that cannot go back as JSON."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return value
        below: list[Any] = []
        for one in level:
            match one:
                case str():
                    check_unicode(one)
                case float() if not math.isfinite(one):
                    raise PydanticCustomError("finite_number", "NaN and infinity have no place in JSON; send null")
                case dict():
                    below += [*one.keys(), *one.values()]
                case list():
                    below += one
        level = below
    raise PydanticCustomError("too_deep", "Nested deeper than {limit} levels", {"limit": MAX_DEPTH})


def check_count(value: Any, info: ValidationInfo) -> Any:
    """`value` itself; raises PydanticCustomError for a list of more elements than the validation's context allows."""
    if isinstance(value, list):
        check_documents(len(value), info)
    return value


def check_documents(documents: int, info: ValidationInfo) -> None:
    """Raises PydanticCustomError for more documents than the validation's context allows."""
    most = (info.context or {}).get(MAX_DOCUMENTS)
    if most is not None and documents > most:
        sizes = {"documents": documents, "limit": most}
        raise PydanticCustomError("too_many_documents", "List has {documents} elements, more than {limit}", sizes)


def check_query(text: str) -> str:
    """`text` itself; raises PydanticCustomError for a blank one, which a job refuses too."""
    if not text.strip():
        raise PydanticCustomError("blank_query", "Query has nothing but white space")
    return text


def unwrap_text(value: Any) -> Any:
    """The text of `{"text": ...}`; anything else as it is.

    Raises ValidationError for a query that has more to it than a text, in Jina's words or vLLM's.
    """
    if isinstance(value, dict):
        for name in NOT_TEXT:
            if value.get(name) is not None:
                raise not_supported("Query", name, "the model reads texts alone")
    return value["text"] if isinstance(value, dict) and "text" in value else value


def type_of_document(value: Any) -> str | None:
    """The tag of a document's type; None for what is not a document."""
    if isinstance(value, str):
        return STRING
    return OBJECT if isinstance(value, dict | Document) else None


Text = Annotated[str, AfterValidator(check_unicode)]
Echo = Annotated[Any, AfterValidator(check_echo)]
"""Any JSON value that can be sent back as it came."""
Bounded = Annotated[list[T], FailFast(), BeforeValidator(check_count)]
"""A list whose length is looked at before its elements, and whose first wrong element is the last one looked at: a
list of a million mistakes would take half a minute, and a gigabyte, to tell them all."""


class TextObject(BaseModel):
    """A text as an object."""

    text: Text


class Document(TextObject):
    """A document as an object: `text` is scored, all other fields come back untouched."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"text": "a text", "id": 17}]})

    @model_validator(mode="after")
    def _check_other_fields(self) -> Self:
        """Raises ValidationError for the first field that cannot go back: pydantic itself would tell of all of them."""
        for name, value in (self.model_extra or {}).items():
            try:
                check_echo(value)
            except PydanticCustomError as error:
                at_field: Any = {"type": error, "loc": (name,), "input": None}
                raise ValidationError.from_exception_data("Document", [at_field]) from None
        return self


DocumentInput = Annotated[
    Annotated[Text, Tag(STRING)] | Annotated[Document, Tag(OBJECT)],
    Discriminator(
        type_of_document,
        custom_error_type="document_type",
        custom_error_message="Input should be a string or an object with a string `text`",
    ),
]
Query = Annotated[
    Text, BeforeValidator(unwrap_text, json_schema_input_type=str | TextObject), AfterValidator(check_query)
]
