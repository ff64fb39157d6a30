"""SageMaker's dialect, and the route that it shares with Jina's."""

from __future__ import annotations

import pytest

from serve.schemas import InvocationRequest, RerankRequest, ScoreRequest, TeiRequest
from tests.serve.schemas.dialects import DIALECTS, answer, body, errors


def test_sagemakers_answer_has_the_form_of_its_question() -> None:
    plain = answer("/v1/rerank", body(), [0.1, 0.2, 0.3])
    assert answer("/invocations", body(), [0.1, 0.2, 0.3]) == plain
    assert answer("/invocations", {"data": body()}, [0.1, 0.2, 0.3]) == {
        "data": [{"usage": plain["usage"], "results": plain["results"]}],
        "parameters": {},
    }
    assert isinstance(DIALECTS["/invocations"].validate_python({"data": body()}), InvocationRequest)
    assert errors("/invocations", {"data": []}) == [(("data",), "model_type")]


def test_an_option_beside_the_data_is_not_passed_over() -> None:
    for option in ("raw_scores", "top_n", "top_k", "max_doc_length", "query"):
        assert errors("/invocations", {"data": body(), option: True}) == [((option,), "unsupported_parameter")]
    answer("/invocations", {"data": body(), "parameters": {}, "top_n": None}, [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("sent", "dialect"),
    [
        ({"data": body(), "texts": []}, InvocationRequest),
        ({"query": "q", "texts": ["a"], "queries": "q"}, TeiRequest),
        ({"text_1": "q", "text_2": "a"}, ScoreRequest),
        ({"data_1": "q", "data_2": "a"}, ScoreRequest),
        ({"queries": "q", "documents": "a"}, ScoreRequest),
        (body(), RerankRequest),
    ],
)
def test_a_body_is_of_the_dialect_whose_fields_it_has(sent: object, dialect: type) -> None:
    assert type(DIALECTS["/invocations"].validate_python(sent)) is dialect
