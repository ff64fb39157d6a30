"""Reads a log of one's own as a set: candidate lists in the order in which they were shown, with clicks or grades.

Labels are read first, of all rows; texts only of the rows that are measured. A row is called by its file and its number
in it, from 0. What cannot be used is left out, counted and named.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import UnreadableFileError
from jobs.evaluation.labels import LabelPlace, Labels, label_place, right_ids
from jobs.input.partitions import input_root
from jobs.records import InputFile
from jobs.runtime.threads import in_threads
from jobs.table.column_types import may_be_text, plain_type
from jobs.table.columns import ColumnMapping, Layout
from jobs.table.faults import why_unusable
from jobs.table.parsing import ParsedRow, Text, column_texts, parse_lists
from pipelines.errors import ConfigError
from pipelines.evaluation.sets import LISTS, BenchmarkSet, Problem, Query

LANGUAGE = "lang"
"""The column with the query's language, which may be missing."""
SEED = 0
ROWS_AT_ONCE = 1024
"""Of which texts are in memory twice."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of a log, as far as its labels tell."""

    file: InputFile
    name: str
    """As rows are called."""
    place: LabelPlace
    columns: Sequence[str]
    """Those that are read of the rows that are measured."""
    rows: int
    positive: np.ndarray
    """Numbers of the rows with a positive label, int64."""
    problems: Sequence[Problem]


@dataclass(slots=True)
class Measured:
    """The rows of a log that can be measured."""

    queries: dict[str, Query] = field(default_factory=dict)
    grades: dict[str, dict[str, int]] = field(default_factory=dict)
    lists: list[pa.Table] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Log:
    """A log, and the names of what is read of it."""

    location: str
    """A Parquet file, a directory or a glob; a local path or a uri."""
    label: str
    mapping: ColumnMapping

    def read(self, count: int | None) -> BenchmarkSet:
        """The log as a set: all rows that have a positive label, or `count` of them, the same each time.

        Raises ConfigError where there is no file that can be read, or no row with a positive label.
        """
        listed = storage.list_input(self.location, "SET")
        root = input_root(self.location, [file.path for file in listed])
        surveyed = in_threads(partial(self.survey, root), listed)
        files = [one for one in surveyed if isinstance(one, LogFile)]
        measured = Measured(problems=[one for one in surveyed if isinstance(one, Problem)])
        if not files:
            raise ConfigError(f"{self.location} cannot be evaluated: {measured.problems[0].what}")
        measured.problems += [problem for file in files for problem in file.problems]
        answerable = sum(len(file.positive) for file in files)
        for file in drawn(files, count):
            self.measure(file, measured)
        if count is None or count >= answerable:
            answerable = len(measured.grades)  # none was left undrawn, only some could not be used
        if not measured.grades:
            example = f", such as {measured.problems[0]}" if measured.problems else ""
            raise ConfigError(
                f"{self.location}: no row that can be measured has a positive label in {self.label!r}; "
                f"{len(measured.problems):,} are left out for another reason{example}"
            )
        is_file = [file.path for file in listed] == [self.location]
        unlabelled = sum(file.rows - len(file.positive) - len(file.problems) for file in files)
        return BenchmarkSet(
            os.path.basename(self.location if is_file else root).removesuffix(".parquet"),
            measured.queries,
            measured.grades,
            pa.concat_tables(measured.lists),
            tuple(measured.problems),
            answerable=answerable,
            unlabelled=unlabelled,
        )

    def survey(self, root: str, file: InputFile) -> LogFile | Problem:
        """What the labels of a file below `root` tell, or why it cannot be read."""
        name = file.path.removeprefix(f"{root}/")

        def read(opened: pq.ParquetFile) -> LogFile | str:
            schema = opened.schema_arrow
            why = why_unusable(schema, self.mapping, Layout.LISTS)
            place = label_place(schema, self.label, self.mapping.documents)
            if why is not None or isinstance(place, str):
                return why or str(place)
            columns = [self.mapping.query, self.mapping.documents, place.column]
            if LANGUAGE in schema.names and may_be_text(plain_type(schema.field(LANGUAGE).type)):
                columns.append(LANGUAGE)
            positive, problems, rows = [np.empty(0, np.int64)], [], 0
            for batch in opened.iter_batches(columns=[place.leaf(opened)]):
                labels = Labels.of(batch.column(place.column), place)
                faulty = labels.rows_with(labels.is_fault)
                positive.append(rows + np.flatnonzero(labels.rows_with(labels.is_positive) & ~faulty))
                problems += [
                    Problem(file.path, rows + row, labels.fault(row, self.label), "row")
                    for row in np.flatnonzero(faulty).tolist()
                ]
                rows += batch.num_rows
            return LogFile(file, name, place, tuple(dict.fromkeys(columns)), rows, np.concatenate(positive), problems)

        try:
            found = storage.read_parquet(file.path, read) if file.fault is None else file.fault
        except UnreadableFileError as error:
            found = error.why
        return Problem(file.path, None, found) if isinstance(found, str) else found

    def measure(self, file: LogFile, measured: Measured) -> None:
        """Reads the rows with a positive label, with their texts."""
        try:
            tables = storage.read_as_planned(file.file.path, file.file.state, lambda one: list(rows_of(one, file)))
        except UnreadableFileError as error:
            measured.problems.append(Problem(file.file.path, None, error.why))
            return
        for numbers, table in tables:
            lists = self.lists_of(file, numbers, table, measured)
            measured.lists.append(pa.Table.from_pylist(lists, schema=LISTS))

    def lists_of(self, file: LogFile, numbers: np.ndarray, table: pa.Table, measured: Measured) -> list[dict[str, Any]]:
        """The rows as LISTS; notes queries, grades and problems."""
        labels = Labels.of(table.column(file.place.column).combine_chunks(), file.place)
        languages: Sequence[Any] = [None] * table.num_rows
        if LANGUAGE in file.columns:
            languages = column_texts(table.column(LANGUAGE))
        lists = []
        ids = right_ids(table.column(file.place.column).combine_chunks()) if file.place.has_ids else []
        for place, (number, row) in enumerate(zip(numbers, parse_lists(table, self.mapping), strict=True)):
            of_row = labels_by_id(row, ids[place]) if file.place.has_ids else labels.grades(place)
            documents, grades, problems = judged(row, of_row, self.label)
            if file.place.has_ids:
                problems = self.unknown_ids(row, ids[place]) + problems
            measured.problems += [Problem(file.file.path, int(number), what, "row") for what in problems]
            if not any(grade > 0 for grade in grades.values()):
                continue
            assert row.candidates is not None
            name, language = f"{file.name}:{number}", languages[place]
            has_language = isinstance(language, str) and language.strip()
            measured.queries[name] = Query(row.candidates.query, language if has_language else None)
            measured.grades[name] = grades
            lists.append({"query_id": name, "query": row.candidates.query, "documents": documents})
        return lists

    def unknown_ids(self, row: ParsedRow, right: Sequence[Text]) -> list[str]:
        """What is wrong with ids that no document of the row has: nothing, or one problem."""
        known = set(names_of_documents(row))
        unknown = [one for one in right if one is not None and one not in known]
        if row.candidates is None or not unknown:
            return []
        first = repr(unknown[0]) if isinstance(unknown[0], str) else "an id that is not valid UTF-8"
        others = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        told = f"{self.label} has {first}{others}, and the row has no such document"
        if row.ids is None:
            told += f"; no document has a field {self.mapping.id_field!r} (--id-field), so they are called #0, #1, ..."
        return [told]


