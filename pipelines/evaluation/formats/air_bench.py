"""AIR-Bench: `corpus.jsonl` and `SPLIT_queries.jsonl` {id, text}, and `SPLIT_qrels.jsonl` {qid, docid, relevance}.

The judgements lie in a repository of their own. As the benchmark's own loader reads them:
https://github.com/AIR-Bench/AIR-Bench/blob/main/air_benchmark/evaluation_utils/data_loader.py
"""

from __future__ import annotations

import re

from .reading import Asked, Format, Source, one_language
from .writing import NewSet

FORMAT = Format(
    files="the folders of a dataset and of its judgements, such as AIR-Bench_24.05/default of "
    "https://huggingface.co/datasets/AIR-Bench/qa_wiki_en and of .../qrels-qa_wiki_en-dev",
    publisher="https://github.com/AIR-Bench/AIR-Bench/blob/main/air_benchmark/evaluation_utils/data_loader.py",
    measure="nDCG@10",
    split="dev",
    flags=("split", "languages", "queries", "qrels"),
    languages=("ar", "bn", "de", "en", "es", "fa", "fr", "hi", "id", "ja", "ko", "ru", "zh"),
    ignores_identical_ids=True,
)
NAME = re.compile(r"^(?:qrels-)?(?:qa|long-doc)_[a-z]+_([a-z]{2})(?:-\w+)?$")
"""What the publisher calls a dataset: task, domain and language."""


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a dataset; raises ConfigError."""
    language = one_language(asked, language_of(source))
    for place, row in source.objects(asked.qrels or source.file(f"{asked.split}_qrels.jsonl")):
        new.judge(place, row.get("qid"), row.get("docid"), row.get("relevance"))
    for place, row in source.objects(asked.queries or source.file(f"{asked.split}_queries.jsonl")):
        new.add_query(place, row.get("id"), row.get("text"), language)
    for place, row in source.objects(source.file("corpus.jsonl")):
        new.add_document(place, row.get("id"), row.get("text"))


def language_of(source: Source) -> str | None:
    """The language in the name of a dataset, where its folder still has that name."""
    names = [part for path in source.paths for part in path.absolute().parts]
    found = {match[1] for name in names if (match := NAME.match(name)) and match[1] in FORMAT.languages}
    return found.pop() if len(found) == 1 else None
