"""Several queries in one request: what is a mistake of one, what of all, and what holds for those that do not say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve.schemas import MAX_DOCUMENTS, QueriesRequest, RerankRequest
from serve.schemas.queries import MAX_QUERIES
from tests.serve.schemas.dialects import DIALECTS, body, errors, jina, task_of

PATHS = ["/v1/rerank", "/v1/rerank/stream"]
each_path = pytest.mark.parametrize("path", PATHS)


def read(path: str, sent: Any, max_documents: int | None = None) -> QueriesRequest:
    request: QueriesRequest = DIALECTS[path].validate_python(sent, context={MAX_DOCUMENTS: max_documents})
    return request


@each_path
@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({"top_n": 2}, {}),
        ({"top_k": 2}, {"top_n": 1}),
        ({"top_n": 2}, {"top_k": 1}),
        ({"top_n": 2}, {"top_n": None}),
        ({"return_documents": False, "max_length": 100}, {"return_text": True}),
        ({"max_tokens_per_doc": 50, "truncate": False}, {"max_doc_length": 20, "truncation": True}),
        ({"max_query_length": 20, "overlap_tokens": 0, "max_chunks_per_doc": 2}, {"overlap_tokens": 3}),
        ({"model": "m", "truncate_prompt_tokens": 40}, {"model": "n"}),
    ],
)
def test_what_stands_beside_the_queries_holds_for_those_that_do_not_say(
    path: str, options: dict[str, Any], own: dict[str, Any]
) -> None:
    """As if it stood in them, where it is not said there in whatever words."""
    request = read(path, {"queries": [body(), body(**own)], **options})
    said = {name for name, value in RerankRequest.model_validate(body(**own)) if value is not None}
    inherited = {name: value for name, value in RerankRequest.model_validate(body(**options)) if name not in said}
    expected = RerankRequest.model_validate(body(**own)).model_copy(update=inherited)
    assert request.tasks() == [jina(**options), task_of(expected)]


@pytest.mark.parametrize(
    ("beside", "own", "logits"),
    [
        ({"raw_scores": True}, {}, True),
        ({"raw_scores": True}, {"raw_scores": False}, False),
        ({"raw_scores": True}, {"use_activation": True}, False),
        ({"use_activation": False}, {"raw_scores": False}, False),
        ({"use_activation": True}, {"raw_scores": True}, True),
    ],
)
def test_scores_and_logits_are_one_option_under_two_names(
    beside: dict[str, Any], own: dict[str, Any], logits: bool
) -> None:
    [task] = read("/v1/rerank", {"queries": [body(**own)], **beside}).tasks()
    assert not isinstance(task, ValidationError)
    assert task.raw_scores is logits


@pytest.mark.parametrize(
    ("beside", "own", "read_as"),
    [
        (
            {"max_tokens_per_query": 10, "truncate_prompt_tokens": 20},
            {"max_query_length": 512, "max_length": 1024},
            {"max_query_length": 512, "max_length": 1024},
        ),
        ({"max_query_length": 16}, {"max_tokens_per_query": 40}, {"max_tokens_per_query": 40}),
        ({"max_query_length": 16}, {"max_tokens_per_query": 0}, {"max_query_length": 16}),
        ({"max_length": 64, "max_chunks_per_doc": 3}, {"truncate_prompt_tokens": 99}, {"truncate_prompt_tokens": 99}),
        ({"max_length": 64}, {"truncate_prompt_tokens": -1}, {"max_length": 64, "truncate_prompt_tokens": -1}),
        ({"truncate_prompt_tokens": 20}, {"max_chunks_per_doc": 3}, {"max_chunks_per_doc": 3}),
    ],
)
def test_a_length_of_a_query_wins_whatever_it_is_called(
    beside: dict[str, Any], own: dict[str, Any], read_as: dict[str, Any]
) -> None:
    assert read("/v1/rerank", {"queries": [body(**own)], **beside}).tasks() == [jina(**read_as)]


@each_path
@pytest.mark.parametrize(
    ("wrong", "field", "kind"),
    [
        (body(query=" "), ("query",), "blank_query"),
        (body(documents=["a", None]), ("documents", 1), "document_type"),
        (body(documents=["\ud800"]), ("documents", 0), "invalid_unicode"),
        (body(top_n=0), ("top_n",), "greater_than_equal"),
        (body(top_n=1, top_k=2), ("top_n",), "contradiction"),
        (body(chat_template="find code"), ("chat_template",), "unsupported_parameter"),
        ({"queries": [body()]}, ("query",), "missing"),
        (None, (), "model_type"),
        ("text", (), "model_type"),
    ],
)
def test_a_mistake_in_one_query_is_none_of_another(path: str, wrong: Any, field: tuple[Any, ...], kind: str) -> None:
    first, error, last = read(path, {"queries": [body(), wrong, body(query="p")]}).tasks()
    assert isinstance(error, ValidationError)
    found = error.errors()[0]
    assert (tuple(part for part in found["loc"] if part != "(string)"), found["type"]) == (field, kind)
    assert [first, last] == [jina(), jina(query="p")]


@each_path
@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({"queries": []}, "queries", "too_short"),
        ({"queries": "q"}, "queries", "list_type"),
        ({"queries": {}}, "queries", "list_type"),
        ({"queries": [body()] * (MAX_QUERIES + 1)}, "queries", "too_long"),
        ({"queries": [0] * 1_000_000}, "queries", "too_long"),
        ({"queries": [body()], "query": "q"}, "query", "contradiction"),
        ({"queries": "q", "query": "q"}, "query", "contradiction"),
        ({"queries": [body()], "documents": []}, "documents", "contradiction"),
        ({"queries": [body()], "top_n": 0}, "top_n", "greater_than_equal"),
        ({"queries": [body()], "top_n": 1, "top_k": 2}, "top_n", "contradiction"),
        ({"queries": [body()], "chat_template": "find code"}, "chat_template", "unsupported_parameter"),
    ],
)
def test_a_mistake_of_the_whole_request_is_refused(path: str, sent: Any, field: str, kind: str) -> None:
    assert errors(path, sent) == [((field,), kind)]


@each_path
def test_documents_of_all_queries_count_together_before_they_are_looked_at(path: str) -> None:
    lists = [body(documents=[None] * 3), body(documents="a"), None, {}, body(documents=[None] * 4)]
    assert len(read(path, {"queries": lists}, max_documents=7).tasks()) == 5
    with pytest.raises(ValidationError) as refused:
        read(path, {"queries": lists}, max_documents=6)
    [error] = refused.value.errors()
    assert (error["type"], error["ctx"]) == ("too_many_documents", {"documents": 7, "limit": 6})


@each_path
def test_a_null_is_not_there(path: str) -> None:
    """Neither where a single query says so of others, nor the other way round; nobody is warned of it."""
    single = DIALECTS[path].validate_python(body(queries=None))
    several = read(path, {"queries": [body()], "query": None, "documents": None})
    assert single.tasks() == several.tasks() == [jina()]
    assert single.warnings == several.warnings == []


@each_path
def test_near_misses_are_named_wherever_they_stand_and_once(path: str) -> None:
    sent = {"queries": [body(topn=1), body(topn=2), {"query": "q", "passages": ["a"]}], "maxlength": 9}
    assert read(path, sent).warnings == [
        "`maxlength` is not read here; did you mean `max_length`?",
        "`topn` is not read here; did you mean `top_n`?",
        "`passages` is not read here; did you mean `documents`?",
    ]
    many = read(path, {"queries": [body(**{f"top_n_{i}x{j}": 1 for j in range(30)}) for i in range(30)]})
    assert len(many.warnings) <= 20


@pytest.mark.parametrize("path", ["/v2/rerank", "/rerank"])
def test_other_dialects_have_no_such_field(path: str) -> None:
    assert (("query",), "missing") in errors(path, {"queries": [body()]})
