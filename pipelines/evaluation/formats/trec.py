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
from pathlib import Path
from typing import Any, cast
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from ...errors import ConfigError
from .reading import Asked, Format, Place, Source, one_language, opened, readable, with_title
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
TOPIC_FIELDS = "num dom title desc smry narr con fac nat def query question querytime querytweettime"
"""What TREC's topics have, of which not all close their fields."""
END = r"(?:\s[^<>]*)?>"
"""Of a tag, which may have attributes."""
WITHIN = re.compile(rf"<({'|'.join(TEXT_TAGS.split())}){END}(.*?)</\1>", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"<(?:/?[a-z]|[!?])[^<>]*>", re.IGNORECASE)
"""A tag or a comment. The `<` of `x < 5` begins none."""
NUMBER = re.compile(rf"<DOCNO{END}\s*(\S+)\s*</DOCNO>", re.IGNORECASE)
TOPIC_NUMBER = re.compile(rf"<num{END}\s*(?:Number:)?\s*([^\s<]+)", re.IGNORECASE)
TITLE = re.compile(
    rf"<title{END}\s*(?:Topic:)?(.*?)(?:</title>|<(?:{'|'.join(TOPIC_FIELDS.split())}){END}|\Z)",
    re.DOTALL | re.IGNORECASE,
)
BEGINNING = 1 << 20
"""Bytes of a file of topics, by which its kind is known."""
IS_XML = re.compile(r"<(?:\w+:)?topics?[\s>]")
IS_MARKUP = re.compile(r"^\s*<top[\s>]", re.MULTILINE)
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
    no_documents = {path.resolve() for path in (asked.queries, asked.qrels, asked.run) if path is not None}
    for path in source.some("*", at_any_depth=True):
        if path.resolve() in no_documents:
            continue
        if path.name.removesuffix(".gz").endswith((".jsonl", ".json")):
            for place, row in source.objects(path):
                new.add_document(place, first_of(row, IDS), with_title(row.get("title"), first_of(row, TEXTS)))
        else:
            for place, markup in marked_up(source, path, "doc"):
                add_marked_up(source, place, markup, new)


def topics(source: Source, path: Path) -> Iterator[tuple[Place, str, str]]:
    """Place, id and text of each topic."""
    beginning = beginning_of(path)
    if IS_MARKUP.search(beginning):
        for place, markup in marked_up(source, path, "top"):
            number, title = TOPIC_NUMBER.search(markup), TITLE.search(markup)
            if number is None or title is None:
                source.note(place.problem("the topic has no <num> or no <title>"))
            else:
                yield place, number[1], plain_text(title[1])
        return
    if beginning.startswith("<?xml") or (beginning.startswith("<") and IS_XML.search(beginning)):
        yield from xml_topics(source, path)
        return
    for place, line in source.lines(path):
        query, tab, text = line.partition("\t")
        if tab:
            yield place, query, text
        else:
            source.note(place.problem("has no tab; a topic is an id, a tab and the query"))


def beginning_of(path: Path) -> str:
    """In lower case, without white space and marks of the encoding before it; of UTF-16 every other byte is 0."""
    with readable(path), opened(path) as file:
        return file.read(BEGINNING).replace(b"\0", b"").decode("latin-1").lower().lstrip("\xef\xbb\xbf\xff\xfe \t\r\n")


def xml_topics(source: Source, path: Path) -> Iterator[tuple[Place, str, str]]:
    """Place, id and text of each `<topic number="...">`: its title, else its query, else its own text.

    The parser gets bytes, since XML says itself how it is encoded.
    """
    parser: XMLPullParser[Any] = XMLPullParser()
    found = False
    try:
        for place, line in source.raw_lines(path):
            parser.feed(line)
            for _, element in cast(Iterator[tuple[str, Element]], parser.read_events()):
                if plain_name(element.tag) == "topic":
                    found = True
                    number, text = element.get("number", "").strip(), topic_text(element)
                    if not number or not text:
                        source.note(place.problem("the topic that ends here has no number, or no title or query"))
                    else:
                        yield place, number, text
        parser.close()
        list(parser.read_events())  # raises what it found at the end
    except (ParseError, ValueError, LookupError) as error:  # the latter two for encodings that it does not know
        raise ConfigError(f"{path} is no XML that can be read: {error}") from None
    if not found:
        source.note(Place(path, 1).problem("the file has no <topic>"))


def topic_text(topic: Element) -> str:
    """What is asked; empty where a topic has other fields alone."""
    texts = {plain_name(field.tag): " ".join("".join(field.itertext()).split()) for field in reversed(topic)}
    if len(topic):
        return texts.get("title") or texts.get("query") or ""
    return " ".join((topic.text or "").split())


def plain_name(tag: str) -> str:
    """The name of an element without its namespace, in lower case."""
    return tag.rpartition("}")[2].lower()


def marked_up(source: Source, path: Path, tag: str) -> Iterator[tuple[Place, str]]:
    """What stands between `<tag>` and `</tag>`, and where it begins."""
    marks = re.compile(f"(</?{tag}{END})", re.IGNORECASE)
    began, found = None, False
    lines: list[str] = []
    for place, line in source.lines(path, mended=True):
        for index, part in enumerate(marks.split(line)):
            if index % 2 == 0:
                if began is not None:
                    lines.append(part)
            elif not part.startswith("</"):
                if began is not None:
                    source.note(began.problem(f"<{tag}> is not closed"))
                began, lines, found = place, [], True
            elif began is not None:
                yield began, "\n".join(lines)
                began = None
            else:
                source.note(place.problem(f"</{tag}> closes nothing; what stands before it is left out"))
    if began is not None:
        source.note(began.problem(f"<{tag}> is not closed"))
    if not found:
        source.note(Place(path, 1).problem(f"the file has no <{tag}>"))


def add_marked_up(source: Source, place: Place, markup: str, new: NewSet) -> None:
    """Adds a document, or notes why it cannot be."""
    number = NUMBER.search(markup)
    parts = [plain_text(part) for _, part in WITHIN.findall(markup)]
    if number is None:
        source.note(place.problem("the document has no <DOCNO>"))
    elif not parts:
        source.note(place.problem(f"document {number[1]!r} has none of the tags {TEXT_TAGS}"))
    else:
        new.add_document(place, number[1], "\n".join(parts))


def plain_text(markup: str) -> str:
    """The words of a field, without tags and entities."""
    return " ".join(html.unescape(TAG.sub(" ", markup)).split())


def first_of(row: dict[str, object], names: tuple[str, ...]) -> object:
    """The first of these fields that the row has."""
    return next((row[name] for name in names if row.get(name) is not None), None)
