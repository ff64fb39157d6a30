"""The dialect of text-embeddings-inference: `/rerank`, where a body without `texts` is one of vLLM's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from pydantic import AliasChoices, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking
from serve.schemas.dialect import DOCUMENTS_EXAMPLE, QUERY_EXAMPLE, OptionsRequest, TopN, described
from serve.schemas.synonyms import RETURN_DOCUMENTS
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.values import TEI, VLLM, Bounded, DocumentInput, Query, is_body
from serve.schemas.vllm import VllmRerankRequest


class TeiRequest(OptionsRequest):
    """The `/rerank` of text-embeddings-inference."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": QUERY_EXAMPLE, "texts": DOCUMENTS_EXAMPLE}]})

    query: Annotated[Query, Field(examples=[QUERY_EXAMPLE])]
    """Not blank."""
    texts: Annotated[Bounded[DocumentInput], Field(examples=[DOCUMENTS_EXAMPLE])]
    """May be empty texts."""
    top_n: TopN = None
    return_text: Annotated[bool | None, Field(validation_alias=AliasChoices(*reversed(RETURN_DOCUMENTS)))] = None
    """Whether results carry their text, `return_documents` in other dialects. Null is false."""

    @override
    def tasks(self) -> list[RerankTask]:
        return [self.task(self.query, self.texts, self.top_n, self.return_text is True)]

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> list[TeiScore]:
        [task], [ranking] = tasks, rankings
        scores: list[TeiScore] = []
        for ranked in ranking.documents:
            score: TeiScore = {"index": ranked.index, "score": ranked.relevance_score}
            if task.return_documents:
                score["text"] = task.documents[ranked.index]
            scores.append(score)
        return scores

    @override
    def with_warnings(self, answer: list[TeiScore]) -> list[TeiScore]:
        """A list has no place for them; there is the header."""
        return answer


@described
class TeiScore(TypedDict):
    """A text in TEI's answer, which is an array of these, best first."""

    index: Annotated[int, Field(examples=[2])]
    """Its place in the request, from 0."""
    score: Annotated[float, Field(examples=[0.5422876477241516])]
    text: NotRequired[str]


def dialect_of_plain(value: Any) -> str:
    """The tag of a body's dialect: TEI's where it has `texts`, else vLLM's."""
    return TEI if is_body(value, TeiRequest, "texts") else VLLM


PlainRequest = Annotated[
    Annotated[TeiRequest, Tag(TEI)] | Annotated[VllmRerankRequest, Tag(VLLM)], Discriminator(dialect_of_plain)
]
"""`/rerank`: TEI's dialect for a body with `texts`, else vLLM's."""
