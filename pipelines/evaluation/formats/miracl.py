"""MIRACL: topics {qid, query} in a table, judgements in TREC's four columns, and passages {docid, title, text}.

Files as https://github.com/project-miracl/miracl describes them: `topics.miracl-v1.0-LANGUAGE-SPLIT.tsv`,
`qrels.miracl-v1.0-LANGUAGE-SPLIT.tsv` and `docs-*.jsonl.gz`. Title and text are joined as BEIR joins them.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError
from .reading import Asked, Format, Source, one_language, with_title
from .trec_lines import read_qrels
from .writing import NewSet

FORMAT = Format(
    files="the folders miracl-v1.0-LANGUAGE of https://huggingface.co/datasets/miracl/miracl and "
    "miracl-corpus-v1.0-LANGUAGE of https://huggingface.co/datasets/miracl/miracl-corpus",
    publisher="https://github.com/project-miracl/miracl",
    measure="nDCG@10",
    split="dev",
    flags=("split", "languages", "queries", "qrels"),
    languages=(
        "ar",
        "bn",
        "de",
        "en",
        "es",
        "fa",
        "fi",
        "fr",
        "hi",
        "id",
        "ja",
        "ko",
        "ru",
        "sw",
        "te",
        "th",
        "yo",
        "zh",
    ),
)


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a language; raises ConfigError."""
    told = one_language(asked, None) or "*"
    topics = asked.queries or source.file(f"topics.miracl-v1.0-{told}-{asked.split}.tsv")
    language = told if told != "*" else language_of(topics)
    read_qrels(source, asked.qrels or source.file(f"qrels.miracl-v1.0-{language}-{asked.split}.tsv"), new)
    for place, line in source.lines(topics):
        query, tab, text = line.partition("\t")
        if tab:
            new.add_query(place, query, text, language)
        else:
            source.note(place.problem("has no tab; a topic is an id, a tab and the query"))
    for path in source.some("docs-*.jsonl"):
        for place, row in source.objects(path):
            new.add_document(place, row.get("docid"), with_title(row.get("title"), row.get("text")))


def language_of(topics: Path) -> str:
    """The language in the name of the file; raises ConfigError where there is none of MIRACL's."""
    for language in FORMAT.languages:
        if f"-{language}-" in topics.name:
            return language
    raise ConfigError(f"{topics.name} names no language of MIRACL; give --language, {', '.join(FORMAT.languages)}")
