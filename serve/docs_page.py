"""/docs: the routes and their fields as one page of plain HTML, made from the app's OpenAPI description.

FastAPI's own page loads scripts from elsewhere, and would run them where the page of the server keeps its key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Crossray: routes</title>
<link rel="stylesheet" href="page/style.css">
<main>
<h1>Routes</h1>
<p>For programs: <a href="openapi.json">openapi.json</a>.</p>
"""


def render(api: Mapping[str, Any]) -> str:
    """The page for an OpenAPI description."""
    routes = [
        part
        for path, methods in api["paths"].items()
        for method, route in methods.items()
        for part in route_section(method.upper(), path, route)
    ]
    schemas = [part for name, schema in api["components"]["schemas"].items() for part in schema_section(name, schema)]
    return "".join([HEAD, *routes, "<h1>Bodies</h1>\n", *schemas, "</main>\n</html>\n"])


def route_section(method: str, path: str, route: Mapping[str, Any]) -> Iterator[str]:
    """What a route takes and answers."""
    yield f"<h2>{method} {escape(path)}</h2>\n<p>{escape(route.get('description', ''))}</p>\n<ul>\n"
    for content in route.get("requestBody", {}).get("content", {}).values():
        yield f"<li>body: {type_of(content.get('schema', {}))}</li>\n"
        for dialect, example in content.get("examples", {}).items():
            value = example["value"]
            body = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"<li>such as ({escape(dialect)}): <code>{escape(body)}</code></li>\n"
    for status, answer in route["responses"].items():
        bodies = [type_of(one["schema"]) for one in answer.get("content", {}).values() if "schema" in one]
        yield f"<li>{escape(status)}: {' or '.join([*bodies, escape(answer['description'])])}</li>\n"
    yield "</ul>\n"


def schema_section(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a body."""
    yield f'<h2 id="{escape(name)}">{escape(name)}</h2>\n<p>{escape(schema.get("description", ""))}</p>\n<ul>\n'
    required = schema.get("required", ())
    for field, kind in schema.get("properties", {}).items():
        notes = [kind.get("description", "")]
        if field in required:
            notes.append("Required.")
        elif kind.get("default") is not None:
            notes.append(f"By default {kind['default']!r}.")
        said = " ".join(note for note in notes if note)
        yield f"<li><code>{escape(field)}</code> ({type_of(kind)}) {escape(said)}</li>\n"
    yield "</ul>\n"


def type_of(schema: Mapping[str, Any]) -> str:
    """A type in words; named bodies are links."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(type_of(one) for one in several)
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return escape(str(schema.get("const", schema.get("type", "any"))))
