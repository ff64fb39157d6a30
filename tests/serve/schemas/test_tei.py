"""TEI's dialect, and the route that it shares with Jina's."""

from __future__ import annotations

from serve.schemas import TeiRequest
from tests.serve.schemas.dialects import DIALECTS, answer, body, errors


def test_teis_answer_is_an_array() -> None:
    sent = {"query": "q", "texts": ["a", "b"]}
    assert answer("/rerank", sent, [0.25, 0.75]) == [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.25}]
    assert answer("/rerank", sent | {"return_text": True, "top_n": 1}, [0.25, 0.75]) == [
        {"index": 1, "score": 0.75, "text": "b"}
    ]


def test_the_plain_route_answers_in_the_dialect_that_was_sent() -> None:
    plain = answer("/v1/rerank", body(), [0.1, 0.2, 0.3])
    assert answer("/rerank", body(), [0.1, 0.2, 0.3]) == {"id": "0123", **plain}  # vLLM's has one
    assert isinstance(DIALECTS["/rerank"].validate_python({"query": "q", "texts": ["a"]}), TeiRequest)
    assert errors("/rerank", {"query": "q", "texts": ["a", None]}) == [(("texts", 1), "document_type")]
