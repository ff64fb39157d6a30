"""Parameters that a dialect knows, that would change the answer, and that this server cannot honour.

They are refused by their name: who sends one would take an answer without it for one with it. What would be done anyway
is harmless, and so is null. Parameters that no dialect knows are passed over. A parameter that is sent under two names
with different values is refused, too: one of the two would be passed over in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from pydantic import AliasChoices, BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported_parameter"
"""The type of the error."""
CONTRADICTION = "contradiction"
"""Likewise, of two fields that say different things."""


class Unsupported(NamedTuple):
    """Why a parameter cannot be honoured, and which of its values ask for nothing."""

    reason: str
    is_harmless: Callable[[Any], bool] = lambda _: False


def is_right(side: Any) -> bool:
    """Whether texts are to be cut at their end, in TEI's or vLLM's words."""
    return isinstance(side, str) and side.lower() == "right"


FROM_THE_BEGINNING = "texts are read from their beginning"
NO_INSTRUCTIONS = "the model takes a query and a document, and no instructions"
UNSUPPORTED_PARAMETERS = {
    # vLLM
    "truncation_side": Unsupported(FROM_THE_BEGINNING, is_right),
    "instruction": Unsupported(NO_INSTRUCTIONS),
    "chat_template": Unsupported(NO_INSTRUCTIONS),
    "chat_template_kwargs": Unsupported(NO_INSTRUCTIONS),
    "messages": Unsupported("the model knows no chats"),
    "softmax": Unsupported("the model has one output; `use_activation` says whether it goes through the sigmoid"),
    # TEI
    "truncation_direction": Unsupported(FROM_THE_BEGINNING, is_right),
    "prompt_name": Unsupported(NO_INSTRUCTIONS),
    # Cohere
    "rank_fields": Unsupported("documents are ranked by their `text`", lambda fields: fields in ([], ["text"])),
    "relevant_spans": Unsupported("whole documents are ranked"),
    # Jina
    "return_embeddings": Unsupported("the model makes scores, and no embeddings", lambda wanted: wanted is False),
}


class HonestRequest(BaseModel):
    """A request that refuses what it cannot honour."""

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        """Raises ValidationError for the first parameter that is not supported, or contradicts another."""
        if isinstance(value, dict):
            for name in UNSUPPORTED_PARAMETERS.keys() & value.keys() - cls.model_fields.keys():
                reason, is_harmless = UNSUPPORTED_PARAMETERS[name]
                if value[name] is not None and not is_harmless(value[name]):
                    raise wrong_field(cls, name, UNSUPPORTED, "Not supported here: {reason}", reason=reason)
            for names in names_of_fields(cls):
                value = with_one_name(cls, value, names)
        return value


@cache
def names_of_fields(request: type[BaseModel]) -> list[list[str]]:
    """The names under which each field may be sent, one or several."""
    aliases = [(name, field.validation_alias) for name, field in request.model_fields.items()]
    return [
        [one for one in alias.choices if isinstance(one, str)] if isinstance(alias, AliasChoices) else [name]
        for name, alias in aliases
    ]


def with_one_name(request: type[BaseModel], value: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What was sent with a field under one of its names; raises ValidationError where two of them contradict."""
    sent = [name for name in names if value.get(name) is not None]
    for name in sent[1:]:
        if value[name] != value[sent[0]]:
            message = "Means the same as `{other}`, which has another value; send one of them"
            raise wrong_field(request, name, CONTRADICTION, message, other=sent[0])
    if not sent or len(names) == 1:
        return value
    return {name: one for name, one in value.items() if name == sent[0] or name not in names}


def all_names(request: type[BaseModel]) -> set[str]:
    """The names of all fields, with their other names."""
    return {name for names in names_of_fields(request) for name in names}


def wrong_field(request: type[BaseModel], name: str, kind: str, message: str, **values: Any) -> ValidationError:
    """What pydantic raises for a field that is wrong; `values` stand in `message`."""
    at_field: Any = {"type": PydanticCustomError(kind, message, values), "loc": (name,), "input": None}
    return ValidationError.from_exception_data(request.__name__, [at_field])
