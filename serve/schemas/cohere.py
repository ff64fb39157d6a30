"""Cohere's dialect: `/v2/rerank`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking
from serve.schemas.dialect import ListRequest, RankedResult, ReturnDocuments, described, ranked_results
from serve.schemas.tasks import RerankTask, Served

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere's billing: a search unit is a query with up to 100 documents, each chunk of a long one counting as one."""


class CohereRequest(ListRequest):
    """Cohere's `/v2/rerank`."""

    return_documents: ReturnDocuments = None
    """Whether results carry their document. Null is false: Cohere's v2 has no such field and no documents."""

    @override
    def tasks(self) -> list[RerankTask]:
        return [self.task(self.query, self.documents, self.top_n, self.return_documents is True)]

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> CohereAnswer:
        [task], [ranking] = tasks, rankings
        units = max(1, math.ceil(ranking.usage.chunks / DOCUMENTS_PER_SEARCH_UNIT))
        return {
            "id": served.request_id,
            "results": ranked_results(task, ranking, served),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": units}},
        }

    @override
    def with_warnings(self, answer: CohereAnswer) -> CohereAnswer:
        """Cohere's own place for them."""
        return {**answer, "meta": super().with_warnings(answer["meta"])}


@described
class CohereAnswer(TypedDict):
    """Cohere's answer (v2)."""

    id: str
    """The request's id."""
    results: list[RankedResult]
    """Best first; equal scores in the order sent."""
    meta: Annotated[
        dict[str, Any],
        Field(examples=[{"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}]),
    ]
    """A search unit is a begun hundred of scored chunks; a short document is one chunk. `warnings` is there if a field
    of the request is not read, and looks like one that is."""
