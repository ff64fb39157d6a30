"""BEIR: `corpus.jsonl` {_id, title, text}, `queries.jsonl` {_id, text} and `qrels/SPLIT.tsv` under a header.

As https://github.com/beir-cellar/beir/blob/main/beir/datasets/data_loader.py reads them: only the queries that the
split judges belong to it.
"""

from __future__ import annotations

from .reading import Asked, Format, Source, one_language, with_title
from .trec_lines import read_qrels
from .writing import NewSet

FORMAT = Format(
    files="the folder of an unpacked dataset (https://github.com/beir-cellar/beir, section Available Datasets)",
    publisher="https://github.com/beir-cellar/beir/blob/main/beir/datasets/data_loader.py",
    measure="nDCG@10",
    split="test",
    flags=("split", "languages", "queries", "qrels"),
    ignores_identical_ids=True,
)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a dataset; raises ConfigError."""
    language = one_language(asked, "en")
    read_qrels(source, asked.qrels or source.file(f"qrels/{asked.split}.tsv"), new)
    for place, row in source.objects(asked.queries or source.file("queries.jsonl")):
        new.add_query(place, row.get("_id"), row.get("text"), language)
    for place, row in source.objects(source.file("corpus.jsonl")):
        new.add_document(place, row.get("_id"), with_title(row.get("title"), row.get("text")))
