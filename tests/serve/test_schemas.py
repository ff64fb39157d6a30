"""The wire: what real clients send is understood, what is wrong names its field, what goes back is what was sent."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from pipelines.fingerprint import Fingerprint
from pipelines.records import RankedDocument, Ranking, Usage
from serve import schemas
from serve.schemas import (
    MAX_DEPTH,
    CohereRequest,
    DialectRequest,
    InvocationRequest,
    PlainInvocationRequest,
    PlainRequest,
    RerankRequest,
    RerankTask,
    ScoreRequest,
    Served,
    StreamRequest,
    TeiRequest,
    models_answer,
    read_json,
    sent_id,
    stream_line,
)

EXAMPLES = json.loads((Path(__file__).parents[1] / "data" / "announcement_examples.json").read_text(encoding="utf-8"))
SERVED = Served(model="served-model", request_id="0123")
DIALECTS: dict[str, TypeAdapter[Any]] = {
    "/v1/rerank": TypeAdapter(RerankRequest),
    "/v2/rerank": TypeAdapter(CohereRequest),
    "/rerank": TypeAdapter(PlainRequest),
    "/v1/score": TypeAdapter(ScoreRequest),
    "/invocations": TypeAdapter(PlainInvocationRequest),
    "/v1/rerank/stream": TypeAdapter(StreamRequest),
}


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
        (tuple(part for part in one["loc"] if part not in schemas.UNION_TAGS), one["type"])
        for one in refused.value.errors()
    ]


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
        ("/v2/rerank", body(model="m", relevant_spans={"mode": "x"}, return_documents=True)),
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
        ({"top_n": 1, "top_k": 2}, "top_n", 1),
        ({"top_n": "2"}, "top_n", 2),
        ({"top_n": 2.0}, "top_n", 2),
        ({"top_n": 10**30}, "top_n", 10**30),
        ({"return_documents": "true"}, "return_documents", True),
        ({"return_documents": "False"}, "return_documents", False),
        ({"truncation": False}, "truncate", False),
        ({"truncate": "false"}, "truncate", False),
        ({"raw_scores": 1}, "raw_scores", True),
        ({"max_length": "512"}, "max_length", 512),
        ({"query": {"text": "q"}}, "query", "q"),
        ({"query": {"text": "q", "image": math.nan}}, "query", "q"),
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
        ({"documents": "a"}, ("documents",), "list_type"),
        ({"documents": {"0": "a"}}, ("documents",), "list_type"),
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
        ({"top_n": 0}, ("top_n",), "greater_than_equal"),
        ({"top_n": -1}, ("top_n",), "greater_than_equal"),
        ({"top_k": 0}, ("top_k",), "greater_than_equal"),
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


def test_every_wrong_field_is_named() -> None:
    found = errors("/v1/rerank", {"documents": [None, "a", None], "top_n": 0})
    assert [field for field, _ in found] == [("query",), ("documents", 0), ("documents", 2), ("top_n",)]


@pytest.mark.parametrize("sent", [None, [], "text", 3, 0.5, True, b"{}"])
@pytest.mark.parametrize("path", DIALECTS)
def test_a_body_that_is_no_object_is_refused(path: str, sent: Any) -> None:
    assert [field for field, _ in errors(path, sent)] == [()]


def test_what_comes_back_is_nested_to_a_limit() -> None:
    def document(levels: int) -> dict[str, Any]:
        nested: Any = []
        for _ in range(levels - 1):
            nested = [nested]
        return {"text": "a", "nested": nested}

    sent = body(documents=[document(MAX_DEPTH - 1)])
    assert answer("/v1/rerank", sent, [0.5])["results"][0]["document"] == sent["documents"][0]
    for too_deep in (MAX_DEPTH + 1, 10_000):
        assert errors("/v1/rerank", body(documents=[document(too_deep)])) == [(("documents", 0, "nested"), "too_deep")]
    assert jina(ignored=document(10_000)) == jina()


# Answers.


def test_the_answer_has_the_form_of_the_announcements_to_the_letter() -> None:
    """Fields, their order and the digits of the scores are those of its first example."""
    sent = EXAMPLES["functions"]
    request = RerankRequest.model_validate(sent)
    ranking = ranking_of([0.05033063143491745, 0.23283305764198303, 0.5422876477241516], usage=Usage(tokens=383))
    answered = request.answer(request.tasks(), [ranking], Served(model=sent["model"], request_id="0123"))
    assert json.dumps(answered) == json.dumps(
        {
            "model": "jina-reranker-v2-base-multilingual",
            "usage": {"total_tokens": 383, "prompt_tokens": 383},
            "results": [
                {"index": 2, "document": {"text": sent["documents"][2]}, "relevance_score": 0.5422876477241516},
                {"index": 1, "document": {"text": sent["documents"][1]}, "relevance_score": 0.23283305764198303},
                {"index": 0, "document": {"text": sent["documents"][0]}, "relevance_score": 0.05033063143491745},
            ],
        }
    )


def test_jinas_answer() -> None:
    assert answer("/v1/rerank", body(model="other", top_n=2), [0.25, 0.75, 0.5]) == {
        "model": "served-model",
        "usage": {"total_tokens": 7, "prompt_tokens": 7},
        "results": [
            {"index": 1, "document": {"text": "b"}, "relevance_score": 0.75},
            {"index": 2, "document": {"text": "c"}, "relevance_score": 0.5},
        ],
    }


def test_coheres_answer() -> None:
    assert answer("/v2/rerank", body(), [0.25, 0.75, 0.5]) == {
        "id": "0123",
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 2, "relevance_score": 0.5},
            {"index": 0, "relevance_score": 0.25},
        ],
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }


@pytest.mark.parametrize(("chunks", "units"), [(0, 1), (1, 1), (100, 1), (101, 2), (1_000, 10)])
def test_a_search_unit_is_a_begun_hundred_of_chunks(chunks: int, units: int) -> None:
    request = CohereRequest.model_validate(body())
    answered = request.answer(request.tasks(), [ranking_of([], usage=Usage(chunks=chunks))], SERVED)
    assert answered["meta"]["billed_units"] == {"search_units": units}


def test_teis_answer_is_an_array() -> None:
    sent = {"query": "q", "texts": ["a", "b"]}
    assert answer("/rerank", sent, [0.25, 0.75]) == [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
    assert answer("/rerank", sent | {"return_text": True, "top_n": 1}, [0.25, 0.75]) == [
        {"index": 1, "score": 0.75, "text": "b"}
    ]


def test_the_plain_route_answers_in_the_dialect_that_was_sent() -> None:
    assert answer("/rerank", body(), [0.1, 0.2, 0.3]) == answer("/v1/rerank", body(), [0.1, 0.2, 0.3])
    assert isinstance(DIALECTS["/rerank"].validate_python(body(texts=["a"])), TeiRequest)
    assert errors("/rerank", {"query": "q", "texts": ["a", None]}) == [(("texts", 1), "document_type")]


def test_sagemakers_answer_has_the_form_of_its_question() -> None:
    plain = answer("/v1/rerank", body(), [0.1, 0.2, 0.3])
    assert answer("/invocations", body(), [0.1, 0.2, 0.3]) == plain
    assert answer("/invocations", {"data": body()}, [0.1, 0.2, 0.3]) == {
        "data": [{"usage": plain["usage"], "results": plain["results"]}],
        "parameters": {},
    }
    assert isinstance(DIALECTS["/invocations"].validate_python({"data": body()}), InvocationRequest)
    assert errors("/invocations", {"data": []}) == [(("data",), "model_type")]


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"), ("queries", "items")]
)
def test_one_query_is_scored_against_every_document_in_their_order(names: tuple[str, str]) -> None:
    answered = answer("/v1/score", {names[0]: "q", names[1]: ["a", "b", "c"]}, [0.25, 0.75, 0.5])
    assert answered.pop("created") > 1_700_000_000
    assert answered == {
        "id": "0123",
        "object": "list",
        "model": "served-model",
        "data": [
            {"index": 0, "object": "score", "score": 0.25},
            {"index": 1, "object": "score", "score": 0.75},
            {"index": 2, "object": "score", "score": 0.5},
        ],
        "usage": {"total_tokens": 7, "prompt_tokens": 7},
    }


def test_as_many_queries_as_documents_are_scored_pair_by_pair() -> None:
    sent = {"queries": ["p", {"text": "q"}], "documents": ["a", {"text": "b"}]}
    tasks = ScoreRequest.model_validate(sent).tasks()
    assert [(task.query, task.documents) for task in tasks] == [("p", ["a"]), ("q", ["b"])]
    answered = answer("/v1/score", sent, [0.25, 0.75])
    assert [(one["index"], one["score"]) for one in answered["data"]] == [(0, 0.25), (1, 0.75)]
    assert answered["usage"] == {"total_tokens": 14, "prompt_tokens": 14}


@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({"queries": ["p", "q"], "documents": ["a"]}, ("documents",), "lengths_differ"),
        ({"queries": ["p", "q"], "documents": ["a", "b", "c"]}, ("documents",), "lengths_differ"),
        ({"queries": [], "documents": []}, ("queries",), "too_short"),
        ({"queries": ["q", " "], "documents": ["a", "b"]}, ("queries", 1), "blank_query"),
        ({"text_1": "q", "text_2": [None]}, ("text_2", 0), "document_type"),
        ({"documents": ["a"]}, ("queries",), "missing"),
        ({"queries": None, "documents": ["a"]}, ("queries",), "list_type"),
    ],
)
def test_texts_that_make_no_pairs_are_refused(sent: dict[str, Any], field: tuple[Any, ...], kind: str) -> None:
    assert errors("/v1/score", sent) == [(field, kind)]


@pytest.mark.parametrize(
    ("sent", "raw"),
    [({}, False), ({"use_activation": False}, True), ({"use_activation": True}, False), ({"raw_scores": True}, True)],
)
def test_vllms_way_to_ask_for_logits(sent: dict[str, Any], raw: bool) -> None:
    assert task_of(ScoreRequest.model_validate({"queries": "q", "documents": "a"} | sent)).raw_scores is raw


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


def test_different_float32_scores_stay_different_on_the_wire() -> None:
    bits = np.float32(0.7).view(np.uint32) + np.arange(1_000, dtype=np.uint32)
    scores = bits.view(np.float32).tolist()
    results = answer("/v1/rerank", body(documents=["a"] * len(scores)), scores)["results"]
    assert [np.float32(result["relevance_score"]) for result in results] == sorted(bits.view(np.float32), reverse=True)


def test_the_list_of_models_shows_what_decides_the_scores() -> None:
    fingerprint = Fingerprint("files", "bert", "sigmoid", "float32", 512, 256, 80, None)
    assert models_answer("m", fingerprint, 1_800_000_000) == {
        "object": "list",
        "data": [
            {
                "id": "m",
                "object": "model",
                "created": 1_800_000_000,
                "owned_by": "crossray",
                "max_length": 512,
                "max_query_length": 256,
                "overlap_tokens": 80,
                "max_chunks_per_doc": None,
                "dtype": "float32",
                "fingerprint": fingerprint.hash,
            }
        ],
    }


# The stream.


def test_a_line_out_is_one_line_with_the_callers_id() -> None:
    request = StreamRequest.model_validate(body(id={"row": [1, None]}, documents=["first\nsecond\u2028é"]))
    content = request.answer(request.tasks(), [ranking_of([0.5])], SERVED)
    line = stream_line(3, request.id, content)
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert json.loads(line) == {"id": {"row": [1, None]}, "line": 3, **content}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"id": 7, "query": None}, 7),
        ({"id": "a"}, "a"),
        ({"query": "q"}, None),
        ({"id": math.nan}, None),
        ({"id": ["\ud800"]}, None),
        ([], None),
        ("id", None),
    ],
)
def test_a_broken_line_is_answered_under_its_id_where_that_can_be(value: Any, expected: Any) -> None:
    assert sent_id(value) == expected
    stream_line(1, sent_id(value), {})


@pytest.mark.parametrize("value", [math.nan, ["\ud800"]])
def test_an_id_that_cannot_be_sent_back_is_refused(value: Any) -> None:
    assert [field for field, _ in errors("/v1/rerank/stream", body(id=value))] == [("id",)]


# Bytes.


def test_json_is_read_with_and_without_a_mark() -> None:
    assert (
        read_json('{"query": "é"}'.encode()) == read_json(b"\xef\xbb\xbf" + '{"query": "é"}'.encode()) == {"query": "é"}
    )


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"", "Expecting value at character 0"),
        (b'{"a": ', "Expecting value at character 6"),
        (b"{} {}", "Extra data at character 3"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"1" * 5_000 + b"]", "a number has too many digits"),
    ],
)
def test_bytes_that_are_not_json_are_told_apart(sent: bytes, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_json(sent)
    [error] = refused.value.errors()
    assert (error["type"], error["ctx"]) == ("json_invalid", {"error": reason})


# Whatever comes.

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
clean_text = st.text(max_size=8)  # no surrogates
clean_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | clean_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(clean_text, inner, max_size=4),
    max_leaves=12,
)
document_objects = st.builds(
    lambda text, rest: rest | {"text": text}, clean_text, st.dictionaries(clean_text, clean_json)
)


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


@given(st.lists(clean_text | document_objects, max_size=5))
def test_what_comes_back_is_what_was_sent(documents: list[Any]) -> None:
    results = answer("/v1/rerank", read_json(json.dumps(body(documents=documents)).encode()), [0.5] * len(documents))
    echoed = [result["document"] for result in results["results"]]
    sent = [{"text": one} if isinstance(one, str) else one for one in documents]
    assert json.dumps(echoed, sort_keys=True) == json.dumps(sent, sort_keys=True)  # == would take 1 for True and 1.0


@given(st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_either_json_or_refused_as_invalid(sent: bytes) -> None:
    with suppress(ValidationError):
        assert json.dumps(read_json(sent)) == json.dumps(json.loads(sent))


# What /docs shows.


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
