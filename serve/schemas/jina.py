"""Jina's dialect: `/v1/rerank`, and `/v1/rerank/stream`, which is ours and speaks it line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from typing_extensions import override  # in typing from Python 3.12

from pipelines.records import Ranking
from serve.schemas.dialect import (
    REQUEST_EXAMPLE,
    AllowUncalibrated,
    ListRequest,
    RankedResult,
    ReturnDocuments,
    ScoreThreshold,
    UsageCounts,
    Warned,
    described,
    ranked_results,
    usage_counts,
)
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.unsupported import UNSUPPORTED_PARAMETERS, Unsupported
from serve.schemas.values import Echo


class JinaRequest(ListRequest):
    """A request as Jina's own API reads it."""

    return_documents: ReturnDocuments = None
    """Whether results carry their document. Null is the server's default: true, unless it was changed."""

    @override
    def tasks(self) -> list[RerankTask]:
        return [self.task(self.query, self.documents, self.top_n, self.return_documents)]

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> RerankAnswer:
        [task], [ranking] = tasks, rankings
        return rerank_answer(task, ranking, served)


class RerankRequest(JinaRequest):
    """Jina's `/v1/rerank`, which Cohere's v1 clients use too, with a threshold, which is an extension of ours."""

    unsupported: ClassVar[Mapping[str, Unsupported]] = UNSUPPORTED_PARAMETERS

    score_threshold: ScoreThreshold = None
    allow_uncalibrated: AllowUncalibrated = None

    @override
    def tasks(self) -> list[RerankTask]:
        threshold, allowed = self.score_threshold, self.allow_uncalibrated is True
        return [replace(task, score_threshold=threshold, allow_uncalibrated=allowed) for task in super().tasks()]


class StreamRequest(RerankRequest):
    """One line of `/v1/rerank/stream`: a request of /v1/rerank with an `id` of the caller's own."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": 1, **REQUEST_EXAMPLE}]})

    id: Annotated[Echo, Field(examples=[1])] = None
    """Any JSON value, which comes back with the answer; answers come as they are ready, not in the order sent."""


@described
class RerankAnswer(Warned):
    """Jina's answer."""

    model: str
    """The model that scored."""
    usage: UsageCounts
    results: list[RankedResult]
    """Best first; equal scores in the order sent."""


@described
class StreamAnswer(RerankAnswer):
    """A line of the answer to `/v1/rerank/stream`.

    One that failed has `error` instead of a ranking: an object with `status` and what the error's body would hold.
    """

    id: Any
    """The caller's own; null where the line had none, or could not be read."""
    line: Annotated[int, Field(examples=[1])]
    """Number of the line in the request, from 1."""


def rerank_answer(task: RerankTask, ranking: Ranking, served: Served) -> RerankAnswer:
    """The answer to one list."""
    results = ranked_results(task, ranking, served)
    return {"model": served.model, "usage": usage_counts(ranking.usage), "results": results}
