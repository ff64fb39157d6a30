"""What dialects share: the options of their requests, and the parts that their answers are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    with_config,
)
from pydantic.config import JsonDict, JsonValue
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.config import MIN_MAX_LENGTH, SPECIAL_TOKENS_PER_TEXT
from pipelines.records import Ranking, Usage
from serve.schemas.synonyms import (
    CONTRADICTION,
    MAX_TOKENS_PER_DOC,
    RETURN_DOCUMENTS,
    TOP_N,
    TRUNCATE,
    USE_ACTIVATION,
)
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.unsupported import HonestRequest
from serve.schemas.values import Bounded, Document, DocumentInput, Query, Text

QUERY_EXAMPLE = "Organic skincare products for sensitive skin"
DOCUMENTS_EXAMPLE: list[JsonValue] = [
    "Organic skincare for sensitive skin with aloe vera and chamomile.",
    "New makeup trends focus on bold colors and innovative techniques",
    "Bio-Hautpflege für empfindliche Haut mit Aloe Vera und Kamille",
]
REQUEST_EXAMPLE: JsonDict = {
    "query": QUERY_EXAMPLE,
    "documents": DOCUMENTS_EXAMPLE,
    "top_n": 3,
}

FEWEST_QUERY_TOKENS = MIN_MAX_LENGTH // 2 - SPECIAL_TOKENS_PER_TEXT
"""Of a query, special tokens not counted."""

TopN = Annotated[
    int | None,
    Field(
        ge=1,
        validation_alias=AliasChoices(*TOP_N),
        description="How many come back, best first; null is all.",
    ),
]
ScoreThreshold = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        allow_inf_nan=False,
        examples=[0.5],
        description="Results with a lower score are left out, before `top_n` are taken; it lies in 0..1, also with "
        "`raw_scores`. A model whose scores are not calibrated (/v1/models says so) refuses it. Null is none.",
    ),
]
AllowUncalibrated = Annotated[
    bool | None,
    Field(description="True: take `score_threshold` also where the scores are not calibrated. Null is false."),
]
ReturnDocuments = Annotated[bool | None, Field(validation_alias=AliasChoices(*RETURN_DOCUMENTS))]


def check_fewest(special: int, fewest: int) -> AfterValidator:
    """Raises PydanticCustomError for a number of tokens below `fewest` that is not `special`."""

    def check(tokens: int | None) -> int | None:
        if tokens not in (None, special) and tokens < fewest:
            limits = {"special": special, "fewest": fewest}
            raise PydanticCustomError("too_few_tokens", "Input should be {special}, or at least {fewest}", limits)
        return tokens

    return AfterValidator(check)


def example_of(request: type[BaseModel]) -> JsonValue:
    """A body for this request that works on any server, whatever its model is called."""
    extra: Any = request.model_config["json_schema_extra"]
    example: JsonValue = extra["examples"][0]
    return example


class DialectRequest(HonestRequest):
    """A request in one of the dialects."""

    model_config = ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

    @abstractmethod
    def tasks(self) -> list[RerankTask]:
        """What is to be ranked; a single task in all dialects but /v1/score."""

    @abstractmethod
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> Any:
        """The JSON of the answer, from the ranking of each of `tasks`."""


class Options(HonestRequest):
    """What all dialects have in common; where a dialect has no such field, it is an extension of ours."""

    model_config = ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

    model: Annotated[Text | None, Field(examples=["jina-reranker-v2-base-multilingual"])] = None
    """Any name is accepted unless the server is strict; the answer names the model that scored."""
    max_query_length: Annotated[int | None, Field(ge=MIN_MAX_LENGTH // 2, examples=[512])] = None
    """Tokens of the query with its two special tokens, at most half of `max_length`; what is beyond is cut.
    As with all lengths, null is the server's value, which /v1/models shows."""
    max_length: Annotated[int | None, Field(ge=MIN_MAX_LENGTH, examples=[1024])] = None
    """Tokens of query and passage together, clamped to what the model can read. A longer document is scored in
    overlapping chunks and counts by the best of them."""
    overlap_tokens: Annotated[int | None, Field(ge=0, examples=[80])] = None
    """Tokens that two neighbouring chunks share, at most a quarter of a chunk."""
    max_chunks_per_doc: Annotated[int | None, Field(ge=1, examples=[10])] = None
    """Chunks scored of one document; what is beyond is cut. This bounds the cost of long documents."""
    max_tokens_per_doc: Annotated[
        int | None,
        Field(ge=0, validation_alias=AliasChoices(*MAX_TOKENS_PER_DOC), examples=[4096]),
    ] = None
    """Cohere's and vLLM's, `max_doc_length` in Jina's words: tokens of a document that are read; what is beyond is
    cut. Null or 0 is all of them."""
    max_tokens_per_query: Annotated[int | None, Field(ge=0), check_fewest(0, FEWEST_QUERY_TOKENS)] = None
    """vLLM's: as `max_query_length`, special tokens not counted. Null or 0 leaves it to that."""
    truncate_prompt_tokens: Annotated[int | None, Field(ge=-1), check_fewest(-1, MIN_MAX_LENGTH)] = None
    """vLLM's: tokens of query and document together that are scored. What is beyond is cut, where it would otherwise
    be scored as further chunks. -1 is `max_length`; null does not cut."""
    instruction: Annotated[Text | None, Field(examples=["Given a question, find the passage that answers it"])] = None
    """What a model that takes one (Qwen3-Reranker, mxbai-rerank-v2, bge-reranker-v2-gemma) is told to look for. Null is
    the server's."""
    truncate: Annotated[bool | None, Field(validation_alias=AliasChoices(*TRUNCATE))] = None
    """False: 400 rather than cut the query or a document. A document in chunks is not cut. Null is true."""
    raw_scores: bool | None = None
    """True: logits instead of scores in 0..1."""
    use_activation: Annotated[bool | None, Field(validation_alias=AliasChoices(*USE_ACTIVATION))] = None
    """vLLM's, `activation` or `softmax` in older clients of it: false is the same as `raw_scores` true."""

    @field_validator("use_activation")
    @classmethod
    def _check_activation(cls, wanted: bool | None, info: ValidationInfo) -> bool | None:
        if wanted is not None and wanted is info.data.get("raw_scores"):
            raise PydanticCustomError(CONTRADICTION, "It says the opposite of `raw_scores`; send one of them")
        return wanted

    @property
    def wants_logits(self) -> bool:
        """Whether the scores are to be logits."""
        return self.raw_scores is True or self.use_activation is False


