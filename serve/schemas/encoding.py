"""JSON from bytes, and a stream's lines to bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from serve.schemas.values import check_echo

LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What ends a line beside \\n for `str.splitlines`, and so for httpx; JSON escapes the ASCII ones by itself."""


MAX_DIGITS = 1000
"""Of a whole number: the time that it takes to read one grows with the square of its digits."""
COUNTED_AT_ONCE = 1 << 20
"""Bytes that `count_values` looks at in one step: its arrays are some times as large."""


def parse_json(body: bytes) -> Any:
    """The JSON value in `body`, whatever its content type says.

    Raises pydantic's ValidationError of type `json_invalid`, as FastAPI does for bodies that it reads itself.
    """
    try:
        return json.loads(body.decode("utf-8-sig"), parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        reason = why_not_json(error)
        details = {"type": "json_invalid", "loc": (), "input": None, "ctx": {"error": reason}}
        raise ValidationError.from_exception_data("body", [details]) from None  # type: ignore[list-item]


def whole_number(digits: str) -> int:
    """The number; raises ValueError for one of more than MAX_DIGITS."""
    if len(digits) > MAX_DIGITS:
        raise ValueError
    return int(digits)


def count_values(body: bytes) -> int:
    """An upper bound of the values in a JSON text, keys not counted, in little time and memory whatever the text is.

    Every value but the outermost one comes after a comma or an opening bracket that is not in a string.
    """
    values, start, inside = 1, 0, False
    while start < len(body):
        chunk = np.frombuffer(body, np.uint8, min(COUNTED_AT_ONCE, len(body) - start), start)
        start += len(chunk)
        quotes = chunk == ord('"')
        backslashes = np.flatnonzero(chunk == ord("\\"))
        if len(backslashes):
            escaping = backslashes[every_other(backslashes)]
            quotes[escaping[escaping < len(chunk) - 1] + 1] = False
            start += int(escaping[-1] == len(chunk) - 1)  # what it escapes is the first byte after the chunk
        outside = np.logical_xor.accumulate(quotes) == inside
        separators = (chunk == ord(",")) | (chunk == ord("[")) | (chunk == ord("{"))
        values += int(np.count_nonzero(separators & outside))
        inside = not outside[-1]
    return values


def every_other(positions: np.ndarray) -> np.ndarray:
    """Of each run of neighbouring positions the first, the third, ...; bool [positions]."""
    index = np.arange(len(positions))
    starts = np.where(np.diff(positions, prepend=-2) != 1, index, 0)
    result: np.ndarray = (index - np.maximum.accumulate(starts)) % 2 == 0
    return result


def why_not_json(error: BaseException) -> str:
    """What was wrong with a body, by the error that reading it raised; repeats nothing of the body."""
    match error:
        case UnicodeDecodeError():
            return f"not UTF-8 at byte {error.start}"
        case json.JSONDecodeError():
            return f"{error.msg} at character {error.pos}"
        case RecursionError():
            return "nested too deeply"
        case _:
            return "a number has too many digits"


def stream_line(line: int, line_id: Any, content: Mapping[str, Any]) -> bytes:
    """A line out: `content` is the answer to the `line`-th line in (from 1), or `{"error": {...}}`."""
    numbered = {"id": line_id, "line": line, **content}
    text = json.dumps(numbered, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(LINE_ENDS).encode() + b"\n"


def sent_id(value: Any) -> Any:
    """The `id` of a line that is no valid request, as far as it can be sent back; else None."""
    try:
        return check_echo(value.get("id")) if isinstance(value, dict) else None
    except PydanticCustomError:
        return None
