"""The dialects by their routes, in the hands of a caller: what it sends, what it gets, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipelines.records import RankedDocument, Ranking, Usage
from serve.schemas import (
    UNION_TAGS,
    AnyRerankRequest,
    AnyStreamRequest,
    CohereRequest,
    DialectRequest,
    PlainInvocationRequest,
    PlainRequest,
    RerankRequest,
    RerankTask,
    ScoreRequest,
    Served,
    StreamRequest,
    TeiRequest,
)

SERVED = Served(model="served-model", request_id="0123")
DIALECTS: dict[str, TypeAdapter[Any]] = {
    "/v1/rerank": TypeAdapter(AnyRerankRequest),
    "/v2/rerank": TypeAdapter(CohereRequest),
    "/rerank": TypeAdapter(PlainRequest),
    "/v1/score": TypeAdapter(ScoreRequest),
    "/invocations": TypeAdapter(PlainInvocationRequest),
    "/v1/rerank/stream": TypeAdapter(AnyStreamRequest),
}

any_text = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates, too
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    sorted({name for model in (RerankRequest, TeiRequest, ScoreRequest, StreamRequest) for name in model.model_fields})
)
known_keys = fields | st.sampled_from(["data", "top_k", "truncation", "text_1", "text_2", "text"])
anything = any_json | st.dictionaries(known_keys, any_json | st.lists(any_json | st.dictionaries(known_keys, any_json)))


def body(**fields: Any) -> dict[str, Any]:
    return {"query": "q", "documents": ["a", "b", "c"]} | fields


def task_of(request: DialectRequest) -> RerankTask:
    [task] = request.tasks()
    return task


def jina(**fields: Any) -> RerankTask:
    return task_of(RerankRequest.model_validate(body(**fields)))


def ranking_of(scores: list[float], top_n: int | None = None, usage: Usage | None = None) -> Ranking:
    """As the reranker ranks documents with these scores; without texts, which answers have no need of."""
    best_first = sorted(range(len(scores)), key=lambda i: -scores[i])[:top_n]
    return Ranking([RankedDocument(i, scores[i], "") for i in best_first], usage or Usage(tokens=7))


def answer(path: str, sent: Any, scores: list[float], served: Served = SERVED) -> Any:
    """The answer as a client parses it."""
    request = DIALECTS[path].validate_python(sent)
    tasks, rankings, start = request.tasks(), [], 0
    for task in tasks:
        end = start + len(task.documents)
        rankings.append(ranking_of(scores[start:end], task.top_n))
        start = end
    return json.loads(json.dumps(request.answer(tasks, rankings, served), allow_nan=False))


def errors(path: str, sent: Any) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as refused:
        DIALECTS[path].validate_python(sent)
    return [
        (tuple(part for part in one["loc"] if part not in UNION_TAGS), one["type"]) for one in refused.value.errors()
    ]
