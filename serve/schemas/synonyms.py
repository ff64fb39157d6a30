"""Names under which dialects know the same field: a request may use any of them, and never two that disagree."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

CONTRADICTION = "contradiction"
"""The type of the error."""

QUERIES = ("queries", "text_1", "data_1")
"""What the queries of a `/v1/score` are called."""
SCORED = ("documents", "text_2", "data_2", "items")
"""What its documents are called."""
TOP_N = ("top_n", "top_k")
RETURN_DOCUMENTS = ("return_documents", "return_text")
MAX_TOKENS_PER_DOC = ("max_tokens_per_doc", "max_doc_length")
TRUNCATE = ("truncate", "truncation")
USE_ACTIVATION = ("use_activation", "activation", "softmax")
SYNONYMS = (
    ("query", *QUERIES),
    ("texts", *SCORED),
    ("inputs", "prompt"),
    TOP_N,
    RETURN_DOCUMENTS,
    MAX_TOKENS_PER_DOC,
    TRUNCATE,
    USE_ACTIVATION,
)


def agreed(model: str, sent: dict[str, Any]) -> dict[str, Any]:
    """What was sent, without a null beside another name of the same field, since null means left out.

    Raises ValidationError, of the model of this name, for two names of one field that have different values.
    """
    superfluous: set[str] = set()
    for names in SYNONYMS:
        given = [name for name in names if sent.get(name) is not None]
        for name, other in pairwise(given):
            if not say_the_same(sent[name], sent[other]):
                raise contradiction(model, name, other)
        if given:
            superfluous |= {name for name in names if name in sent and sent[name] is None}
    return {name: value for name, value in sent.items() if name not in superfluous} if superfluous else sent


def contradiction(model: str, name: str, other: str) -> ValidationError:
    """The error for two names of one field that have different values."""
    names = {"name": name, "other": other}
    message = "`{name}` and `{other}` mean the same, and have different values; send one of them"
    error: Any = {"type": PydanticCustomError(CONTRADICTION, message, names), "loc": (name,), "input": None}
    return ValidationError.from_exception_data(model, [error])


def say_the_same(one: Any, other: Any) -> bool:
    """Whether two values are read alike, as far as that can be told before they are read: one text is a list of one."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False  # for Python, true is 1
    try:
        return as_list(one) == as_list(other)
    except RecursionError:
        return False


def as_list(value: Any) -> list[Any]:
    """The value as a list of texts, if it is a text or such a list."""
    several = value if isinstance(value, list) else [value]
    return [one["text"] if isinstance(one, dict) and one.keys() == {"text"} else one for one in several]
