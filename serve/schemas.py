"""The JSON of every dialect, in and out; the only place its field names are written. No routes, no status codes.

Each request model turns into `RerankTask`s, the one form that the rest of the app works with, and makes the answer of
its dialect from their rankings. Requests are read liberally: what a real client was seen to send is accepted, unknown
fields are ignored, and null means left out.
"""

from __future__ import annotations

import json
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    with_config,
)
from pydantic.config import JsonDict, JsonValue
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict, override  # pydantic refuses typing.TypedDict before Python 3.12

from pipelines.config import MIN_MAX_LENGTH
from pipelines.records import CandidateList, Ranking, Usage

if TYPE_CHECKING:
    from pipelines.fingerprint import Fingerprint  # imports torch

MAX_DEPTH = 64
"""Levels of arrays and objects in what is echoed: far from Python's recursion limit, far beyond any real metadata."""
LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What ends a line beside \\n for `str.splitlines`, and so for httpx; JSON escapes the ASCII ones by itself."""
DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere's billing: a search unit is a query with up to 100 documents, each chunk of a long one counting as one."""

STRING, OBJECT, TEI, JINA, SAGEMAKER = UNION_TAGS = ("(string)", "(object)", "(tei)", "(jina)", "(sagemaker)")
"""The choices in our unions: they stand in the `loc` of pydantic's errors, which no caller needs to see."""

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


@dataclass(frozen=True, slots=True)
class RerankTask:
    """One candidate list to rank, whatever dialect it came in."""

    query: str
    documents: Sequence[str]
    """The texts to score."""
    sent: Sequence[str | Document]
    """The documents as they came, for the echo."""
    model: str | None = None
    """The name that the caller gave."""
    top_n: int | None = None
    return_documents: bool | None = None
    """None leaves it to the server."""
    max_query_length: int | None = None
    max_length: int | None = None
    overlap_tokens: int | None = None
    max_chunks_per_doc: int | None = None
    truncate: bool = True
    """False: refuse the list rather than cut its query or a document."""
    raw_scores: bool = False
    """Logits instead of relevance scores in 0..1."""

    @property
    def candidates(self) -> CandidateList:
        """The list as the reranker wants it."""
        return CandidateList(self.query, self.documents)


@dataclass(frozen=True, slots=True)
class Served:
    """What an answer says beside the ranking."""

    model: str
    """The name of the model that scored, not the one that the caller gave."""
    request_id: str
    return_documents: bool = True
    """For callers who do not say; Cohere's and TEI's dialects have a default of their own."""


def read_json(body: bytes) -> Any:
    """The JSON value in `body`, whatever its content type says.

    Raises pydantic's ValidationError of type `json_invalid`, as FastAPI does for bodies that it reads itself.
    """
    try:
        return json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = why_not_json(error)
        details = {"type": "json_invalid", "loc": (), "input": None, "ctx": {"error": reason}}
        raise ValidationError.from_exception_data("body", [details]) from None  # type: ignore[list-item]


def why_not_json(error: BaseException) -> str:
    """What was wrong with a body, by the error that reading it raised; repeats nothing of the body."""
    match error:
        case UnicodeDecodeError():
            return f"not UTF-8 at byte {error.start}"
        case json.JSONDecodeError():
            return f"{error.msg} at character {error.pos}"
        case RecursionError():
            return "nested too deeply"
        case _:
            return "a number has too many digits"


def check_text(text: str) -> str:
    """`text` itself; raises PydanticCustomError for one that neither a tokenizer nor UTF-8 can carry."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError(
                "invalid_unicode",
                "Text holds a lone surrogate at character {position}; replace it before sending",
                {"position": error.start},
            ) from None
    return text


def check_echo(value: Any) -> Any:
    """`value` itself; raises PydanticCustomError for one that cannot go back as JSON."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if not level:
            return value
        below: list[Any] = []
        for one in level:
            match one:
                case str():
                    check_text(one)
                case float() if not math.isfinite(one):
                    raise PydanticCustomError("finite_number", "NaN and infinity have no place in JSON; send null")
                case dict():
                    below += [*one.keys(), *one.values()]
                case list():
                    below += one
        level = below
    raise PydanticCustomError("too_deep", "Nested deeper than {limit} levels", {"limit": MAX_DEPTH})


