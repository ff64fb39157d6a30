"""Parameters that a dialect knows, that would change the answer, and that this server cannot honour.

They are refused by their name: who sends one would take an answer without it for one with it. What would be done anyway
is harmless, and so is null. Parameters that no dialect knows are passed over, and named where they look like one that
is read (`serve.schemas.near_misses`). Refused are also two names of one
parameter that disagree, and numbers and booleans in each other's place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from serve.schemas.near_misses import near_misses
from serve.schemas.synonyms import agreed

UNSUPPORTED = "unsupported_parameter"
"""The type of the error."""


class Unsupported(NamedTuple):
    """Why a parameter cannot be honoured, and which of its values ask for nothing."""

    reason: str
    is_harmless: Callable[[Any], bool] = lambda _: False


def is_right(side: Any) -> bool:
    """Whether texts are to be cut at their end, in TEI's or vLLM's words."""
    return isinstance(side, str) and side.lower() == "right"


def is_false(wanted: Any) -> bool:
    """Whether it is false, or the word."""
    return isinstance(wanted, bool | str) and str(wanted).lower() == "false"


FROM_THE_BEGINNING = "texts are read from their beginning"
NO_INSTRUCTIONS = "the model takes a query and a document, and no instructions"
"""Of an instruction where this server's model takes none."""
NO_TEMPLATES = "a model has its publisher's words; what it looks for is said in `instruction`, where it takes one"
UNSUPPORTED_PARAMETERS: Mapping[str, Unsupported] = {
    # vLLM
    "truncation_side": Unsupported(FROM_THE_BEGINNING, is_right),
    "chat_template": Unsupported(NO_TEMPLATES),
    "chat_template_kwargs": Unsupported(NO_TEMPLATES),
    "messages": Unsupported("the model knows no chats"),
    # TEI
    "truncation_direction": Unsupported(FROM_THE_BEGINNING, is_right),
    "prompt_name": Unsupported(NO_TEMPLATES),
    # Cohere
    "rank_fields": Unsupported("documents are ranked by their `text`", lambda fields: fields in ([], ["text"])),
    "relevant_spans": Unsupported("whole documents are ranked"),
    # Jina
    "return_embeddings": Unsupported("the model makes scores, and no embeddings", is_false),
}
OF_ANOTHER_DIALECT: Mapping[str, Unsupported] = {
    **UNSUPPORTED_PARAMETERS,
    "score_threshold": Unsupported("all results come back; /v1/rerank and /v1/rerank/stream leave some out"),
}
"""The same for all dialects but ours of Jina's."""


class HonestRequest(BaseModel):
    """A request that refuses what it cannot honour."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = OF_ANOTHER_DIALECT
    """By name; a dialect may add to it."""
    _warnings: list[str] = PrivateAttr(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What the caller may not have meant; at most 20."""
        return self._warnings

    def with_warnings(self, answer: Any) -> Any:
        """The answer with the warnings, if there are any, where the dialect has a place for them."""
        return {**answer, "warnings": self.warnings} if self.warnings else answer

    @model_validator(mode="wrap")
    @classmethod
    def _look_for_near_misses(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        request = handler(value)
        if isinstance(value, dict):
            request._warnings = cls.near_misses_in(value)
        return request

    @classmethod
    def near_misses_in(cls, sent: Mapping[str, Any]) -> list[str]:
        """A warning for each field of a request that is not read, and that looks like one that is."""
        refused = frozenset(cls.unsupported)
        readable = names_of(cls) - refused
        return near_misses(readable | refused, readable, sent)

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        """Raises ValidationError for the first parameter that is not supported, and for names that disagree."""
        if not isinstance(value, dict):
            return value
        for name, (reason, is_harmless) in cls.unsupported.items():
            if value.get(name) is not None and name not in cls.model_fields and not is_harmless(value[name]):
                raise not_supported(cls.__name__, name, reason)
        return agreed(cls.__name__, value)

    @field_validator("*", mode="before")
    @classmethod
    def _check_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Raises PydanticKnownError for a boolean in place of a number, and for a number in place of a boolean.

        Pydantic would take true for 1, and 1 for true. Its strict types would refuse `"true"`, which clients send.
        """
        wanted = cls.model_fields[info.field_name or ""].annotation
        if wanted == int | None and isinstance(value, bool):
            raise PydanticKnownError("int_type")
        if wanted == float | None and isinstance(value, bool):
            raise PydanticKnownError("float_type")
        if wanted == bool | None and isinstance(value, int | float) and not isinstance(value, bool):
            raise PydanticKnownError("bool_type")
        return value


@functools.cache
def names_of(model: type[BaseModel]) -> frozenset[str]:
    """All names under which the model reads its fields."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        choices = field.validation_alias
        names |= {str(one) for one in choices.choices} if isinstance(choices, AliasChoices) else {name}
    return frozenset(names)


def not_supported(model: str, name: str, reason: str) -> ValidationError:
    """The error for a parameter that is not supported, of the model of this name."""
    error = PydanticCustomError(UNSUPPORTED, "Not supported here: {reason}", {"reason": reason})
    at_field: Any = {"type": error, "loc": (name,), "input": None}
    return ValidationError.from_exception_data(model, [at_field])