class OptionsRequest(Options, DialectRequest):
    """A request with the options."""

    def task(
        self,
        query: str,
        documents: Sequence[str | Document],
        top_n: int | None = None,
        return_documents: bool | None = None,
    ) -> RerankTask:
        """A task with the options of this request."""
        return RerankTask(
            query=query,
            documents=[one if isinstance(one, str) else one.text for one in documents],
            sent=documents,
            model=self.model,
            top_n=top_n,
            return_documents=return_documents,
            max_query_length=least(
                self.max_query_length,
                self.max_tokens_per_query and self.max_tokens_per_query + SPECIAL_TOKENS_PER_TEXT,
            ),
            max_length=least(self.max_length, self.truncate_prompt_tokens),
            overlap_tokens=self.overlap_tokens,
            max_chunks_per_doc=self.max_chunks_per_doc if self.truncate_prompt_tokens is None else 1,
            max_tokens_per_doc=self.max_tokens_per_doc or None,
            instruction=self.instruction,
            truncate=self.truncate is not False,
            raw_scores=self.wants_logits,
        )


def least(*limits: int | None) -> int | None:
    """The smallest limit that is one: null, 0 and -1 are none."""
    return min((limit for limit in limits if limit is not None and limit > 0), default=None)


class ListRequest(OptionsRequest):
    """A query and its documents, as Jina and Cohere name them."""

    model_config = ConfigDict(json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    query: Annotated[Query, Field(examples=[QUERY_EXAMPLE])]
    """A string, or an object with a `text`; not blank."""
    documents: Annotated[Bounded[DocumentInput], Field(examples=[DOCUMENTS_EXAMPLE])]
    """Strings, or objects with a `text`, whose other fields come back with the document. Texts may be empty."""
    top_n: TopN = None


described = with_config(ConfigDict(use_attribute_docstrings=True))
"""Answers are plain dictionaries, typed so that /docs can show them."""


@described
class Warned(TypedDict):
    """An answer that may have warnings."""

    warnings: NotRequired[Annotated[list[str], Field(examples=[["`topn` is not read here; did you mean `top_n`?"]])]]
    """Fields of the request that are not read, and that look like one that is; left out where there are none."""


@described
class UsageCounts(TypedDict):
    """Tokens by Jina's rule: the query once, each document once and uncut, each with two special tokens."""

    total_tokens: Annotated[int, Field(examples=[383])]
    prompt_tokens: Annotated[int, Field(examples=[383])]
    """The same number; clients read either."""


@described
class RankedResult(TypedDict):
    """A document of the ranking."""

    index: Annotated[int, Field(examples=[2])]
    """Its place in the request, from 0."""
    document: NotRequired[Annotated[dict[str, Any], Field(examples=[{"text": DOCUMENTS_EXAMPLE[2]}])]]
    """Its `text` and whatever other fields were sent with it; left out, never null, where it was not wanted."""
    relevance_score: Annotated[float, Field(examples=[0.5422876477241516])]
    """In 0..1, or a logit; all digits of the float32, so that different scores never look equal."""


def usage_counts(usage: Usage) -> UsageCounts:
    """Usage as Jina's API has it."""
    return {"total_tokens": usage.tokens, "prompt_tokens": usage.tokens}


def ranked_results(task: RerankTask, ranking: Ranking, served: Served) -> list[RankedResult]:
    """The ranking with the documents as they were sent, if they are wanted; texts in `ranking` are not read."""
    wanted = served.return_documents if task.return_documents is None else task.return_documents
    results: list[RankedResult] = []
    for ranked in ranking.documents:
        if wanted:
            document = document_echo(task.sent[ranked.index])
            results.append({"index": ranked.index, "document": document, "relevance_score": ranked.relevance_score})
        else:
            results.append({"index": ranked.index, "relevance_score": ranked.relevance_score})
    return results


def document_echo(document: str | Document) -> dict[str, Any]:
    """A document as it goes back, always an object."""
    return {"text": document} if isinstance(document, str) else {"text": document.text, **(document.model_extra or {})}
