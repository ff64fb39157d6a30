"""Cohere's dialect: the form of its answers, and what it bills."""

from __future__ import annotations

import pytest

from pipelines.records import Usage
from serve.schemas import CohereRequest
from tests.serve.schemas.dialects import SERVED, answer, body, ranking_of


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
