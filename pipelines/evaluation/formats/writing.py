"""A set that is being written: text by text, so that no corpus has to fit into memory.

Ids, judgements, queries and the heads of the first stage's lists are held, and no documents.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappush, heappushpop
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import ConfigError
from ..sets import ANSWERS, CANDIDATES, CORPUS, GRADE, META, QRELS, QUERIES, Problem, as_grade, is_plain_number, is_text
from .reading import Place

LEFT_OUT = "left-out.txt"
"""Every line that is left out, with what is wrong with it."""
FILES = (QUERIES, CORPUS, QRELS, ANSWERS, CANDIDATES, META, LEFT_OUT)
"""The files that a set may have, and no other."""
FIRST_PROBLEMS = 5
LISTS_AT_ONCE = 64
RANKED = pa.struct({"id": pa.string(), "text": pa.string(), "score": pa.float64()})
RANKED_LISTS = pa.schema({"query_id": pa.string(), "query": pa.string(), "documents": pa.list_(RANKED)})


class NewSet:
    """The files of a set, complete after `finish`."""

    def __init__(self, folder: Path, depth: int, ignores_identical_ids: bool = False) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.depth = depth
        """How many documents of the first stage each query gets."""
        self.ignores_identical_ids = ignores_identical_ids
        self.files: dict[str, IO[bytes]] = {}
        self.queries: dict[str, str] = {}
        """The texts of those that are written, by id."""
        self.languages: Counter[str] = Counter()
        """Queries by language."""
        self.documents: set[str] = set()
        self.hashes: dict[str, int] = {}
        """Of the texts of documents that may come again, by id."""
        self.grades: dict[str, dict[str, tuple[int, Place]]] = {}
        self.heads: dict[str, list[tuple[float, str, float]]] = {}
        """By query, a heap of the best documents of the first stage: score as trec_eval reads it, id, and score."""
        self.in_head: dict[str, dict[str, Place]] = {}
        """By query, the documents of its heap, and where they are ranked."""
        self.ranked: dict[str, set[str]] = {}
        """By query, all documents of its list, so that one that comes again is known at any depth."""
        self.begins: dict[str, int] | None = None
        """Of documents in lists: the byte of the corpus at which each begins, -1 until it is written."""
        self.about: dict[str, Any] = {}
        """What the reader says of the set in `meta.json`."""
        self.left_out = 0
        self.first_problems: list[Problem] = []
        self.noted: set[int] = set()
        """Hashes of the problems that `note_once` has noted."""
        self.by_rule: Counter[str] = Counter()
        """What the benchmark itself leaves out, by reason."""

    def file(self, name: str) -> IO[bytes]:
        """A file of the set, open for writing."""
        if name not in self.files:
            self.files[name] = (self.folder / name).open("wb")
        return self.files[name]

    def close(self) -> None:
        """Closes the files that are open."""
        for file in self.files.values():
            file.close()

    def note(self, problem: Problem) -> None:
        """Counts and names a line that is left out."""
        self.left_out += 1
        self.file(LEFT_OUT).write(f"{problem}\n".encode(errors="backslashreplace"))
        if len(self.first_problems) < FIRST_PROBLEMS:
            self.first_problems.append(problem)

    def note_once(self, problem: Problem) -> None:
        """Notes what is wrong with a line that several queries may share."""
        if hash(problem) not in self.noted:
            self.noted.add(hash(problem))
            self.note(problem)

    def judge(
        self,
        place: Place,
        query: object,
        document: object,
        grade: object,
        may_repeat: bool = False,
        last_counts: bool = False,
    ) -> None:
        """Takes a judgement. Whether its query and its document are there is found out in the end.

        Of a document that is judged again the first grade counts, or the last one.
        """
        query_id, document_id, value = as_id(query), as_id(document), as_grade(grade)
        of_query = {} if query_id is None else self.grades.setdefault(query_id, {})  # judged, if with no grade to use
        if query_id is None or document_id is None:
            self.note(place.problem(f"the ids {query!r} and {document!r} are not both such as can be used"))
        elif value is None:
            self.note(place.problem(f"the grade is {grade!r}, which is no {GRADE}"))
        elif document_id in of_query and last_counts:
            what = f"document {document_id!r} of query {query_id!r} has a grade below again, which counts"
            self.note(of_query[document_id][1].problem(what))
            of_query[document_id] = (value, place)
        elif document_id in of_query:
            if not may_repeat:
                what = f"document {document_id!r} of query {query_id!r} has a grade above already"
                self.note(place.problem(what))
        else:
            of_query[document_id] = (value, place)

    def rank(self, place: Place, query: object, document: object, score: object) -> None:
        """Takes a document of a first stage's list, before any document is added.

        The order is trec_eval's: by score, of which it reads 32 bits, and documents of equal scores by their ids, the
        last one first. Of a document that comes again the first line counts.
        """
        query_id, document_id, value = as_id(query), as_id(document), finite_number(score)
        if query_id is None or document_id is None:
            self.note(place.problem(f"the ids {query!r} and {document!r} are not both such as can be used"))
        elif value is None:
            self.note(place.problem(f"the score is {score!r}, which is no finite number"))
        elif document_id in self.ranked.get(query_id, ()):
            self.note(place.problem(f"document {document_id!r} of query {query_id!r} is ranked above already"))
        elif self.ignores_identical_ids and query_id == document_id:
            self.by_rule["ranked documents with the id of their query"] += 1
        else:
            document_id = sys.intern(document_id)  # many lists have it
            self.ranked.setdefault(query_id, set()).add(document_id)
            head, documents = self.heads.setdefault(query_id, []), self.in_head.setdefault(query_id, {})
            documents[document_id] = place
            with np.errstate(over="ignore"):
                entry = (float(np.float32(value)), document_id, value)
            if len(head) < self.depth:
                heappush(head, entry)
            else:
                del documents[heappushpop(head, entry)[1]]

    def rename(self, query: str, names: Iterable[str]) -> None:
        """Gives the judgements and the list of a query to those of other names that have none of their own."""
        tables: tuple[dict[str, Any], ...] = (self.grades, self.heads, self.in_head)
        for by_query in tables:
            if query in by_query:
                its = by_query.pop(query)
                for name in names:
                    by_query.setdefault(name, its)

    def add_query(
        self,
        place: Place,
        query: object,
        text: object,
        language: str | None,
        answers: Sequence[str] | None = None,
        may_repeat: bool = False,
    ) -> None:
        """Writes a query that is judged, by grades or by answers; others are counted."""
        query_id = as_id(query)
        if query_id is None:
            self.note(place.problem(f"the id is {query!r}, which cannot be used"))
        elif not is_text(text) or not text.strip():
            self.note(place.problem(f"query {query_id!r} has no text"))
        elif query_id in self.queries:
            if not (may_repeat and self.queries[query_id] == text):
                self.note(place.problem(f"has the id {query_id!r}, which stands above already"))
        elif answers is None and query_id not in self.grades:
            self.by_rule["queries without a judgement in this split"] += 1
        else:
            self.queries[query_id] = text
            line = {"id": query_id, "text": text}
            if language is not None:
                self.languages[language] += 1
                line["lang"] = language
            self.write(QUERIES, line)
            if answers is not None:
                self.write(ANSWERS, {"id": query_id, "answers": list(answers)})

    def add_document(self, place: Place, document: object, text: object, may_repeat: bool = False) -> None:
        """Writes a document. One of no words stays, since a benchmark counts it."""
        if self.begins is None:
            self.begins = {one: -1 for documents in self.in_head.values() for one in documents}
            self.ranked.clear()  # all lists are read
        document_id = as_id(document)
        if document_id is None:
            self.note(place.problem(f"the id is {document!r}, which cannot be used"))
        elif not is_text(text):
            self.note(place.problem(f"document {document_id!r} has no text"))
        elif document_id in self.documents:
            if not (may_repeat and self.hashes[document_id] == hash(text)):
                self.note(place.problem(f"has the id {document_id!r}, which stands above already"))
        else:
            self.documents.add(document_id)
            if may_repeat:
                self.hashes[document_id] = hash(text)
            if document_id in self.begins:
                self.begins[document_id] = self.file(CORPUS).tell()
            self.write(CORPUS, {"id": document_id, "text": text})

    def write(self, name: str, line: Mapping[str, Any]) -> None:
        """Appends an object to a file."""
        self.file(name).write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Writes what could not be written before, and returns what `meta.json` says; raises ConfigError."""
        judged = self.write_grades()
        ranked = self.write_lists()
        if not self.queries or not self.documents:
            raise ConfigError(self.nothing("query" if not self.queries else "document"))
        if not judged and ANSWERS not in self.files:
            raise ConfigError(self.nothing("query with a document that is relevant"))
        meta = {
            **about,
            **self.about,
            "language": sorted(self.languages),
            "judged_by": "answers" if ANSWERS in self.files else "qrels",
            "queries": len(self.queries),
            "documents": len(self.documents),
            "queries_with_a_relevant_document": judged,
            "lists": ranked,
            "left_out": self.left_out,
            "left_out_by_rule": dict(self.by_rule),
        }
        (self.folder / META).write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        self.close()
        return meta

    def nothing(self, what: str) -> str:
        """What to say where nothing is left."""
        by_rule = (f"{count:,} {reason} are left out" for reason, count in self.by_rule.items())
        lines = [f"{self.left_out:,} line(s) are left out: {'; '.join(map(str, self.first_problems))}"]
        told = "; ".join([*(lines if self.left_out else ()), *by_rule]) or "no line has one"
        return f"no {what} is left, so there is nothing to measure ({told})"

    def no_list_of(self, run: Path) -> str:
        """What to say where no list of a run is left."""
        if not self.heads:
            first = next((f": {problem}" for problem in self.first_problems if problem.file == str(run)), "")
            return f"--run {run} has no line that can be used{first}"
        what, its, ours = "queries", next(iter(self.heads)), min(self.queries)
        if shared := self.heads.keys() & self.queries.keys():
            what, its, ours = "documents", next(iter(self.in_head[min(shared)])), min(self.documents)
        told = f"its {what} have ids such as {its!r}, and those of the set such as {ours!r}"
        return f"no list of --run {run} is left: {told}; give the run the ids of the set, or leave it out"

    def write_grades(self) -> int:
        """Writes the judgements of what is there, and returns how many queries have a relevant document."""
        answered = 0
        for query, of_query in self.grades.items():
            best = 0
            for document, (grade, place) in of_query.items():
                if query not in self.queries:
                    self.note(place.problem(f"there is no query {query!r}"))
                elif document not in self.documents:
                    self.note_once(place.problem(f"there is no document {document!r}"))
                else:
                    if QRELS not in self.files:
                        self.file(QRELS).write(b"query-id\tcorpus-id\tscore\n")
                    self.file(QRELS).write(f"{query}\t{document}\t{grade}\n".encode())
                    best = max(best, grade)
            answered += best > 0
        return answered

    def write_lists(self) -> int:
        """Writes the lists of the first stage, and returns how many; none if no document of them is there."""
        for query, documents in self.in_head.items():
            for document, place in documents.items():
                if query not in self.queries:
                    self.by_rule["ranked documents of queries that are not in this set"] += 1
                elif document not in self.documents:
                    self.note_once(place.problem(f"there is no document {document!r}"))
        queries = [query for query in self.heads if query in self.queries]
        if not any(document in self.documents for query in queries for document in self.in_head[query]):
            return 0
        self.file(CORPUS).flush()
        with (
            (self.folder / CORPUS).open("rb") as corpus,
            pq.ParquetWriter(self.folder / CANDIDATES, RANKED_LISTS, compression="zstd") as writer,
        ):
            for first in range(0, len(queries), LISTS_AT_ONCE):
                rows = [self.list_of(query, corpus) for query in queries[first : first + LISTS_AT_ONCE]]
                writer.write_table(pa.Table.from_pylist(rows, schema=RANKED_LISTS))
        return len(queries)

    def list_of(self, query: str, corpus: IO[bytes]) -> dict[str, Any]:
        """A row of the candidates."""
        return {
            "query_id": query,
            "query": self.queries[query],
            "documents": list(self.texts_of(sorted(self.heads[query], reverse=True), corpus)),
        }

    def texts_of(self, head: Sequence[tuple[float, str, float]], corpus: IO[bytes]) -> Iterator[dict[str, Any]]:
        """The documents of a list with their texts, without those that the corpus does not have."""
        for _, document, score in head:
            begin = (self.begins or {}).get(document, -1)
            if begin >= 0:
                corpus.seek(begin)
                yield {**json.loads(corpus.readline()), "score": score}


def as_id(value: object) -> str | None:
    """An id as a text that fits into a line of judgements; None for one that does not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not is_text(value) or not value.strip() or "\t" in value or value.splitlines() != [value]:
        return None
    return value


def finite_number(value: object) -> float | None:
    """A score; None for what is none."""
    if not is_plain_number(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
