"""`/tokenize`, with which clients count tokens: in TEI's form for a body with `inputs`, else in vLLM's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from serve.schemas.dialect import QUERY_EXAMPLE, Warned, described
from serve.schemas.unsupported import HonestRequest
from serve.schemas.values import TEI, VLLM, Bounded, Text, is_body

if TYPE_CHECKING:
    from tokenizers import Encoding


class TokenizeRequest(HonestRequest):
    """Texts to tokenize."""

    model_config = ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

    add_special_tokens: bool | None = None
    """Whether the special tokens of a text that stands alone are added. Null is true."""

    @property
    @abstractmethod
    def texts(self) -> list[str]:
        """What is to be tokenized."""

    @property
    def model_name(self) -> str | None:
        """The model that the caller named."""
        return None

    @abstractmethod
    def answer(self, encodings: Sequence[Encoding], max_length: int) -> Any:
        """The JSON of the answer, from the encoding of each text; a pair has at most `max_length` tokens."""


class TeiTokenizeRequest(TokenizeRequest):
    """The `/tokenize` of text-embeddings-inference."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": QUERY_EXAMPLE}]})

    inputs: Annotated[
        Bounded[Text],
        BeforeValidator(
            lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]
        ),
        Field(min_length=1, examples=[QUERY_EXAMPLE]),
    ]
    """One text or a list."""

    @property
    @override
    def texts(self) -> list[str]:
        return self.inputs

    @override
    def answer(self, encodings: Sequence[Encoding], max_length: int) -> list[list[TeiToken]]:
        return [tei_tokens(text, encoding) for text, encoding in zip(self.inputs, encodings, strict=True)]

    @override
    def with_warnings(self, answer: list[list[TeiToken]]) -> list[list[TeiToken]]:
        """A list has no place for them; there is the header."""
        return answer


class VllmTokenizeRequest(TokenizeRequest):
    """The `/tokenize` of vLLM."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": QUERY_EXAMPLE}]})

    model: Text | None = None
    """As in a request to rank."""
    prompt: Annotated[Text, Field(examples=[QUERY_EXAMPLE])]
    """The text."""
    return_token_strs: bool | None = None
    """Whether the tokens come as texts, too."""

    @property
    @override
    def texts(self) -> list[str]:
        return [self.prompt]

    @property
    @override
    def model_name(self) -> str | None:
        return self.model

    @override
    def answer(self, encodings: Sequence[Encoding], max_length: int) -> VllmTokens:
        [encoding] = encodings
        return {
            "count": len(encoding.ids),
            "max_model_len": max_length,
            "tokens": encoding.ids,
            "token_strs": encoding.tokens if self.return_token_strs else None,
        }


@described
class TeiToken(TypedDict):
    """A token in TEI's answer, which has a list of these for each text."""

    id: int
    text: str
    """What it stands for in the text; of a special token its name."""
    special: bool
    start: int | None
    """Where it begins and ends in the bytes of the text; null for a special token."""
    stop: int | None


@described
class VllmTokens(Warned):
    """vLLM's answer."""

    count: int
    max_model_len: int
    """Tokens that a pair of query and document may have."""
    tokens: list[int]
    token_strs: list[str] | None


def tei_tokens(text: str, encoding: Encoding) -> list[TeiToken]:
    """The tokens of `text` as TEI tells them."""
    at_byte: Sequence[int] = range(len(text) + 1)
    if not text.isascii():
        at_byte = list(accumulate((len(character.encode()) for character in text), initial=0))
    return [
        {"id": token_id, "text": name, "special": True, "start": None, "stop": None}
        if special
        else {
            "id": token_id,
            "text": text[start:stop],
            "special": False,
            "start": at_byte[start],
            "stop": at_byte[stop],
        }
        for token_id, name, special, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        )
    ]


def dialect_of_tokenize(value: Any) -> str:
    """The tag of a body's dialect: TEI's where it has `inputs`, else vLLM's."""
    return TEI if is_body(value, TeiTokenizeRequest, "inputs") else VLLM


PlainTokenizeRequest = Annotated[
    Annotated[TeiTokenizeRequest, Tag(TEI)] | Annotated[VllmTokenizeRequest, Tag(VLLM)],
    Discriminator(dialect_of_tokenize),
]
"""`/tokenize`: TEI's dialect for a body with `inputs`, else vLLM's."""
