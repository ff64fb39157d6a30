"""SageMaker's dialect: `/invocations`, where a body without `data` may be in any other dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Tag, model_validator
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking
from serve.schemas.dialect import DialectRequest, RankedResult, UsageCounts, ranked_results, usage_counts
from serve.schemas.jina import RerankRequest
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.tei import TeiRequest
from serve.schemas.unsupported import UNSUPPORTED, all_names, wrong_field
from serve.schemas.values import JINA, SAGEMAKER, TEI, VLLM
from serve.schemas.vllm import QUERY_NAMES, ScoreRequest


class InvocationRequest(DialectRequest):
    """SageMaker's `/invocations` as Jina's client for it writes it."""

    data: RerankRequest
    """The body of /v1/rerank."""

    @model_validator(mode="before")
    @classmethod
    def _check_beside(cls, value: Any) -> Any:
        """Raises ValidationError for an option beside `data`, where it would be passed over."""
        if isinstance(value, dict):
            for name in sorted(all_names(RerankRequest) & value.keys()):
                if value[name] is not None:
                    raise wrong_field(cls, name, UNSUPPORTED, "Not supported here: options belong into `data`")
        return value

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
    """The tag of a body's dialect, by the fields that no other one has; Jina's where there are none of them."""
    for kind, names, tag in (
        (InvocationRequest, {"data"}, SAGEMAKER),
        (TeiRequest, {"texts"}, TEI),
        (ScoreRequest, set(QUERY_NAMES), VLLM),
    ):
        if isinstance(value, kind) or (isinstance(value, dict) and names & value.keys()):
            return tag
    return JINA


PlainInvocationRequest = Annotated[
    Annotated[InvocationRequest, Tag(SAGEMAKER)]
    | Annotated[TeiRequest, Tag(TEI)]
    | Annotated[ScoreRequest, Tag(VLLM)]
    | Annotated[RerankRequest, Tag(JINA)],
    Discriminator(dialect_of_invocation),
]
"""`/invocations`: the servers of all dialects have it on SageMaker, and Jina's client wraps its body in `data`."""
