"""vLLM's dialect: `/v1/score`, and its `/rerank`, which is Jina's with an id."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking, Usage
from serve.schemas.dialect import (
    DOCUMENTS_EXAMPLE,
    QUERY_EXAMPLE,
    OptionsRequest,
    UsageCounts,
    Warned,
    described,
    usage_counts,
)
from serve.schemas.jina import JinaRequest, RerankAnswer
from serve.schemas.synonyms import QUERIES, RETURN_DOCUMENTS, SCORED, TOP_N
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.unsupported import OF_ANOTHER_DIALECT, Unsupported, is_false
from serve.schemas.values import Bounded, Document, DocumentInput, Query, TextObject

ALL_IN_ORDER = Unsupported("every pair gets its score, in the order sent")
SCORES_ALONE = Unsupported("the answer has scores alone", is_false)


def wrap_single(value: Any) -> Any:
    """A list: a single text becomes a list of one."""
    return [value] if isinstance(value, str | dict) else value


Scored = Annotated[
    Bounded[DocumentInput],
    BeforeValidator(wrap_single, json_schema_input_type=str | Document | list[str | Document]),
]
"""Documents, of which a single one may stand without a list."""


class ScoreRequest(OptionsRequest):
    """vLLM's `/v1/score`: one query against every document, or as many queries as documents, pair by pair."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": QUERY_EXAMPLE, "documents": DOCUMENTS_EXAMPLE}]}
    )

    unsupported: ClassVar[Mapping[str, Unsupported]] = {
        **OF_ANOTHER_DIALECT,
        **dict.fromkeys(TOP_N, ALL_IN_ORDER),
        **dict.fromkeys(RETURN_DOCUMENTS, SCORES_ALONE),
    }

    queries: Annotated[
        Bounded[Query],
        BeforeValidator(wrap_single, json_schema_input_type=str | TextObject | list[str | TextObject]),
        Field(min_length=1, validation_alias=AliasChoices(*QUERIES), examples=[QUERY_EXAMPLE]),
    ]
    """One text or a list; also called `text_1` or `data_1`."""
    documents: Annotated[Scored, Field(validation_alias=AliasChoices(*SCORED), examples=[DOCUMENTS_EXAMPLE])]
    """One text or a list; also called `text_2`, `data_2` or `items`."""

    @field_validator("documents")
    @classmethod
    def _check_lengths(cls, documents: list[str | Document], info: ValidationInfo) -> list[str | Document]:
        queries = len(info.data.get("queries", [""]))  # missing where they are wrong themselves
        if queries not in (1, len(documents)):
            raise PydanticCustomError(
                "lengths_differ",
                "There are {queries} queries and {documents} documents; send one query, or as many as documents",
                {"queries": queries, "documents": len(documents)},
            )
        return documents

    @override
    def tasks(self) -> list[RerankTask]:
        """One task for one query, else one for each pair."""
        if len(self.queries) == 1:
            return [self.task(self.queries[0], self.documents)]
        return [self.task(query, [document]) for query, document in zip(self.queries, self.documents, strict=True)]

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> ScoreAnswer:
        as_sent = [one for ranking in rankings for one in sorted(ranking.documents, key=lambda ranked: ranked.index)]
        return {
            "id": served.request_id,
            "object": "list",
            "created": int(time.time()),
            "model": served.model,
            "data": [{"index": i, "object": "score", "score": one.relevance_score} for i, one in enumerate(as_sent)],
            "usage": usage_counts(sum((ranking.usage for ranking in rankings), Usage())),
        }


class VllmRerankRequest(JinaRequest):
    """vLLM's `/rerank`, which is that of Jina but for `top_n` 0, and a single document without a list."""

    documents: Annotated[Scored, Field(examples=[DOCUMENTS_EXAMPLE])]
    """One text or a list; texts may be empty. Objects with a `text` come back with their other fields."""
    top_n: Annotated[int | None, Field(ge=0, validation_alias=AliasChoices(*TOP_N))] = None
    """How many come back, best first; null or 0 is all."""

    @override
    def tasks(self) -> list[RerankTask]:
        return [self.task(self.query, self.documents, self.top_n or None, self.return_documents)]

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> VllmRerankAnswer:
        return {"id": served.request_id, **super().answer(tasks, rankings, served)}


@described
class VllmRerankAnswer(RerankAnswer):
    """Jina's answer with an id."""

    id: str
    """The request's id."""


class PairScore(TypedDict):
    """The score of one pair, in the order sent."""

    index: int
    object: Literal["score"]
    score: Annotated[float, Field(examples=[0.5422876477241516])]


class ScoreAnswer(Warned):
    """vLLM's answer."""

    id: str
    object: Literal["list"]
    created: Annotated[int, Field(description="Seconds since 1970.")]
    model: str
    data: list[PairScore]
    usage: UsageCounts
