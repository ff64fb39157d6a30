"""ToolBench's retrieval: `corpus.tsv` {docid, document_content}, `SPLIT.query.txt` and `qrels.SPLIT.tsv`.

As https://github.com/OpenBMB/ToolBench/blob/master/toolbench/retrieval/data_preprocess.py writes them: an API stands
in the corpus as often as instructions name it, and so do instructions. Its text has the fields that
`process_retrieval_ducoment` (toolbench/utils.py) gives its retriever, in the same order. The files of instructions
from which that script makes them (`G1_query.json`, `test_instruction/G1_instruction.json`) are read as it reads them:
all APIs that stand in the list of an instruction are relevant for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .reading import Asked, Format, Place, Source, opened, readable
from .writing import NewSet

FORMAT = Format(
    files="the folder data/retrieval/G1 (or G2, G3) of ToolBench's data (https://github.com/OpenBMB/ToolBench), or its "
    "files of instructions (G1_query.json, test_instruction/G1_instruction.json); --queries says which one asks",
    publisher="https://github.com/OpenBMB/ToolBench/blob/master/toolbench/retrieval/train.py",
    measure="recall@3",
    split="test",
    flags=("split", "queries", "qrels"),
)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a group of instructions; raises ConfigError."""
    if not source.files("corpus.tsv") and source.files("*.json"):
        read_instructions(source, asked, new)
        return
    for place, row in source.table(asked.qrels or source.file(f"qrels.{asked.split}.tsv"), 4):
        new.judge(place, row[0], row[2], row[3], may_repeat=True)
    for place, row in source.table(asked.queries or source.file(f"{asked.split}.query.txt"), 2):
        new.add_query(place, row[0], row[1], "en", may_repeat=True)
    for place, row in source.table(source.file("corpus.tsv"), 2):
        if place.line == 1 and row[0] == "docid":
            continue
        new.add_document(place, row[0], api_text(row[1]), may_repeat=True)


def read_instructions(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads files of instructions: the APIs of all are the corpus, and the instructions of --queries are asked."""
    if asked.qrels is not None:
        raise ConfigError("--qrels is given, and a file of instructions says itself what is relevant; leave it out")
    if asked.split != FORMAT.split:
        raise ConfigError(f"--split is {asked.split!r}, and a file of instructions has no splits; give --queries FILE")
    paths = dict.fromkeys(source.some("*.json", at_any_depth=True))
    if asked.queries is not None:
        paths |= {asked.queries: None}
    numbers: dict[str, str] = {}
    queries: dict[str, tuple[Place, str]] = {}
    apis: dict[str, tuple[Place, str]] = {}
    for path in paths:
        for place, texts, found in instructions(source, path):
            named = [numbers.setdefault(json.dumps(api), str(len(numbers) + 1)) for api in found]
            for number, api in zip(named, found, strict=True):
                apis.setdefault(number, (place, joined(api)))
            if asked.queries is None or path.samefile(asked.queries):
                for text in texts:
                    query = queries.setdefault(text, (place, str(len(queries) + 1)))[1]
                    for number in named:
                        new.judge(place, query, number, 1, may_repeat=True)
    for text, (place, query) in queries.items():
        new.add_query(place, query, text, "en")
    for number, (place, text) in apis.items():
        new.add_document(place, number, text)


def instructions(source: Source, path: Path) -> Iterator[tuple[Place, list[Any], list[Any]]]:
    """The place of each entry of a file, the ways in which it asks, and its APIs; raises ConfigError for no array."""
    with readable(path), opened(path) as file:
        try:
            entries = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is no JSON ({error})") from None
    if not isinstance(entries, list):
        raise ConfigError(f"{path} holds no array of instructions")
    for number, entry in enumerate(entries, 1):
        place = Place(path, number, "entry")
        found, asks = (entry.get("api_list"), entry.get("query")) if isinstance(entry, dict) else (None, None)
        texts = asks if isinstance(asks, list) else [asks]
        if not isinstance(found, list) or not found or not all(isinstance(api, dict) for api in found):
            source.note(place.problem("the instruction has no api_list of objects"))
        elif not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            source.note(place.problem("the instruction has no query"))
        else:
            yield place, texts, found


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
