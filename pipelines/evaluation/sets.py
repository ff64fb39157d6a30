"""Reads a benchmark set: its queries, its judgements, and the candidates that a first stage found.

A set is a folder with `queries.jsonl` {id, text, lang}, `corpus.jsonl` {id, text}, `qrels.tsv` (query id, document id,
grade; or TREC's four columns) and `candidates.parquet` {query_id, documents: list<struct<id, text, ...>>}, in the first
stage's order; without that file, somebody has to search the corpus. `answers.jsonl` {id, answers} may stand in the
place of `qrels.tsv`: a candidate is relevant if one of the answers stands in it. `meta.json` may name the set's own
`measure`. A line that cannot be used is left out, counted and named.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import ConfigError
from .answers import grades_by_answers

QUERIES, CORPUS, QRELS, CANDIDATES = "queries.jsonl", "corpus.jsonl", "qrels.tsv", "candidates.parquet"
ANSWERS, META = "answers.jsonl", "meta.json"
DOCUMENT = pa.struct({"id": pa.string(), "text": pa.string()})
LARGEST_GRADE = 1_000_000
"""trec_eval counts the documents of each grade up to the largest: one of 2^31 would take a minute and 16 GB."""
GRADE = f"whole number of at most {LARGEST_GRADE:,}"
ZERO_FRACTION = re.compile(r"(?<=\d)\.0+(?=\s*$)")
"""Of a grade that went through a column of floats, such as pandas makes of integers beside a null: `1.0`."""
LISTS = pa.schema({"query_id": pa.string(), "query": pa.string(), "documents": pa.list_(DOCUMENT)})
"""The columns of a table of candidates."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a set."""

    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A line of a set that is left out."""

    file: str
    line: int | None
    """From 1; of Parquet files the row. None where it is the whole file."""
    what: str
    called: str = "line"
    """Or `row`, counted from 0, or `entry` of a JSON array."""

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f', {self.called} {self.line}'}: {self.what}"


@dataclass(frozen=True, slots=True)
class BenchmarkSet:
    """A set in memory, but for the texts of its corpus."""

    name: str
    queries: dict[str, Query]
    grades: dict[str, dict[str, int]]
    """By query, then document; only queries with a document that is graded above 0, unless answers are the judges."""
    candidates: pa.Table
    """As LISTS: one row for each query in `grades` that has candidates, each document once."""
    problems: tuple[Problem, ...]
    measure: str | None = None
    """The measure that the set is known for."""
    benchmark: str | None = None
    published_candidates: str | None = None
    """Of which public benchmark this is the whole, and whose candidates it has, in the words of published figures; the
    latter not where somebody else searches the corpus."""
    answers: Mapping[str, Sequence[str]] | None = None
    """By query, where they are the judges: then one counts 0 if the first stage found no document with an answer."""
    document_language: str = "en"
    """Of the documents, in which the answers are looked for."""
    ignores_identical_ids: bool = False
    """Whether a document with the id of a query is no candidate for it, as where the queries are documents."""
    corpus: Path | None = None
    """The file of its documents; None for a log, which has no others than those in its lists."""
    needs_candidates: bool = False
    """Whether somebody has to search the corpus first."""
    answerable: int | None = None
    """How many queries have an answer, where not all of them were read; None is those in `grades`."""
    unlabelled: int | None = None
    """Of a log: rows without a positive label, which say nothing of an order."""

    @property
    def judged_by(self) -> str:
        """What makes a document relevant: `qrels` or `answers`."""
        return "qrels" if self.answers is None else "answers"

    def with_candidates(self, candidates: pa.Table) -> BenchmarkSet:
        """The set with these lists, LISTS of queries in `grades`, judged where answers are the judges."""
        if self.ignores_identical_ids:
            candidates = without_identical_ids(candidates)
        grades = self.grades
        if self.answers is not None:
            grades = answers_as_grades(self.answers, candidates, self.document_language)
        return replace(self, candidates=candidates, grades=grades, needs_candidates=False)

    @property
    def queries_in_all(self) -> int:
        """How many queries have an answer."""
        return len(self.grades) if self.answerable is None else self.answerable


@dataclass(slots=True)
class _Reading:
    """What is being read, with the problems so far."""

    folder: Path
    problems: list[Problem] = field(default_factory=list)

    def note(self, file: str, line: int, what: str) -> None:
        self.problems.append(Problem(str(self.folder / file), line, what))

    def objects(self, file: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Line, id and object of each line of a JSON file that has an id which none before it had."""
        seen: set[str] = set()
        with (self.folder / file).open("rb") as lines:
            for number, line in enumerate(split_lines(lines), 1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    self.note(file, number, f"is no JSON ({error})")
                    continue
                if not isinstance(value, dict) or not is_text(value.get("id")):
                    self.note(file, number, "is no object with an `id` that is a text")
                elif value["id"] in seen:
                    self.note(file, number, f"has the id {value['id']!r}, which stands above already")
                else:
                    seen.add(value["id"])
                    yield number, value["id"], value

    def lines(self, file: str) -> Iterator[tuple[int, str]]:
        """Number and text of each line that is not blank."""
        with (self.folder / file).open("rb") as lines:
            for number, line in enumerate(split_lines(lines), 1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    self.note(file, number, f"is no UTF-8 ({error.reason})")
                    continue
                if text.strip():
                    yield number, text


def read_set(folder: Path, *, with_candidates: bool = True) -> BenchmarkSet:
    """Reads a set, with the candidates that it has unless others are wanted.

    Raises ConfigError where a file is missing or cannot be read, or nothing is left to measure.
    """
    has_answers = (folder / ANSWERS).is_file() and not (folder / QRELS).is_file()
    advice = "; `crossray import` makes one of what a publisher gives out" if (folder / CORPUS).is_file() else ""
    for file in (QUERIES, CORPUS, ANSWERS if has_answers else QRELS):
        if not (folder / file).is_file():
            raise ConfigError(
                f"{folder} is no benchmark set: it has no {file}; it needs {QUERIES}, {CORPUS}, {QRELS}{advice}"
            )
    reading, name = _Reading(folder), Path(os.path.abspath(folder)).name  # also of `.`
    about = read_meta(folder)
    queries = read_queries(reading)
    with_candidates = with_candidates and (folder / CANDIDATES).is_file()
    if has_answers:
        about["answers"] = read_answers(reading, queries)
        grades: dict[str, dict[str, int]] = {query: {} for query in about["answers"]}
    else:
        documents = read_ids(reading) if with_candidates else {one for one, _ in read_texts(reading)}
        grades = read_grades(reading, queries, documents)
    if not grades:
        example = f", such as {reading.problems[0]}" if reading.problems else ""
        told = f"{len(reading.problems):,} line(s) are left out{example}"
        raise ConfigError(f"{folder}: no query has a judged document that is relevant; {told}")
    about["corpus"] = folder / CORPUS
    lists = read_candidates(reading, queries, grades) if with_candidates else LISTS.empty_table()
    if not with_candidates:
        about.pop("published_candidates", None)  # others will be found
    read = BenchmarkSet(
        name, queries, grades, lists, tuple(reading.problems), needs_candidates=not with_candidates, **about
    )
    return read.with_candidates(lists) if with_candidates else read


def read_meta(folder: Path) -> dict[str, Any]:
    """What `meta.json` says for fields of a BenchmarkSet, if there is one; raises ConfigError."""
    path = folder / META
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(meta, dict):
        raise ConfigError(f"{path} is no JSON object")
    texts = ("measure", "document_language", "benchmark", "published_candidates")
    known = {**dict.fromkeys(texts, str), "ignores_identical_ids": bool}
    for name in known.keys() & meta.keys():
        if not isinstance(meta[name], known[name]):
            rule = "text" if known[name] is str else "true or false"
            raise ConfigError(f"{path}: {name} is {meta[name]!r}; it is {rule}")
    return {name: meta[name] for name in known if name in meta}


def read_answers(reading: _Reading, queries: dict[str, Query]) -> dict[str, list[str]]:
    """The answers of the queries that have some."""
    answers: dict[str, list[str]] = {}
    for number, one, value in reading.objects(ANSWERS):
        given = value.get("answers")
        if one not in queries:
            reading.note(ANSWERS, number, f"there is no query {one!r}")
        elif not isinstance(given, list) or not all(map(is_text, given)) or not "".join(given).strip():
            reading.note(ANSWERS, number, f"query {one!r} has no `answers` that are texts")
        else:
            answers[one] = given
    return answers


def answers_as_grades(
    answers: Mapping[str, Sequence[str]], candidates: pa.Table, language: str
) -> dict[str, dict[str, int]]:
    """The grades of the candidates; a query of which none has an answer stays, and so counts 0."""
    grades: dict[str, dict[str, int]] = {query: {} for query in answers}
    for row in candidates.to_pylist():
        documents = ((document["id"], document["text"]) for document in row["documents"])
        grades[row["query_id"]] = grades_by_answers(answers[row["query_id"]], documents, language)
    return grades


def read_ids(reading: _Reading) -> set[str]:
    """The ids of the corpus."""
    return {one for _, one, _ in reading.objects(CORPUS)}


def read_texts(reading: _Reading) -> Iterator[tuple[str, str]]:
    """Yields id and text of each document of the corpus."""
    for number, one, value in reading.objects(CORPUS):
        if is_text(value.get("text")):
            yield one, value["text"]
        else:
            reading.note(CORPUS, number, f"document {one!r} has no `text`")


def read_corpus(path: Path) -> Iterator[tuple[str, str]]:
    """Yields id and text of each document in the file of a corpus; `read_set` has told what is left out."""
    return read_texts(_Reading(path.parent))


def read_queries(reading: _Reading) -> dict[str, Query]:
    """The queries by id."""
    queries: dict[str, Query] = {}
    for number, one, value in reading.objects(QUERIES):
        text, language = value.get("text"), value.get("lang")
        if not is_text(text) or not text.strip():
            reading.note(QUERIES, number, f"query {one!r} has no `text`")
        elif language is not None and not (is_text(language) and language.strip()):
            reading.note(QUERIES, number, f"query {one!r} has the `lang` {language!r}, which is no text")
        else:
            queries[one] = Query(text, language)
    return queries


def read_grades(reading: _Reading, queries: dict[str, Query], documents: set[str]) -> dict[str, dict[str, int]]:
    """The grades of the queries that have an answer."""
    grades: dict[str, dict[str, int]] = {}
    for number, line in reading.lines(QRELS):
        fields = line.split("\t") if "\t" in line else line.split()
        if number == 1 and fields[0] in ("query-id", "query_id", "qid"):
            continue
        if len(fields) not in (3, 4):
            reading.note(QRELS, number, f"has {len(fields)} fields; give query id, document id and grade")
            continue
        query, document, grade = fields[0], fields[-2], fields[-1]
        value = as_grade(grade)
        if value is None:
            reading.note(QRELS, number, f"the grade is {grade!r}, which is no {GRADE}")
        elif query not in queries:
            reading.note(QRELS, number, f"there is no query {query!r}")
        elif document not in documents:
            reading.note(QRELS, number, f"there is no document {document!r}")
        elif document in grades.get(query, {}):
            reading.note(QRELS, number, f"document {document!r} of query {query!r} has a grade above already")
        else:
            grades.setdefault(query, {})[document] = value
    return {query: of_query for query, of_query in grades.items() if max(of_query.values()) > 0}


def read_candidates(reading: _Reading, queries: dict[str, Query], grades: Container[str]) -> pa.Table:
    """The lists of the queries that are judged, with the queries' own texts; raises ConfigError."""
    path, columns = reading.folder / CANDIDATES, LISTS.remove(1)
    try:
        there = pq.read_schema(path).names
        for name in columns.names:
            if name not in there:
                raise ConfigError(f"{path} has no column {name!r}; it has {', '.join(there)}")
        table = pq.read_table(path, columns=columns.names).cast(columns)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    rows: dict[str, list[dict[str, str]]] = {}
    for number, row in enumerate(table.to_pylist(), 1):
        query = row["query_id"]
        if query is None or query not in queries:
            reading.note(CANDIDATES, number, f"there is no query {query!r}")
        elif query in rows:
            reading.note(CANDIDATES, number, f"query {query!r} has candidates above already")
        elif query in grades:
            rows[query] = checked_documents(reading, number, row["documents"] or [])
    lists = {"query_id": list(rows), "query": [queries[one].text for one in rows], "documents": list(rows.values())}
    return pa.table(lists, schema=LISTS)


def without_identical_ids(candidates: pa.Table) -> pa.Table:
    """The lists without documents that have the id of their query."""
    rows = candidates.to_pylist()
    for row in rows:
        row["documents"] = [document for document in row["documents"] if document["id"] != row["query_id"]]
    return pa.Table.from_pylist(rows, schema=LISTS)


def checked_documents(reading: _Reading, row: int, documents: list[dict[str, Any] | None]) -> list[dict[str, str]]:
    """The documents of a row that have an id of their own and a text."""
    found: dict[str, dict[str, str]] = {}
    for place, document in enumerate(documents):
        one, text = (document or {}).get("id"), (document or {}).get("text")
        if one is None or text is None:
            reading.note(CANDIDATES, row, f"documents[{place}] has no id or no text")
        elif one in found:
            reading.note(CANDIDATES, row, f"documents[{place}] has the id {one!r}, which another one has")
        else:
            found[one] = {"id": one, "text": text}
    return list(found.values())


def first_candidates(candidates: pa.Table, count: int) -> pa.Table:
    """The lists with their first `count` documents."""
    cut = pc.list_slice(candidates["documents"], 0, count)
    return candidates.set_column(2, LISTS.field("documents"), cut.cast(LISTS.field("documents").type))


def split_lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file with their ends: a line feed, a carriage return or both, as in Python's text files."""
    for line in file:
        yield from line.splitlines(keepends=True)


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that UTF-8 can write, which has no lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain_number(value: object) -> bool:
    """Whether it is no text with an underscore or digits of other scripts, which only Python takes for numbers."""
    return not isinstance(value, str) or (value.isascii() and "_" not in value)


def as_grade(value: object) -> int | None:
    """A grade; None for what is none. A whole number may be a float, or be written as one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not is_plain_number(value):
        return None
    if isinstance(value, str):
        value = ZERO_FRACTION.sub("", value)
    try:
        grade = int(value)
    except ValueError:
        return None
    return grade if abs(grade) <= LARGEST_GRADE else None
