"""Bytes are JSON or refused with the reason; a stream's answer is one line, under the caller's id."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.schemas import StreamRequest, count_values, parse_json, sent_id, stream_line
from serve.schemas.encoding import COUNTED_AT_ONCE, MAX_DIGITS
from tests.serve.schemas.dialects import SERVED, anything, body, ranking_of


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


def test_json_is_read_with_and_without_a_mark() -> None:
    body = '{"query": "é"}'.encode()
    assert parse_json(body) == parse_json(b"\xef\xbb\xbf" + body) == {"query": "é"}


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
        parse_json(sent)
    [error] = refused.value.errors()
    assert (error["type"], error["ctx"]) == ("json_invalid", {"error": reason})


@given(st.binary() | anything.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_either_json_or_refused_as_invalid(sent: bytes) -> None:
    with suppress(ValidationError):
        assert json.dumps(parse_json(sent)) == json.dumps(json.loads(sent))


def values_in(value: Any) -> int:
    """The values in a JSON value, and one more for each container that is empty."""
    inside = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else None
    if inside is None:
        return 1
    return 1 + (sum(map(values_in, inside)) if inside else 1)


tricky = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('\\",[{:a\n\u00e9'), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.sampled_from('\\",[{'), max_size=3), inner),
    max_leaves=20,
)


@given(tricky)
def test_the_values_of_a_body_are_counted_before_it_is_read(value: Any) -> None:
    assert count_values(json.dumps(value).encode()) == values_in(value)


@pytest.mark.parametrize("shift", range(6))
def test_they_are_counted_across_the_pieces_that_are_looked_at(shift: int) -> None:
    """Backslashes, which escape each other or a quote, lie where one piece ends and the next begins."""
    value = ["a" * (COUNTED_AT_ONCE - 5 + shift) + '\\\\\\",[{', 1, "\\" * (2 * COUNTED_AT_ONCE + shift), ["[", {}]]
    assert count_values(json.dumps(value).encode()) == values_in(value)


def test_a_number_with_too_many_digits_is_no_json() -> None:
    assert parse_json(b"1" * MAX_DIGITS) == int("1" * MAX_DIGITS)
    with pytest.raises(ValidationError, match="too many digits"):
        parse_json(b"[" + b"1" * (MAX_DIGITS + 1) + b"]")
