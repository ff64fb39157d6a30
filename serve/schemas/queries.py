"""Several queries in one request, each with its documents: `/v1/rerank` with `queries`, which is an extension of ours.

Each is read, ranked and answered as if it had come alone, and an error of one is none of another. What is wrong with
the request as a whole, as too many documents together, is found before any of them is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.records import Ranking, Usage
from serve.schemas.dialect import (
    DOCUMENTS_EXAMPLE,
    QUERY_EXAMPLE,
    AllowUncalibrated,
    Options,
    ReturnDocuments,
    ScoreThreshold,
    TopN,
    UsageCounts,
    Warned,
    described,
    usage_counts,
)
from serve.schemas.jina import RerankAnswer, RerankRequest, StreamRequest, rerank_answer
from serve.schemas.near_misses import LOOKED_AT
from serve.schemas.synonyms import CONTRADICTION
from serve.schemas.tasks import RerankTask, Served
from serve.schemas.unsupported import UNSUPPORTED_PARAMETERS, Unsupported
from serve.schemas.values import JINA, QUERIES, Echo, check_documents, is_body

MAX_QUERIES = 1_000
"""Of one request: each costs some time whatever it holds, and a mistake in each of them costs more."""
EXAMPLE: Any = {
    "queries": [
        {"query": QUERY_EXAMPLE, "documents": DOCUMENTS_EXAMPLE},
        {"query": "new makeup trends", "documents": DOCUMENTS_EXAMPLE[:2], "top_n": 1},
    ],
    "return_documents": False,
}


class OneOfQueries(RerankRequest):
    """One of the queries, as `/v1/rerank` would take it alone."""

    @override
    @classmethod
    def near_misses_in(cls, sent: Mapping[str, Any]) -> list[str]:
        """None: the request looks for those of all its queries at once, which bounds what it looks at."""
        return []

    def with_defaults(self, defaults: QueriesRequest) -> OneOfQueries:
        """The same with the options of the whole request where it says nothing itself, under any name."""
        said = {name for name in OPTIONS if getattr(self, name) not in (None, LEFT_TO_OTHERS.get(name))}
        settled = {other for name in said for other in SAYS_TOO.get(name, ())}
        names = [name for name in OPTIONS - settled if getattr(self, name) is None]
        return self.model_copy(update={name: getattr(defaults, name) for name in names})


OPTIONS = frozenset(OneOfQueries.model_fields) - {"query", "documents"}
SAYS_TOO = {
    "raw_scores": ("use_activation",),
    "use_activation": ("raw_scores",),
    "max_query_length": ("max_tokens_per_query",),
    "max_tokens_per_query": ("max_query_length",),
    "max_length": ("truncate_prompt_tokens",),
    "max_chunks_per_doc": ("truncate_prompt_tokens",),
    "truncate_prompt_tokens": ("max_length", "max_chunks_per_doc"),
}
"""Whoever says one option has said these others too, which are vLLM's words for the same and ours."""
LEFT_TO_OTHERS = {"max_tokens_per_query": 0, "truncate_prompt_tokens": -1}
"""Values that leave the length to the other name."""


