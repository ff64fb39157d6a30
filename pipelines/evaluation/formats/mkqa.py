"""MKQA: lines {example_id, queries: {language: question}, answers: {language: [{type, text, aliases}]}}.

As https://github.com/apple/ml-mkqa describes them. The questions are asked of a corpus in one language, which is
BEIR's Natural Questions in the field's evaluations (https://github.com/FlagOpen/FlagEmbedding, C_MTEB/MKQA). They leave
out questions without an answer, those of yes and no, and those with long answers, and so does this reader. Without
judgements a document is relevant if an answer or an alias, in the documents' own language, stands in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import ConfigError
from ..answers import normalized
from ..sets import is_text
from .reading import Asked, Format, Source, with_title
from .trec_lines import read_qrels
from .writing import NewSet, as_id

CODES = "ar da de en es fi fr he hu it ja km ko ms nl no pl pt ru sv th tr vi zh_cn zh_hk zh_tw"
FORMAT = Format(
    files="dataset/mkqa.jsonl.gz of https://github.com/apple/ml-mkqa, and the folder of a corpus in BEIR's layout, "
    "such as nq; with --qrels FILE any corpus that it judges",
    publisher="https://github.com/apple/ml-mkqa",
    measure="recall@10",
    flags=("languages", "qrels", "document_language"),
    languages=tuple(CODES.split()),
)
BY_ANSWERS = "Success@10"
"""What the field calls MKQA's recall@10: the part of the questions with an answer among the first ten documents."""
NO_SHORT_ANSWER = ("unanswerable", "binary", "long_answer")
"""Types of answers whose questions the field leaves out."""


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads the questions in the languages that are asked for; raises ConfigError."""
    if asked.qrels is not None and asked.document_language is not None:
        raise ConfigError("--document-language says which answers are looked for, and with --qrels none are")
    spoken = asked.document_language or "en"
    if spoken not in FORMAT.languages:
        raise ConfigError(f"--document-language is {spoken!r}; it is one of {', '.join(FORMAT.languages)}")
    if asked.qrels is not None:
        read_qrels(source, asked.qrels, new)
    else:
        new.about |= {"measure": BY_ANSWERS, "document_language": spoken}
    for place, row in source.objects(source.file("*mkqa*.jsonl")):
        queries, one = row.get("queries"), as_id(row.get("example_id"))
        if one is None or not isinstance(queries, dict) or not isinstance(row.get("answers"), dict):
            source.note(place.problem("has no `example_id`, or no `queries` or `answers` by language"))
            continue
        for language in [code for code in queries if code not in FORMAT.languages]:
            known = ", ".join(FORMAT.languages)
            source.note(place.problem(f"the language code {language!r} is none of MKQA's ({known})"))
        answers = list(accepted(row["answers"].get(spoken)))
        if asked.qrels is None and not any(normalized(answer, spoken) for answer in answers):
            new.by_rule["questions without a short answer"] += 1
            continue
        names = {language: f"{language}:{one}" for language in asked.languages or FORMAT.languages}
        new.rename(one, names.values())
        for language, query in names.items():
            new.add_query(place, query, queries.get(language), language, answers if asked.qrels is None else None)
    for place, row in source.objects(source.file("corpus.jsonl")):
        new.add_document(place, row.get("_id"), with_title(row.get("title"), row.get("text")))


def accepted(answers: Any) -> Iterator[str]:
    """The answers and their aliases, but for those that are not short."""
    for answer in answers if isinstance(answers, list) else ():
        if not isinstance(answer, dict) or answer.get("type") in NO_SHORT_ANSWER:
            continue
        aliases = answer.get("aliases")
        for text in [answer.get("text"), *(aliases if isinstance(aliases, list) else ())]:
            if is_text(text) and text.strip():
                yield text
