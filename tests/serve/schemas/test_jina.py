"""Jina's dialect: the form of its answers, the digits of its scores, the ids of its streams."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.records import Usage
from serve.schemas import RerankRequest, Served
from tests.serve.schemas.dialects import answer, body, errors, ranking_of

EXAMPLES = json.loads((Path(__file__).parents[2] / "data" / "announcement_examples.json").read_text(encoding="utf-8"))


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


def test_different_float32_scores_stay_different_on_the_wire() -> None:
    bits = np.float32(0.7).view(np.uint32) + np.arange(1_000, dtype=np.uint32)
    scores = bits.view(np.float32).tolist()
    results = answer("/v1/rerank", body(documents=["a"] * len(scores)), scores)["results"]
    assert [np.float32(result["relevance_score"]) for result in results] == sorted(bits.view(np.float32), reverse=True)


@pytest.mark.parametrize("value", [math.nan, ["\ud800"]])
def test_an_id_that_cannot_be_sent_back_is_refused(value: Any) -> None:
    assert [field for field, _ in errors("/v1/rerank/stream", body(id=value))] == [("id",)]
