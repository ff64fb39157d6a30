"""SageMaker's dialect: `/invocations`, where a body without `data` is one of Jina's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking
from serve.schemas.dialect import DialectRequest, RankedResult, UsageCounts, ranked_results, usage_counts
from serve.schemas.jina import RerankRequest
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.values import JINA, SAGEMAKER


class InvocationRequest(DialectRequest):
    """SageMaker's `/invocations` as Jina's client for it writes it."""

    data: RerankRequest
    """The body of /v1/rerank."""

    @override
    def tasks(self) -> list[RerankTask]:
        return self.data.tasks()

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> InvocationAnswer:
        [task], [ranking] = tasks, rankings
        results = ranked_results(task, ranking, served)
        return {"data": [{"usage": usage_counts(ranking.usage), "results": results}], "parameters": {}}


class InvocationResult(TypedDict):
    """The ranking in a SageMaker answer."""

    usage: UsageCounts
    results: list[RankedResult]


class InvocationAnswer(TypedDict):
    """SageMaker's answer."""

    data: list[InvocationResult]
    parameters: dict[str, Any]


def dialect_of_invocation(value: Any) -> str:
    """The tag of a body's dialect: SageMaker's where the request stands in `data`, else Jina's."""
    is_wrapped = isinstance(value, InvocationRequest) or (isinstance(value, dict) and "data" in value)
    return SAGEMAKER if is_wrapped else JINA


PlainInvocationRequest = Annotated[
    Annotated[InvocationRequest, Tag(SAGEMAKER)] | Annotated[RerankRequest, Tag(JINA)],
    Discriminator(dialect_of_invocation),
]
"""`/invocations`: Jina's SageMaker client wraps its body in `data`, everybody else sends that of /v1/rerank."""
