"""TREC collections: documents, topics, judgements in four columns and, if there is one, a run in six.

Documents are marked up (`<DOC> <DOCNO> <TEXT> ...`) or one JSON object a line; topics are marked up (`<top> <num>
<title>`), XML (`<topics> <topic number="1"> <query>`, as TREC-COVID has them) or a table of ids and texts. As
https://github.com/allenai/ir_datasets/blob/master/ir_datasets/formats/trec.py reads them: a marked-up document is what
stands within the tags that Anserini takes, and a topic is its title or query.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from ...errors import ConfigError
from .reading import Asked, Format, Place, Source, one_language, with_title
from .trec_lines import read_qrels
from .writing import NewSet

FORMAT = Format(
    files="files or folders of documents (TREC's markup or JSON lines), with --queries TOPICS --qrels FILE and, if "
    "there is a first stage, --run FILE (https://trec.nist.gov/data.html)",
    publisher="https://github.com/allenai/ir_datasets/blob/master/ir_datasets/formats/trec.py",
    measure="nDCG@10",
    flags=("languages", "queries", "qrels"),
)
TEXT_TAGS = "TEXT HEADLINE TITLE HL HEAD TTL DD DATE LP LEADPARA"
"""What Anserini's TrecCollection takes."""
WITHIN = re.compile(rf"<({'|'.join(TEXT_TAGS.split())})>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"<[^<>]*>")
NUMBER = re.compile(r"<DOCNO>\s*(\S+)\s*</DOCNO>", re.IGNORECASE)
TOPIC_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*(\S+)", re.IGNORECASE)
TITLE = re.compile(r"<title>\s*(?:Topic:)?([^<]*)", re.IGNORECASE)
IDS, TEXTS = ("id", "_id", "docid", "doc_id", "docno"), ("text", "contents", "body")
"""What fields of JSON documents are called by those who publish them for Anserini, ir_datasets and BEIR."""


def read(source: Source, asked: Asked, new: NewSet) -> None:
    """Reads a collection; raises ConfigError."""
    if asked.queries is None or asked.qrels is None:
        raise ConfigError("a TREC collection needs --queries TOPICS and --qrels FILE beside its documents")
    language = one_language(asked, None)
    read_qrels(source, asked.qrels, new)
    for place, query, text in topics(source, asked.queries):
        new.add_query(place, query, text, language)
    for path in source.some("*", at_any_depth=True):
        if path.name.removesuffix(".gz").endswith((".jsonl", ".json")):
            for place, row in source.objects(path):
                new.add_document(place, first_of(row, IDS), with_title(row.get("title"), first_of(row, TEXTS)))
        else:
            for place, markup in marked_up(source, path, "doc"):
                add_marked_up(source, place, markup, new)


def topics(source: Source, path: Path) -> Iterator[tuple[Place, str, str]]:
    """Place, id and text of each topic."""
    beginning = "".join(line for _, line in islice(source.lines(path, "replace"), 20)).lower()
    if "<topics" in beginning or "<topic " in beginning:
        yield from xml_topics(source, path)
        return
    if "<top>" in beginning:
        for place, markup in marked_up(source, path, "top"):
            number, title = TOPIC_NUMBER.search(markup), TITLE.search(markup)
            if number is None or title is None:
                source.note(place.problem("the topic has no <num> or no <title>"))
            else:
                yield place, number[1], " ".join(html.unescape(title[1]).split())
        return
    for place, line in source.lines(path):
        query, tab, text = line.partition("\t")
        if tab:
            yield place, query, text
        else:
            source.note(place.problem("has no tab; a topic is an id, a tab and the query"))


def xml_topics(source: Source, path: Path) -> Iterator[tuple[Place, str, str]]:
    """Place, id and text of each `<topic number="...">`: its title, else its query, else its own text."""
    parser: XMLPullParser[Any] = XMLPullParser()
    try:
        for place, line in source.lines(path, blank=True):
            parser.feed(f"{line}\n")
            for _, element in cast(Iterator[tuple[str, Element]], parser.read_events()):
                if element.tag == "topic":
                    number, text = element.get("number"), topic_text(element)
                    if number is None or not text:
                        source.note(place.problem("the topic that ends here has no number, or no title or query"))
                    else:
                        yield place, number.strip(), text
        parser.close()
    except ParseError as error:
        raise ConfigError(f"{path} is no XML: {error}") from None


def topic_text(topic: Element) -> str:
    """What is asked; empty where a topic has other fields alone."""
    for name in ("title", "query"):
        if (found := topic.find(name)) is not None:
            return " ".join("".join(found.itertext()).split())
    return " ".join((topic.text or "").split()) if not len(topic) else ""


def marked_up(source: Source, path: Path, tag: str) -> Iterator[tuple[Place, str]]:
    """What stands between `<tag>` and `</tag>`, each on a line of its own, and where it begins."""
    began, found = None, False
    lines: list[str] = []
    for place, line in source.lines(path, "replace"):
        mark = line.strip().lower()
        if mark == f"<{tag}>":
            if began is not None:
                source.note(began.problem(f"<{tag}> is not closed"))
            began, lines, found = place, [], True
        elif mark == f"</{tag}>" and began is not None:
            yield began, "\n".join(lines)
            began = None
        elif began is not None:
            lines.append(line)
    if began is not None:
        source.note(began.problem(f"<{tag}> is not closed"))
    if not found:
        source.note(Place(path, 1).problem(f"the file has no <{tag}>"))


def add_marked_up(source: Source, place: Place, markup: str, new: NewSet) -> None:
    """Adds a document, or notes why it cannot be."""
    number = NUMBER.search(markup)
    parts = [" ".join(html.unescape(TAG.sub(" ", part)).split()) for _, part in WITHIN.findall(markup)]
    if number is None:
        source.note(place.problem("the document has no <DOCNO>"))
    elif not parts:
        source.note(place.problem(f"document {number[1]!r} has none of the tags {TEXT_TAGS}"))
    else:
        new.add_document(place, number[1], "\n".join(parts))


def first_of(row: dict[str, object], names: tuple[str, ...]) -> object:
    """The first of these fields that the row has."""
    return next((row[name] for name in names if row.get(name) is not None), None)