def check_query(text: str) -> str:
    """`text` itself; raises PydanticCustomError for a blank one, which a job refuses too."""
    if not text.strip():
        raise PydanticCustomError("blank_query", "Query has nothing but white space")
    return text


def unwrap_text(value: Any) -> Any:
    """The text of `{"text": ...}`; anything else as it is."""
    return value["text"] if isinstance(value, dict) and "text" in value else value


def wrap_single(value: Any) -> Any:
    """A list, where one text may stand for it."""
    return [value] if isinstance(value, str | dict) else value


def type_of_document(value: Any) -> str | None:
    """The tag of a document's type; None for what is not a document."""
    if isinstance(value, str):
        return STRING
    return OBJECT if isinstance(value, dict | Document) else None


def dialect_of_plain(value: Any) -> str:
    """TEI's callers send `texts`, all others `documents`."""
    return TEI if isinstance(value, TeiRequest) or (isinstance(value, dict) and "texts" in value) else JINA


def dialect_of_invocation(value: Any) -> str:
    """Jina's SageMaker client wraps its body in `data`."""
    is_wrapped = isinstance(value, InvocationRequest) or (isinstance(value, dict) and "data" in value)
    return SAGEMAKER if is_wrapped else JINA


Text = Annotated[str, AfterValidator(check_text)]
Echo = Annotated[Any, AfterValidator(check_echo)]
"""Any JSON value that can be sent back as it came."""


class TextObject(BaseModel):
    """A text as an object."""

    text: Text


class Document(TextObject):
    """A document as an object: `text` is scored, all other fields come back untouched."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"text": "a text", "id": 17}]})
    __pydantic_extra__: dict[str, Echo]


DocumentInput = Annotated[
    Annotated[Text, Tag(STRING)] | Annotated[Document, Tag(OBJECT)],
    Discriminator(
        type_of_document,
        custom_error_type="document_type",
        custom_error_message="Input should be a string or an object with a string `text`",
    ),
]
Query = Annotated[
    Text, BeforeValidator(unwrap_text, json_schema_input_type=str | TextObject), AfterValidator(check_query)
]
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


class RerankRequest(ListRequest):
    """Jina's `/v1/rerank`, which Cohere's v1 clients use too."""

    return_documents: bool | None = None
    """Whether results carry their document. Null is the server's default: true, unless it was changed."""

    @override
    def tasks(self) -> list[RerankTask]:
        return [self.task(self.query, self.documents, self.top_n, self.return_documents)]

    @override
    def answer(self, tasks: Sequence[RerankTask], rankings: Sequence[Ranking], served: Served) -> RerankAnswer:
        [task], [ranking] = tasks, rankings
        results = ranked_results(task, ranking, served)
        return {"model": served.model, "usage": usage_counts(ranking.usage), "results": results}


class StreamRequest(RerankRequest):
    """One line of `/v1/rerank/stream`: a request of /v1/rerank with an `id` of the caller's own."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": 1, **REQUEST_EXAMPLE}]})

    id: Annotated[Echo, Field(examples=[1])] = None
    """Any JSON value, which comes back with the answer; answers come as they are ready, not in the order sent."""


class CohereRequest(ListRequest):
    """Cohere's `/v2/rerank`."""

    return_documents: bool | None = None
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


class TeiRequest(OptionsRequest):
    """The `/rerank` of text-embeddings-inference.

    `truncation_direction` is ignored: long texts are chunked, not cut.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": QUERY_EXAMPLE, "texts": DOCUMENTS_EXAMPLE}]})

    query: Annotated[Query, Field(examples=[QUERY_EXAMPLE])]
    """Not blank."""
    texts: Annotated[list[DocumentInput], Field(examples=[DOCUMENTS_EXAMPLE])]
    """May be empty texts."""
    top_n: TopN = None
    return_text: bool | None = None
    """Whether results carry their text. Null is false."""

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


class ScoreRequest(OptionsRequest):
    """vLLM's `/v1/score`: one query against every document, or as many queries as documents, pair by pair."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": QUERY_EXAMPLE, "documents": DOCUMENTS_EXAMPLE}]}
    )

    queries: Annotated[
        list[Query],
        BeforeValidator(wrap_single, json_schema_input_type=str | TextObject | list[str | TextObject]),
        Field(min_length=1, validation_alias=AliasChoices("queries", "text_1", "data_1"), examples=[QUERY_EXAMPLE]),
    ]
    """One text or a list; also called `text_1` or `data_1`."""
    documents: Annotated[
        list[DocumentInput],
        BeforeValidator(wrap_single, json_schema_input_type=str | Document | list[str | Document]),
        Field(validation_alias=AliasChoices("documents", "text_2", "data_2", "items"), examples=[DOCUMENTS_EXAMPLE]),
    ]
    """One text or a list; also called `text_2`, `data_2` or `items`."""
    use_activation: bool | None = None
    """False is the same as `raw_scores` true."""

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

    @property
    @override
    def wants_logits(self) -> bool:
        return self.raw_scores is True or self.use_activation is False

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


