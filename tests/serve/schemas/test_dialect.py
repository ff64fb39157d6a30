"""What real clients send is understood, what is wrong names its field, in every dialect."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from serve.schemas import (
    MAX_DOCUMENTS,
    CohereRequest,
    InvocationRequest,
    RerankRequest,
    RerankTask,
    ScoreRequest,
    Served,
    StreamRequest,
    TeiRequest,
    stream_line,
)
from tests.serve.schemas.dialects import (
    DIALECTS,
    SERVED,
    answer,
    any_json,
    any_text,
    anything,
    body,
    errors,
    jina,
    ranking_of,
    task_of,
)

# What real clients send: facts seen with LangChain, LlamaIndex, Haystack, cohere, litellm, Dify, RAGFlow.


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/rerank", body(model="jina-reranker-v1-base-en", top_n=3)),
        ("/v1/rerank", body(model="m", top_n=None)),
        ("/v1/rerank", body(documents=[{"text": "a"}, {"text": "", "page": 3}, ""], return_documents=False)),
        ("/v1/rerank", body(return_documents="true", return_len="true")),
        ("/v1/rerank", body(model="m", max_chunks_per_doc=10, overlap_tokens=80)),
        ("/v1/rerank", body(model="m", return_documents=True, rank_fields=["text"])),
        ("/v2/rerank", body(model="m", top_n=2, max_tokens_per_doc=4096, priority=0)),
        ("/v2/rerank", body(model="m", return_documents=True)),
        (
            "/rerank",
            {
                "query": "q",
                "texts": ["a", "b"],
                "top_n": 2,
                "raw_scores": False,
                "truncate": False,
                "truncation_direction": "Right",
                "return_text": True,
            },
        ),
        ("/rerank", body(model="m", top_n=3, return_documents=True)),
        ("/v1/score", {"model": "m", "text_1": "q", "text_2": ["a", "b"], "truncate_prompt_tokens": -1}),
        ("/v1/score", {"model": "m", "queries": "q", "documents": "a", "encoding_format": "float"}),
        ("/invocations", {"data": {"documents": [{"text": "a"}], "query": "q", "top_n": 1}}),
        ("/invocations", body()),
        ("/invocations", {"query": "q", "texts": ["a", "b"], "truncate": True}),
        ("/invocations", {"model": "m", "text_1": "q", "text_2": ["a", "b"]}),
        ("/invocations", {"data_1": "q", "data_2": "a"}),
        ("/invocations", {"queries": "q", "items": ["a"]}),
        ("/rerank", body(texts=None)),
        ("/rerank", {"query": "q", "texts": ["a"], "documents": None}),
        ("/invocations", body(data=None, texts=None, queries=None, text_1=None)),
        ("/invocations", {"text_1": "q", "text_2": ["a"], "data": None, "texts": None}),
        ("/rerank", body(documents="a", top_n=0)),
        ("/rerank", body(documents={"text": "a"})),
        ("/v1/rerank", body(return_embeddings="false")),
        ("/v1/score", {"text_1": "q", "text_2": "a", "return_documents": "False"}),
    ],
)
def test_the_bodies_of_real_clients_are_understood(path: str, sent: Any) -> None:
    [task] = DIALECTS[path].validate_python(sent).tasks()
    assert (task.query, list(task.documents)[:1]) == ("q", ["a"])


def test_a_task_has_everything_that_was_asked_for() -> None:
    assert jina(
        model="m",
        top_n=2,
        return_documents=False,
        max_query_length=100,
        max_length=900,
        overlap_tokens=0,
        max_chunks_per_doc=3,
        truncate=False,
        raw_scores=True,
    ) == RerankTask(
        query="q",
        documents=["a", "b", "c"],
        sent=["a", "b", "c"],
        model="m",
        top_n=2,
        return_documents=False,
        max_query_length=100,
        max_length=900,
        overlap_tokens=0,
        max_chunks_per_doc=3,
        truncate=False,
        raw_scores=True,
    )


def test_what_is_left_out_or_null_is_left_to_the_server() -> None:
    nothing = RerankTask(query="q", documents=["a", "b", "c"], sent=["a", "b", "c"])
    nulls = dict.fromkeys([*RerankRequest.model_fields.keys() - {"query", "documents"}, "top_k", "truncation"])
    assert jina() == nothing
    assert jina(**nulls) == nothing


@pytest.mark.parametrize(
    ("sent", "field", "understood"),
    [
        ({"top_k": 2}, "top_n", 2),
        ({"top_n": None, "top_k": 2}, "top_n", 2),
        ({"top_n": "2"}, "top_n", 2),
        ({"top_n": 2.0}, "top_n", 2),
        ({"top_n": 10**30}, "top_n", 10**30),
        ({"return_documents": "true"}, "return_documents", True),
        ({"return_documents": "False"}, "return_documents", False),
        ({"truncation": False}, "truncate", False),
        ({"truncate": "false"}, "truncate", False),
        ({"raw_scores": "1"}, "raw_scores", True),
        ({"max_length": "512"}, "max_length", 512),
        ({"query": {"text": "q"}}, "query", "q"),
        ({"query": {"text": "q", "id": math.nan}}, "query", "q"),
        ({"documents": []}, "documents", []),
        ({"documents": ["", {"text": ""}]}, "documents", ["", ""]),
        ({"documents": ["a", {"text": "b", "id": 1}]}, "documents", ["a", "b"]),
        ({"\ud800": math.inf, "user": [[{}]]}, "query", "q"),
    ],
)
def test_requests_are_read_liberally(sent: dict[str, Any], field: str, understood: Any) -> None:
    assert getattr(jina(**sent), field) == understood


@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({"documents": None}, ("documents",), "list_type"),
        ({"documents": ["a", None]}, ("documents", 1), "document_type"),
        ({"documents": ["a", 3]}, ("documents", 1), "document_type"),
        ({"documents": ["a", ["b"]]}, ("documents", 1), "document_type"),
        ({"documents": ["a", {"title": "b"}]}, ("documents", 1, "text"), "missing"),
        ({"documents": ["a", {"text": None}]}, ("documents", 1, "text"), "string_type"),
        ({"documents": ["a", "b\ud800"]}, ("documents", 1), "invalid_unicode"),
        ({"documents": [{"text": "b\udfff"}]}, ("documents", 0, "text"), "invalid_unicode"),
        ({"documents": [{"text": "b", "meta": {"p": [0.5, math.nan]}}]}, ("documents", 0, "meta"), "finite_number"),
        ({"documents": [{"text": "b", "meta": -math.inf}]}, ("documents", 0, "meta"), "finite_number"),
        ({"documents": [{"text": "b", "meta": ["\ud800"]}]}, ("documents", 0, "meta"), "invalid_unicode"),
        ({"documents": [{"text": "b", "meta": {"\ud800": 1}}]}, ("documents", 0, "meta"), "invalid_unicode"),
        ({"documents": [{"text": "b", "\ud800": 1}]}, ("documents", 0), "string_unicode"),
        ({"query": None}, ("query",), "string_type"),
        ({"query": 3}, ("query",), "string_type"),
        ({"query": {"txt": "q"}}, ("query",), "string_type"),
        ({"query": {"text": None}}, ("query",), "string_type"),
        ({"query": "\ud83d"}, ("query",), "invalid_unicode"),
        ({"query": ""}, ("query",), "blank_query"),
        ({"query": {"text": " \n\u3000"}}, ("query",), "blank_query"),
        ({"model": "\ud800"}, ("model",), "invalid_unicode"),
        ({"model": 3}, ("model",), "string_type"),
        ({"top_n": -1}, ("top_n",), "greater_than_equal"),
        ({"top_k": -1}, ("top_k",), "greater_than_equal"),
        ({"top_n": 1.5}, ("top_n",), "int_from_float"),
        ({"top_n": math.inf}, ("top_n",), "finite_number"),
        ({"top_n": "all"}, ("top_n",), "int_parsing"),
        ({"return_documents": "maybe"}, ("return_documents",), "bool_parsing"),
        ({"max_length": 15}, ("max_length",), "greater_than_equal"),
        ({"max_query_length": 7}, ("max_query_length",), "greater_than_equal"),
        ({"overlap_tokens": -1}, ("overlap_tokens",), "greater_than_equal"),
        ({"max_chunks_per_doc": 0}, ("max_chunks_per_doc",), "greater_than_equal"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(sent: dict[str, Any], field: tuple[Any, ...], kind: str) -> None:
    for path in ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/rerank/stream", "/invocations"]:
        assert errors(path, body(**sent)) == [(field, kind)]
    assert errors("/invocations", {"data": body(**sent)}) == [(("data", *field), kind)]


@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({"documents": "a"}, ("documents",), "list_type"),
        ({"documents": {"text": "a"}}, ("documents",), "list_type"),
        ({"top_n": 0}, ("top_n",), "greater_than_equal"),
        ({"top_k": 0}, ("top_k",), "greater_than_equal"),
    ],
)
def test_what_vllm_alone_takes_is_refused_elsewhere(sent: dict[str, Any], field: tuple[Any, ...], kind: str) -> None:
    for path in ["/v1/rerank", "/v2/rerank", "/v1/rerank/stream", "/invocations"]:
        assert errors(path, body(**sent)) == [(field, kind)]
    assert DIALECTS["/rerank"].validate_python(body(**sent)).tasks()


def test_every_wrong_field_is_named_and_of_a_list_the_first_wrong_element() -> None:
    found = errors("/v1/rerank", {"documents": [None, "a", None], "top_n": 0})
    assert [field for field, _ in found] == [("query",), ("documents", 0), ("top_n",)]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/rerank", {"query": "q", "documents": [None] * 3}),
        ("/v2/rerank", {"query": "q", "documents": [None] * 3}),
        ("/rerank", {"query": "q", "texts": [None] * 3}),
        ("/rerank", {"query": "q", "documents": [None] * 3}),
        ("/v1/score", {"queries": [None] * 3, "documents": "a"}),
        ("/v1/score", {"queries": "q", "documents": [None] * 3}),
        ("/invocations", {"data": {"query": "q", "documents": [None] * 3}}),
        ("/v1/rerank/stream", {"query": "q", "documents": [None] * 3}),
    ],
)
def test_a_list_that_is_too_long_is_refused_before_its_elements_are_looked_at(path: str, sent: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        DIALECTS[path].validate_python(sent, context={MAX_DOCUMENTS: 2})
    [error] = refused.value.errors()
    assert (error["type"], error["ctx"]) == ("too_many_documents", {"documents": 3, "limit": 2})


ROUTES: dict[str, dict[str, Any]] = {
    "/v1/rerank": body(),
    "/v2/rerank": body(),
    "/rerank": {"query": "q", "texts": ["a", "b"]},
    "/v1/score": {"queries": "q", "documents": ["a", "b"]},
    "/invocations": {"data": body()},
}
"""A body for each route that ranks."""


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("sent", "field", "understood"),
    [
        ({"use_activation": False}, "raw_scores", True),
        ({"use_activation": True}, "raw_scores", False),
        ({"activation": False}, "raw_scores", True),
        ({"max_tokens_per_doc": 100}, "max_tokens_per_doc", 100),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc", None),
        ({"max_doc_length": 100}, "max_tokens_per_doc", 100),
        ({"max_tokens_per_query": 30}, "max_query_length", 32),
        ({"max_tokens_per_query": 30, "max_query_length": 20}, "max_query_length", 20),
        ({"max_tokens_per_query": 0}, "max_query_length", None),
        ({"truncate_prompt_tokens": 40}, "max_length", 40),
        ({"truncate_prompt_tokens": 40, "max_length": 30}, "max_length", 30),
        ({"truncate_prompt_tokens": 40, "max_chunks_per_doc": 3}, "max_chunks_per_doc", 1),
        ({"truncate_prompt_tokens": -1}, "max_length", None),
        ({"truncate_prompt_tokens": -1}, "max_chunks_per_doc", 1),
        ({"truncation_side": "right"}, "truncate", True),
        ({"truncation_direction": "Right"}, "truncate", True),
        ({"rank_fields": ["text"]}, "truncate", True),
        ({"return_embeddings": False, "instruction": None}, "truncate", True),
        ({"instruction": "find code"}, "instruction", "find code"),
    ],
)
def test_what_a_dialect_knows_is_honoured_on_every_route(
    path: str, sent: dict[str, Any], field: str, understood: Any
) -> None:
    request = with_fields(path, sent)
    assert getattr(task_of(DIALECTS[path].validate_python(request)), field) == understood


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("truncation_side", "left"),
        ("truncation_direction", "Left"),
        ("prompt_name", "find code"),
        ("chat_template", "{{ query }}"),
        ("chat_template_kwargs", {}),
        ("rank_fields", ["title"]),
        ("relevant_spans", {"mode": "x"}),
        ("return_embeddings", True),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_name(path: str, name: str, value: Any) -> None:
    [(field, kind)] = errors(path, with_fields(path, {name: value}))
    assert (field[-1], kind) == (name, "unsupported_parameter")


def with_fields(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body for a route with further fields, which stand where the request stands."""
    sent = ROUTES[path]
    return {"data": sent["data"] | fields} if "data" in sent else sent | fields


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"truncate": True}, {"truncation": False}),
        ({"use_activation": True}, {"activation": False}),
        ({"activation": True}, {"softmax": False}),
        ({"max_tokens_per_doc": 100}, {"max_doc_length": 200}),
    ],
)
def test_two_names_of_one_field_may_not_disagree(path: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """The message names both; what is null is not said at all."""
    [name], [other_name] = one, other
    with pytest.raises(ValidationError) as refused:
        DIALECTS[path].validate_python(with_fields(path, one | other))
    [error] = refused.value.errors()
    assert (error["loc"][-1], error["type"]) == (name, "contradiction")
    assert f"`{name}` and `{other_name}` mean the same" in error["msg"]
    for agreeing in ({other_name: one[name]}, {other_name: None}):
        both, alone = (DIALECTS[path].validate_python(with_fields(path, sent)) for sent in (one | agreeing, one))
        assert both.tasks() == alone.tasks()
    first_null = DIALECTS[path].validate_python(with_fields(path, {name: None} | other))
    assert first_null.tasks() == DIALECTS[path].validate_python(with_fields(path, other)).tasks()


@pytest.mark.parametrize(
    ("path", "sent", "names"),
    [
        ("/v1/rerank", body(top_n=1, top_k=2), "`top_n` and `top_k`"),
        ("/v1/rerank", body(return_documents=True, return_text=False), "`return_documents` and `return_text`"),
        ("/v1/rerank", body(texts=["a"]), "`texts` and `documents`"),
        ("/rerank", body(texts=["a"]), "`texts` and `documents`"),
        ("/rerank", {"query": "q", "texts": ["a"], "top_n": 2, "top_k": 1}, "`top_n` and `top_k`"),
        ("/v1/rerank/stream", body(top_n=1, top_k=2), "`top_n` and `top_k`"),
        ("/v1/score", {"queries": "p", "text_1": "q", "documents": "a"}, "`queries` and `text_1`"),
        ("/v1/score", {"queries": "p", "query": "q", "documents": "a"}, "`query` and `queries`"),
        ("/v1/score", {"queries": "p", "text_2": "a", "items": ["a", "b"]}, "`text_2` and `items`"),
        ("/invocations", {"data_1": "p", "text_1": "q", "documents": "a"}, "`text_1` and `data_1`"),
        ("/invocations", {"data": body(top_n=1, top_k=True)}, "`top_n` and `top_k`"),
    ],
)
def test_texts_and_numbers_under_two_names_may_not_disagree_either(path: str, sent: Any, names: str) -> None:
    with pytest.raises(ValidationError, match=f"{names} mean the same, and have different values"):
        DIALECTS[path].validate_python(sent)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/rerank", body(top_n=2, top_k=2)),
        ("/v1/rerank", body(texts=["a", {"text": "b"}, "c"])),
        ("/v1/score", {"queries": ["q"], "text_1": "q", "query": {"text": "q"}, "documents": "a"}),
    ],
)
def test_two_names_of_one_field_may_say_the_same(path: str, sent: Any) -> None:
    [task] = DIALECTS[path].validate_python(sent).tasks()
    assert (task.query, task.documents[0]) == ("q", "a")