def check_alone(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The query, or in its place the ValidationError that says what is wrong with it."""
    try:
        return check(value)
    except ValidationError as error:
        return error


def count_documents(queries: Any, info: ValidationInfo) -> Any:
    """`queries` itself; raises PydanticCustomError where they have too many documents together."""
    if isinstance(queries, list):
        lists = (one.get("documents") for one in islice(queries, MAX_QUERIES) if isinstance(one, dict))
        check_documents(sum(len(documents) for documents in lists if isinstance(documents, list)), info)
    return queries


class QueriesRequest(Options):
    """`/v1/rerank` with several queries; all other fields hold for those of them that do not say otherwise."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    unsupported: ClassVar[Mapping[str, Unsupported]] = UNSUPPORTED_PARAMETERS

    queries: Annotated[
        list[Annotated[OneOfQueries, WrapValidator(check_alone)]],
        Field(min_length=1, max_length=MAX_QUERIES),
        BeforeValidator(count_documents),
    ]
    """Each as a request of its own. The limit on documents holds for all of them together."""
    top_n: TopN = None
    score_threshold: ScoreThreshold = None
    allow_uncalibrated: AllowUncalibrated = None
    return_documents: ReturnDocuments = None
    """Whether results carry their document. Null is the server's default: true, unless it was changed."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_lists(cls, value: Any) -> Any:
        """Raises ValidationError for what must stand in the queries, and would be passed over beside them."""
        if isinstance(value, dict):
            for name in ("query", "documents"):
                if value.get(name) is not None:
                    message = "It stands beside `queries`; put it into each of them, or send a single query"
                    error: Any = {"type": PydanticCustomError(CONTRADICTION, message), "loc": (name,), "input": None}
                    raise ValidationError.from_exception_data(cls.__name__, [error])
        return value

    @override
    @classmethod
    def near_misses_in(cls, sent: Mapping[str, Any]) -> list[str]:
        """Those of the queries too, each name once."""
        named = {name: value for one in sent["queries"] if isinstance(one, dict) for name, value in one.items()}
        return list(dict.fromkeys([*super().near_misses_in(sent), *RerankRequest.near_misses_in(named)]))[:LOOKED_AT]

    def tasks(self) -> list[RerankTask | ValidationError]:
        """What is to be ranked, in the order of the queries; an error in place of a query that is wrong."""
        checked: Sequence[OneOfQueries | ValidationError] = self.queries
        tasks: list[RerankTask | ValidationError] = []
        for one in checked:
            tasks += [one] if isinstance(one, ValidationError) else one.with_defaults(self).tasks()
        return tasks

    def answer(
        self, tasks: Sequence[RerankTask | ValidationError], outcomes: Sequence[Ranking | Refused], served: Served
    ) -> QueriesAnswer:
        """The JSON of the answer, from what came of each of `tasks`."""
        responses: list[RerankAnswer | Refused] = []
        usage = Usage()
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, Ranking):
                assert isinstance(task, RerankTask)  # no other has a ranking
                responses.append(rerank_answer(task, outcome, served))
                usage += outcome.usage
            else:
                responses.append(outcome)
        return {"model": served.model, "usage": usage_counts(usage), "responses": responses}


class StreamQueriesRequest(QueriesRequest):
    """One line of `/v1/rerank/stream` with several queries."""

    id: Annotated[Echo, Field(examples=[1])] = None
    """Any JSON value, which comes back with the answer."""


@described
class Refused(TypedDict):
    """A query that could not be ranked; those beside it are not affected."""

    detail: Annotated[str, Field(examples=["Validation error: 'queries[1].query': Query has nothing but white space"])]
    """What is wrong."""
    code: Annotated[str, Field(examples=["VALIDATION_ERROR"])]
    """As in the `detail` of an error; VALIDATION_ERROR for a field that is wrong."""


@described
class QueriesAnswer(Warned):
    """The answer to several queries."""

    model: str
    """The model that scored."""
    usage: UsageCounts
    """The sum of the answers' usage."""
    responses: list[RerankAnswer | Refused]
    """In the order of the queries: the answer that each would get alone, or why it has none."""


def kind_of_rerank(value: Any) -> str:
    """The tag of a body: that of several queries where it has `queries`."""
    return QUERIES if is_body(value, QueriesRequest, "queries") else JINA


AnyRerankRequest = Annotated[
    Annotated[QueriesRequest, Tag(QUERIES)] | Annotated[RerankRequest, Tag(JINA)], Discriminator(kind_of_rerank)
]
"""`/v1/rerank`: one query, or several."""
AnyStreamRequest = Annotated[
    Annotated[StreamQueriesRequest, Tag(QUERIES)] | Annotated[StreamRequest, Tag(JINA)], Discriminator(kind_of_rerank)
]
"""A line of `/v1/rerank/stream`: likewise."""