PlainRequest = Annotated[
    Annotated[TeiRequest, Tag(TEI)] | Annotated[RerankRequest, Tag(JINA)], Discriminator(dialect_of_plain)
]
"""`/rerank`: TEI's dialect for a body with `texts`, else Jina's."""
PlainInvocationRequest = Annotated[
    Annotated[InvocationRequest, Tag(SAGEMAKER)] | Annotated[RerankRequest, Tag(JINA)],
    Discriminator(dialect_of_invocation),
]
"""`/invocations`: Jina's SageMaker client wraps its body in `data`, everybody else sends that of /v1/rerank."""


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


@described
class RerankAnswer(TypedDict):
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
    """A search unit is a begun hundred of scored chunks; a short document is one chunk."""


@described
class TeiScore(TypedDict):
    """A text in TEI's answer, which is an array of these, best first."""

    index: Annotated[int, Field(examples=[2])]
    """Its place in the request, from 0."""
    score: Annotated[float, Field(examples=[0.5422876477241516])]
    text: NotRequired[str]


class PairScore(TypedDict):
    """The score of one pair, in the order sent."""

    index: int
    object: Literal["score"]
    score: Annotated[float, Field(examples=[0.5422876477241516])]


class ScoreAnswer(TypedDict):
    """vLLM's answer."""

    id: str
    object: Literal["list"]
    created: Annotated[int, Field(description="Seconds since 1970.")]
    model: str
    data: list[PairScore]
    usage: UsageCounts


class InvocationResult(TypedDict):
    """The ranking in a SageMaker answer."""

    usage: UsageCounts
    results: list[RankedResult]


class InvocationAnswer(TypedDict):
    """SageMaker's answer."""

    data: list[InvocationResult]
    parameters: dict[str, Any]


@described
class ModelCard(TypedDict):
    """A model as OpenAI's API lists it, and what decides its scores."""

    id: Annotated[str, Field(examples=["jina-reranker-v2-base-multilingual"])]
    object: Literal["model"]
    created: int
    """When it was loaded, in seconds since 1970."""
    owned_by: str
    max_length: Annotated[int, Field(examples=[1024])]
    """Lengths are the effective ones: clamped to what the model can read."""
    max_query_length: Annotated[int, Field(examples=[512])]
    overlap_tokens: Annotated[int, Field(examples=[80])]
    max_chunks_per_doc: int | None
    dtype: Annotated[str, Field(examples=["float32"])]
    fingerprint: str
    """Equal fingerprints give equal scores."""


class ModelsAnswer(TypedDict):
    """`/v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


def models_answer(model: str, fingerprint: Fingerprint, created: int) -> ModelsAnswer:
    """The list of the one model that is served; `created` in seconds since 1970."""
    card: ModelCard = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "crossray",
        "max_length": fingerprint.max_length,
        "max_query_length": fingerprint.max_query_length,
        "overlap_tokens": fingerprint.overlap_tokens,
        "max_chunks_per_doc": fingerprint.max_chunks_per_doc,
        "dtype": fingerprint.dtype,
        "fingerprint": fingerprint.hash,
    }
    return {"object": "list", "data": [card]}


def stream_line(line: int, line_id: Any, content: Mapping[str, Any]) -> bytes:
    """A line out: `content` is the answer to the `line`-th line in (from 1), or `{"error": {...}}`."""
    numbered = {"id": line_id, "line": line, **content}
    text = json.dumps(numbered, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(LINE_ENDS).encode() + b"\n"


def sent_id(value: Any) -> Any:
    """The `id` of a line that is no valid request, as far as it can be sent back; else None."""
    try:
        return check_echo(value.get("id")) if isinstance(value, dict) else None
    except PydanticCustomError:
        return None


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
