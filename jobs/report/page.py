"""The frame of a report: one HTML file that needs nothing else, neither a network nor a script that it does not hold.

A policy in its head (Content-Security-Policy) lets the browser take only the style and the script that stand here, by
their hashes. So there are no `style` attributes, and text that got in unescaped would still run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jobs.report.html import Html, Inside, as_html, element, joined


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report with a heading of its own, which the contents list."""

    title: str
    body: Html


def page(title: str, sections: Sequence[Section], lede: Inside = None, footer: Inside = None) -> str:
    """The report as the text of an HTML file; `lede` stands below the title, and is what people read first."""
    style, script = asset("style.css"), asset("page.js")
    policy = (
        f"default-src 'none'; style-src {source_hash(style)}; script-src {source_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    names = [anchor(number, section.title) for number, section in enumerate(sections, 1)]
    contents = [
        element("li", element("a", section.title, href=f"#{name}"))
        for name, section in zip(names, sections, strict=True)
    ]
    parts = [
        element("section", element("h2", section.title, id=f"{name}-title"), section.body, id=name)
        for name, section in zip(names, sections, strict=True)
    ]
    header = joined(
        [
            element("p", "Crossray", class_="name"),
            element("h1", title),
            None if lede is None else element("div", lede, class_="lede"),
            element("nav", element("ul", *contents), aria_label="Contents") if len(contents) > 1 else None,
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{as_html(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
{element("header", header)}
{element("main", *parts)}
{element("footer", footer) if footer else ""}
<script>{script}</script>
</body>
</html>
"""


def asset(name: str) -> str:
    """The text of a file beside this module."""
    return files("jobs.report").joinpath(name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """What a policy calls an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def anchor(number: int, title: str) -> str:
    """The name of a section in links; no two have the same."""
    return f"{re.sub(r'[^a-z]+', '-', title.lower()).strip('-') or 'part'}-{number}"