def test_values_nested_too_deeply_to_be_compared_are_not_the_same() -> None:
    nested: list[Any] = [[], []]
    for _ in range(100_000):
        nested = [[nested[0]], [nested[1]]]
    found = errors("/v1/rerank", body(documents=nested[0], texts=nested[1]))
    assert found == [(("texts",), "contradiction")]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(("raw_scores", "use_activation"), [(True, True), (False, False)])
@pytest.mark.parametrize("name", ["use_activation", "activation", "softmax"])
def test_two_wishes_for_scores_may_not_disagree(path: str, raw_scores: bool, use_activation: bool, name: str) -> None:
    [(field, kind)] = errors(path, with_fields(path, {"raw_scores": raw_scores, name: use_activation}))
    assert (field[-1], kind) == (name, "contradiction")


NUMBERS = (
    "max_length",
    "max_query_length",
    "overlap_tokens",
    "max_chunks_per_doc",
    "max_tokens_per_doc",
    "max_doc_length",
    "max_tokens_per_query",
    "truncate_prompt_tokens",
)
BOOLEANS = ("truncate", "truncation", "raw_scores", "use_activation", "activation", "softmax")


@pytest.mark.parametrize("path", ROUTES)
def test_a_boolean_is_no_number_and_a_number_no_boolean(path: str) -> None:
    ranking = path != "/v1/score"
    for kind, names, values in (
        ("int_type", NUMBERS + ("top_n", "top_k") * ranking, (True, False)),
        ("bool_type", BOOLEANS + ("return_documents", "return_text") * ranking, (1, 0, 1.0)),
    ):
        for name in names:
            for value in values:
                [(field, found)] = errors(path, with_fields(path, {name: value}))
                assert (field[-1], found) == (name, kind)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank", "/v1/rerank/stream", "/invocations"])
