"""What dialects share: the options of their requests, and the parts that their answers are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, with_config
from pydantic.config import JsonDict, JsonValue
from typing_extensions import TypedDict  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.config import MIN_MAX_LENGTH
from pipelines.records import Ranking, Usage
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.values import Document, DocumentInput, Query, Text

QUERY_EXAMPLE = "Organic skincare products for sensitive skin"
DOCUMENTS_EXAMPLE: list[JsonValue] = [
    "Organic skincare for sensitive skin with aloe vera and chamomile.",
    "New makeup trends focus on bold colors and innovative techniques",
    "Bio-Hautpflege für empfindliche Haut mit Aloe Vera und Kamille",
]
REQUEST_EXAMPLE: JsonDict = {
    "model": "jina-reranker-v2-base-multilingual",
    "query": QUERY_EXAMPLE,
    "documents": DOCUMENTS_EXAMPLE,
    "top_n": 3,
}

TopN = Annotated[
    int | None,
    Field(
        ge=1,
        validation_alias=AliasChoices("top_n", "top_k"),
        description="How many come back, best first; null is all.",
    ),
]


class DialectRequest(BaseModel):
    """A request in one of the dialects."""

    model_config = ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

    @abstractmethod
    def tasks(self) -> list[RerankTask]:
        """What is to be ranked; a single task in all dialects but /v1/score."""

    @abstractmethod
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> Any:
        """The JSON of the answer, from the ranking of each of `tasks`."""


class OptionsRequest(DialectRequest):
    """What all dialects have in common; where a dialect has no such field, it is an extension of ours."""

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
    """Chunks scored of one document; what is beyond is cut. This bounds the cost of long documents: `max_doc_length`
    and `max_tokens_per_doc` are ignored like any unknown field, documents are read to their end."""
    truncate: Annotated[bool | None, Field(validation_alias=AliasChoices("truncate", "truncation"))] = None
    """False: 400 rather than cut the query or a document. A document in chunks is not cut. Null is true."""
    raw_scores: bool | None = None
    """True: logits instead of scores in 0..1."""

    @property
    def wants_logits(self) -> bool:
        """Whether the scores are to be logits."""
        return self.raw_scores is True

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
            max_query_length=self.max_query_length,
            max_length=self.max_length,
            overlap_tokens=self.overlap_tokens,
            max_chunks_per_doc=self.max_chunks_per_doc,
            truncate=self.truncate is not False,
            raw_scores=self.wants_logits,
        )


class ListRequest(OptionsRequest):
    """A query and its documents, as Jina and Cohere name them."""

    model_config = ConfigDict(json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    query: Annotated[Query, Field(examples=[QUERY_EXAMPLE])]
    """A string, or an object with a `text`; not blank."""
    documents: Annotated[list[DocumentInput], Field(examples=[DOCUMENTS_EXAMPLE])]
    """Strings, or objects with a `text`, whose other fields come back with the document. Texts may be empty."""
    top_n: TopN = None


described = with_config(ConfigDict(use_attribute_docstrings=True))
"""Answers are plain dictionaries, typed so that /docs can show them."""


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
