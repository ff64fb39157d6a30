"""SageMaker's dialect: `/invocations`, where a body without `data` may be in any other dialect."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Discriminator, Tag
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking
from serve.schemas.dialect import (
    REQUEST_EXAMPLE,
    DialectRequest,
    RankedResult,
    UsageCounts,
    Warned,
    ranked_results,
    usage_counts,
)
from serve.schemas.jina import RerankRequest
from serve.schemas.synonyms import QUERIES, SYNONYMS
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.tei import TeiRequest
from serve.schemas.unsupported import UNSUPPORTED_PARAMETERS, Unsupported
from serve.schemas.values import JINA, SAGEMAKER, TEI, VLLM, is_body
from serve.schemas.vllm import ScoreRequest

BESIDE_DATA = Unsupported("it is read inside `data`, and not beside it")
"""Why a field of a request to rank is refused there."""


class InvocationRequest(DialectRequest):
    """SageMaker's `/invocations` as Jina's client for it writes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": REQUEST_EXAMPLE}]})

    unsupported: ClassVar[Mapping[str, Unsupported]] = {
        **UNSUPPORTED_PARAMETERS,
        **dict.fromkeys([*RerankRequest.model_fields, *itertools.chain(*SYNONYMS)], BESIDE_DATA),
        "parameters": BESIDE_DATA._replace(is_harmless=lambda parameters: parameters == {}),
    }

    data: RerankRequest
    """The body of /v1/rerank."""

    @property
    @override
    def warnings(self) -> list[str]:
        return super().warnings + self.data.warnings

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


class InvocationAnswer(Warned):
    """SageMaker's answer."""

    data: list[InvocationResult]
    parameters: dict[str, Any]


def dialect_of_invocation(value: Any) -> str:
    """The tag of a body's dialect, by the fields that no other one has; Jina's where there are none of them."""
    if is_body(value, InvocationRequest, "data"):
        return SAGEMAKER
    if is_body(value, TeiRequest, "texts"):
        return TEI
    return VLLM if is_body(value, ScoreRequest, *QUERIES) else JINA


PlainInvocationRequest = Annotated[
    Annotated[InvocationRequest, Tag(SAGEMAKER)]
    | Annotated[TeiRequest, Tag(TEI)]
    | Annotated[ScoreRequest, Tag(VLLM)]
    | Annotated[RerankRequest, Tag(JINA)],
    Discriminator(dialect_of_invocation),
]
"""`/invocations`: the servers of all dialects have it on SageMaker, and Jina's client wraps its body in `data`."""