@pytest.mark.parametrize("name", ["image", "content"])
def test_what_a_query_has_beside_its_text_is_refused_with_its_name(path: str, name: str) -> None:
    for query in ({"text": "q", name: "x"}, {name: "x"}):
        assert errors(path, body(query=query)) == [(("query", name), "unsupported_parameter")]
    understood = DIALECTS[path].validate_python(body(query={"text": "q", name: None, "id": 3}))
    assert task_of(understood).query == "q"


@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({"truncate_prompt_tokens": 15}, ("truncate_prompt_tokens",), "too_few_tokens"),
        ({"truncate_prompt_tokens": -2}, ("truncate_prompt_tokens",), "greater_than_equal"),
        ({"max_tokens_per_query": 5}, ("max_tokens_per_query",), "too_few_tokens"),
        ({"max_tokens_per_doc": -1}, ("max_tokens_per_doc",), "greater_than_equal"),
    ],
)
def test_numbers_of_tokens_that_cannot_work_are_refused(
    sent: dict[str, Any], field: tuple[Any, ...], kind: str
) -> None:
    assert errors("/v1/rerank", body(**sent)) == [(field, kind)]


@pytest.mark.parametrize("sent", [None, [], "text", 3, 0.5, True, b"{}"])
@pytest.mark.parametrize("path", DIALECTS)
def test_a_body_that_is_no_object_is_refused(path: str, sent: Any) -> None:
    assert [field for field, _ in errors(path, sent)] == [()]


