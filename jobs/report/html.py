"""Makes HTML of parts. Text is escaped where it goes in, so that a document of a stranger's stays text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Inside = str | None
"""What goes into an element: Html as it is, other text escaped, None not at all."""
Attribute = str | int | float | bool | None
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What HTML does not allow, or UTF-8 cannot write."""


def element(name: str, *inside: Inside, **attributes: Attribute) -> Html:
    """An element. Attributes that are None or False are left out, and underscores in their names become hyphens.

    `class_` is `class`.
    """
    told = "".join(attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Html(f"<{name}{told}>{joined(inside)}</{name}>")


def attribute(name: str, value: Attribute) -> str:
    """An attribute with the space before it; nothing for None and False."""
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{as_html(f"{value:.6g}" if isinstance(value, float) else str(value))}"'


def joined(parts: Iterable[Inside]) -> Html:
    """The parts one after the other."""
    return Html("".join(as_html(part) for part in parts if part is not None))


def as_html(text: str) -> Html:
    """The text, escaped if it is no HTML."""
    return text if isinstance(text, Html) else Html(escape(UNPRINTABLE.sub("\ufffd", text)))


def paragraphs(*texts: Inside) -> Html:
    """A paragraph for each."""
    return joined(element("p", text) for text in texts if text)
