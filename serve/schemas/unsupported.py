"""Parameters that a dialect knows, that would change the answer, and that this server cannot honour.

They are refused by their name: who sends one would take an answer without it for one with it. What would be done anyway
is harmless, and so is null. Parameters that no dialect knows are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError, model_validator
from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported_parameter"
"""The type of the error."""


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
        """Raises ValidationError for the first parameter that is not supported."""
        if isinstance(value, dict):
            for name in UNSUPPORTED_PARAMETERS.keys() & value.keys() - cls.model_fields.keys():
                reason, is_harmless = UNSUPPORTED_PARAMETERS[name]
                if value[name] is not None and not is_harmless(value[name]):
                    error = PydanticCustomError(UNSUPPORTED, "Not supported here: {reason}", {"reason": reason})
                    at_field: Any = {"type": error, "loc": (name,), "input": None}
                    raise ValidationError.from_exception_data(cls.__name__, [at_field])
        return value
