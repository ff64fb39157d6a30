"""What test_fuzz.py adds to schemathesis, which imports this module."""

from __future__ import annotations

import json
from typing import Any

import schemathesis

BEYOND_SCHEMA = {"blank_query", "contradiction", "lengths_differ", "too_few_tokens", "uncalibrated"}
"""Why a request may be refused that fits the schema: JSON Schema has no words for these."""
IN_WORDS = (
    "nothing but white space",
    "mean the same",
    "says the opposite",
    "or at least",
    "is not supported here",
    "not calibrated",
)
"""The same in the words of the message."""


@schemathesis.check
def refused_for_a_reason(ctx: Any, response: Any, case: Any) -> None:
    """In place of positive_data_acceptance, which wants everything taken that fits the schema."""
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code == 422:
        reasons = {error["type"] for error in response.json()["errors"]}
        assert reasons <= BEYOND_SCHEMA, f"fits the schema, but: {response.text}"


@schemathesis.check
def queries_refused_for_a_reason(ctx: Any, response: Any, case: Any) -> None:
    """The same of one of several queries, whose error has words and no type."""
    if case.operation.path != "/v1/rerank":
        return
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code == 200:
        for one in response.json().get("responses", []):
            assert "results" in one or any(words in one["detail"] for words in IN_WORDS), f"fits the schema, but: {one}"


@schemathesis.serializer("application/x-ndjson")
def as_lines(ctx: Any, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()
