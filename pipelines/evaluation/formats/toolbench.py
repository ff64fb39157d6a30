"""ToolBench's retrieval: `corpus.tsv` {docid, document_content}, `SPLIT.query.txt` and `qrels.SPLIT.tsv`.

As https://github.com/OpenBMB/ToolBench/blob/master/toolbench/retrieval/data_preprocess.py writes them: an API stands
in the corpus as often as instructions name it, and so do instructions. Its text has the fields that
`process_retrieval_ducoment` (toolbench/utils.py) gives its retriever, in the same order.
"""

from __future__ import annotations

import json
from typing import Any

from .reading import Asked, Format, Source
from .writing import NewSet

FORMAT = Format(
    files="the folder data/retrieval/G1 (or G2, G3) of ToolBench's data (https://github.com/OpenBMB/ToolBench)",
    publisher="https://github.com/OpenBMB/ToolBench/blob/master/toolbench/retrieval/train.py",
    measure="recall@3",
    split="test",
    flags=("split", "queries", "qrels"),
)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a group of instructions; raises ConfigError."""
    for place, row in source.table(asked.qrels or source.file(f"qrels.{asked.split}.tsv"), 4):
        new.judge(place, row[0], row[2], row[3], may_repeat=True)
    for place, row in source.table(asked.queries or source.file(f"{asked.split}.query.txt"), 2):
        new.add_query(place, row[0], row[1], "en", may_repeat=True)
    for place, row in source.table(source.file("corpus.tsv"), 2):
        if place.line == 1 and row[0] == "docid":
            continue
        new.add_document(place, row[0], api_text(row[1]), may_repeat=True)


def api_text(content: str) -> str | None:
    """What an API is ranked by; None where its description is no JSON object."""
    try:
        api = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(api, dict):
        return None
    return joined(api)


def joined(api: dict[str, Any]) -> str:
    """The fields of an API in ToolBench's order."""
    named = ", ".join(
        str(api.get(name) or "") for name in ("category_name", "tool_name", "api_name", "api_description")
    )
    parts = {
        "required_params": "required_parameters",
        "optional_params": "optional_parameters",
        "return_schema": "template_response",
    }
    return named + "".join(f", {label}: {json.dumps(api.get(name, ''))}" for label, name in parts.items())
