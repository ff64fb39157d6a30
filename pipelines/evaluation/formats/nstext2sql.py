"""NSText2SQL: lines {instruction, output, source}; a question is to find the schema that it is asked of.

An instruction has the CREATE TABLE statements of a database, a line that asks for SQL, and the question after `-- `, as
https://github.com/NumbersStationAI/NSQL/blob/main/data_prep/prompt_formatters.py writes it. The publisher shuffles the
tables, so a schema is the set of its statements, whatever their order: one document for each.
"""

from __future__ import annotations

import re

from .reading import Asked, Format, Source
from .writing import NewSet

FORMAT = Format(
    files="train.jsonl of https://huggingface.co/datasets/NumbersStation/NSText2SQL; with --part spider the rows of "
    "that `source` alone",
    publisher="https://github.com/NumbersStationAI/NSQL/blob/main/data_prep/prompt_formatters.py",
    measure="recall@3",
    flags=("part",),
)
REQUEST = re.compile(r"^-- Using valid [^\n]*answer the following questions[^\n]*$", re.MULTILINE)
STATEMENT = re.compile(r"(?=^CREATE TABLE\b)", re.MULTILINE)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads the rows of a source, or all; raises ConfigError."""
    schemas: dict[str, str] = {}
    for place, row in source.objects(source.file("*.jsonl")):
        if asked.part is not None and row.get("source") != asked.part:
            new.by_rule["rows of other sources"] += 1
            continue
        schema, question = parts_of(row.get("instruction"))
        if not schema or not question:
            source.note(place.problem("`instruction` has no CREATE TABLE statement, or no question after the request"))
            continue
        if schema not in schemas:
            schemas[schema] = f"schema-{len(schemas) + 1}"
            new.add_document(place, schemas[schema], schema)
        query = f"row-{place.line}"
        new.judge(place, query, schemas[schema], 1)
        new.add_query(place, query, question, "en")


def parts_of(instruction: object) -> tuple[str, str]:
    """The schema, its statements in the order of the alphabet, and the question."""
    found = REQUEST.search(instruction) if isinstance(instruction, str) else None
    if found is None:
        return "", ""
    statements = {one.strip() for one in STATEMENT.split(found.string[: found.start()])}
    schema = "\n\n".join(sorted(one for one in statements if one.startswith("CREATE TABLE")))
    return schema, found.string[found.end() :].strip().removeprefix("--").strip()
