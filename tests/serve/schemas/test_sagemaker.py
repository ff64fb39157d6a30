"""SageMaker's dialect, and the route that it shares with Jina's."""

from __future__ import annotations

import pytest

from serve.schemas import InvocationRequest, RerankRequest, ScoreRequest, TeiRequest
from tests.serve.schemas.dialects import DIALECTS, answer, body, errors, task_of


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
    ("sent", "dialect"),
    [
        ({"data": body(), "texts": None}, InvocationRequest),
        ({"query": "q", "texts": ["a"], "queries": "q"}, TeiRequest),
        ({"text_1": "q", "text_2": "a"}, ScoreRequest),
        ({"data_1": "q", "data_2": "a"}, ScoreRequest),
        ({"queries": "q", "documents": "a"}, ScoreRequest),
        (body(), RerankRequest),
    ],
)
def test_a_body_is_of_the_dialect_whose_fields_it_has(sent: object, dialect: type) -> None:
    assert type(DIALECTS["/invocations"].validate_python(sent)) is dialect


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("raw_scores", True),
        ("top_n", 2),
        ("top_k", 2),
        ("return_documents", False),
        ("model", "m"),
        ("texts", []),
        ("softmax", False),
        ("truncation_side", "left"),
        ("parameters", {"top_n": 2}),
    ],
)
def test_what_stands_beside_data_is_refused_with_its_name(name: str, value: object) -> None:
    """Jina's client puts everything inside; there it is honoured."""
    sent = {"data": body(), name: value}
    assert errors("/invocations", sent) == [((name,), "unsupported_parameter")]


def test_what_asks_for_nothing_may_stand_beside_data() -> None:
    sent = {"data": body(top_n=2), "parameters": {}, "top_n": None, "custom": 1}
    assert task_of(DIALECTS["/invocations"].validate_python(sent)).top_n == 2
