"""JSON from bytes, and a stream's lines to bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from serve.schemas.values import check_echo

LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""What ends a line beside \\n for `str.splitlines`, and so for httpx; JSON escapes the ASCII ones by itself."""


def parse_json(body: bytes) -> Any:
    """The JSON value in `body`, whatever its content type says.

    Raises pydantic's ValidationError of type `json_invalid`, as FastAPI does for bodies that it reads itself.
    """
    try:
        return json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = why_not_json(error)
        details = {"type": "json_invalid", "loc": (), "input": None, "ctx": {"error": reason}}
        raise ValidationError.from_exception_data("body", [details]) from None  # type: ignore[list-item]


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
