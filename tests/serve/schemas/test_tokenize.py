"""`/tokenize`: the tokens that a text has, in TEI's form and in vLLM's."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serve.schemas import MAX_DOCUMENTS, PlainTokenizeRequest
from tests.serve.conftest import StartServer


def test_teis_form(start_server: StartServer) -> None:
    """A list for each text; a token's place is in bytes, a special one has none."""
    server = start_server()
    tokenizer = server.endpoint.preparation.tokenizer.tokenizer
    first, last = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    apple = {"id": tokenizer.token_to_id("apple"), "text": "apple", "special": False}
    cls: dict[str, Any] = {"id": first, "text": "[CLS]", "special": True, "start": None, "stop": None}
    sep = cls | {"id": last, "text": "[SEP]"}

    answer = server.post("/tokenize", {"inputs": ["apple", "é apple"]}).json()

    assert answer[0] == [cls, apple | {"start": 0, "stop": 5}, sep]
    assert answer[1][-2] == apple | {"start": 3, "stop": 8}
    assert server.post("/tokenize", {"inputs": "apple"}).json() == answer[:1]
    assert server.post("/tokenize", {"inputs": "apple", "add_special_tokens": False}).json() == [answer[0][1:2]]


def test_vllms_form(start_server: StartServer) -> None:
    server = start_server()
    tokenizer = server.endpoint.preparation.tokenizer.tokenizer
    ids = [tokenizer.token_to_id(name) for name in ("[CLS]", "apple", "bread", "[SEP]")]

    answer = server.post("/tokenize", {"model": "m", "prompt": "apple bread"}).json()

    assert answer == {"count": 4, "max_model_len": 512, "tokens": ids, "token_strs": None}
    assert server.post("/tokenize", {"prompt": "apple bread", "inputs": None}).json() == answer
    named = server.post("/tokenize", {"prompt": "apple bread", "return_token_strs": True}).json()
    assert named["token_strs"] == ["[CLS]", "apple", "bread", "[SEP]"]
    bare = server.post("/tokenize", {"prompt": "apple bread", "add_special_tokens": False}).json()
    assert (bare["count"], bare["tokens"]) == (2, ids[1:3])


def test_the_tokens_are_those_that_usage_counts(start_server: StartServer) -> None:
    server = start_server()
    texts = ["apple bread", "candle", ""]
    counted = sum(len(tokens) for tokens in server.post("/tokenize", {"inputs": texts}).json())
    usage = server.post("/v1/rerank", {"query": texts[0], "documents": texts[1:]}).json()["usage"]
    assert usage["total_tokens"] == counted


def test_more_text_than_an_answer_has_room_for_is_a_413(start_server: StartServer) -> None:
    response = start_server().post("/tokenize", {"inputs": ["a " * 70_000, "b " * 70_000]})
    assert (response.status_code, response.json()["detail"]["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("sent", "field", "kind"),
    [
        ({}, "prompt", "missing"),
        ({"prompt": ["a"]}, "prompt", "string_type"),
        ({"inputs": []}, "inputs", "too_short"),
        ({"inputs": ["a", 1, 2]}, 1, "string_type"),
        ({"inputs": ["a"] * 4}, "inputs", "too_many_documents"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages", "unsupported_parameter"),
        ({"inputs": "a", "prompt": "b"}, "inputs", "contradiction"),
        ({"prompt": "a", "add_special_tokens": 0}, "add_special_tokens", "bool_type"),
        ({"inputs": "a", "prompt_name": "query"}, "prompt_name", "unsupported_parameter"),
    ],
)
def test_what_is_no_text_is_refused_with_its_field(sent: Any, field: str | int, kind: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(PlainTokenizeRequest).validate_python(sent, context={MAX_DOCUMENTS: 3})
    [error] = refused.value.errors()
    assert (error["loc"][-1], error["type"]) == (field, kind)