def drawn(files: Sequence[LogFile], count: int | None) -> Iterator[LogFile]:
    """The files with the rows that are measured: all, or so many of them, the same each time."""
    total = sum(len(file.positive) for file in files)
    chosen = np.arange(total)
    if count is not None and count < total:
        chosen = np.array(sorted(random.Random(SEED).sample(range(total), count)))
    start = 0
    for file in files:
        end = start + len(file.positive)
        here = chosen[(chosen >= start) & (chosen < end)] - start
        if len(here):
            yield replace(file, positive=file.positive[here])
        start = end


def rows_of(opened: pq.ParquetFile, file: LogFile) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yields numbers and content of the rows with a positive label, a few at once."""
    first = 0
    for group in range(opened.metadata.num_row_groups):
        end = first + opened.metadata.row_group(group).num_rows
        if not np.any((file.positive >= first) & (file.positive < end)):
            first = end
            continue
        for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=list(file.columns)):
            here = file.positive[(file.positive >= first) & (file.positive < first + batch.num_rows)]
            if len(here):
                yield here, pa.Table.from_batches([batch]).take(here - first)
            first += batch.num_rows


def labels_by_id(row: ParsedRow, right: Sequence[Text]) -> list[int | None]:
    """1 for each document of a row whose id, or place where it has none, is among those that were right; else 0."""
    wanted = {one for one in right if isinstance(one, str)}
    return [int(one in wanted) for one in names_of_documents(row)]


def names_of_documents(row: ParsedRow) -> list[str]:
    """The ids of the documents of a row; one without an id is called by its place."""
    count = 0 if row.candidates is None else len(row.candidates.documents) + len(row.null_documents)
    ids = row.ids or [None] * count
    return [f"#{place}" if one is None else one for place, one in enumerate(ids)]


def judged(
    row: ParsedRow, labels: Sequence[int | None], name: str
) -> tuple[list[dict[str, str]], dict[str, int], list[str]]:
    """The documents of a row that have a text, the grades of those that have a label, and what is wrong with the row.

    A row that cannot be used has no documents.
    """
    if row.candidates is None:
        return [], {}, [str(row.error)]
    nulls = set(row.null_documents)
    names = names_of_documents(row)
    if len(labels) != len(names):
        rule = "" if row.ids is None else "; if they are the ids of those that were right, make them texts"
        return [], {}, [f"{name} has {len(labels):,} labels for {len(names):,} documents{rule}"]
    texts = iter(row.candidates.documents)
    documents: dict[str, str] = {}
    grades: dict[str, int] = {}
    problems = [f"documents[{place}] is null" for place in row.null_documents]
    for place, label in enumerate(labels):
        if place in nulls:
            continue
        text, one = next(texts), names[place]
        if one in documents:
            problems.append(f"documents[{place}] has the id {one!r}, which another one has")
            continue
        documents[one] = text
        if label is not None:
            grades[one] = label
    if not any(grade > 0 for grade in grades.values()):
        problems.append("no document that is left has a positive label")
    return [{"id": one, "text": text} for one, text in documents.items()], grades, problems