@pytest.mark.parametrize(
    ("path", "asked", "default", "returned"),
    [
        ("/v1/rerank", None, True, True),
        ("/v1/rerank", None, False, False),
        ("/v1/rerank", True, False, True),
        ("/v1/rerank", False, True, False),
        ("/v2/rerank", None, True, False),
        ("/v2/rerank", True, False, True),
        ("/v2/rerank", False, True, False),
    ],
)
def test_documents_come_back_when_they_are_wanted(path: str, asked: bool | None, default: bool, returned: bool) -> None:
    """And are left out, never null: litellm fails on null."""
    served = Served(model="m", request_id="", return_documents=default)
    for result in answer(path, body(return_documents=asked), [0.1, 0.2, 0.3], served)["results"]:
        assert ("document" in result) is returned


@given(anything)
def test_any_json_is_either_understood_or_refused_as_invalid(sent: Any) -> None:
    for dialect in DIALECTS.values():
        with suppress(ValidationError):
            assert dialect.validate_python(sent).tasks()


@given(
    st.lists(any_text | st.fixed_dictionaries({"text": any_text}, optional={"meta": any_json}), max_size=3), any_json
)
def test_what_is_understood_can_be_scored_and_answered(documents: list[Any], line_id: Any) -> None:
    """UTF-8 can carry all that is echoed, and the texts are strings that a tokenizer takes."""
    sent = {"query": "q", "queries": "q", "documents": documents, "id": line_id}
    for dialect in DIALECTS.values():
        try:
            request = dialect.validate_python(sent)
        except ValidationError:
            continue
        tasks = request.tasks()
        for task in tasks:
            for text in [task.query, *task.documents]:
                text.encode()
        rankings = [ranking_of([0.5] * len(task.documents)) for task in tasks]
        answered = request.answer(tasks, rankings, SERVED)
        stream_line(1, getattr(request, "id", None), {"answer": answered})


def test_the_examples_of_the_docs_are_valid_requests() -> None:
    for model in (RerankRequest, CohereRequest, TeiRequest, ScoreRequest, StreamRequest):
        [example] = model.model_json_schema()["examples"]
        assert task_of(model.model_validate(example)).documents


def test_every_field_of_a_request_is_described() -> None:
    models = (RerankRequest, CohereRequest, TeiRequest, ScoreRequest, StreamRequest, InvocationRequest)
    _, schema = models_json_schema([(model, "validation") for model in models])
    for model in models:
        for name, properties in schema["$defs"][model.__name__]["properties"].items():
            assert properties.get("description"), f"{model.__name__}.{name}"
