"""What workers do for `crossray label`, a piece of INPUT at a time: they write lists, count words, and add scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.errors import StoppedError, UnreadableFileError
from jobs.input.reading import read_rows
from jobs.input.selection import Selection
from jobs.records import Unit
from jobs.table.columns import ColumnMapping
from jobs.training.bad_rows import BadRow
from jobs.training.encoders import EncoderSettings
from jobs.training.label.frequencies import ALL, read_frequencies, write_counted_words, write_seen
from jobs.training.label.teachers import Kind, Teacher
from jobs.training.label.text_lists import TextList, scores_array, text_lists
from jobs.training.ranked import LISTS, Rankings
from jobs.training.table_output import note_unreadable, write_counted
from pipelines.evaluation.analysis import words_of
from pipelines.evaluation.fusion import z_scores

LISTS_ROOM, FREQUENCIES_ROOM = "_lists", "_frequencies"
RowScores = np.ndarray | BadRow
"""A score for each document of a row, NaN for a null document; or why the row has no scores."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """All that workers are told."""

    output: str
    column: str
    mapping: ColumnMapping
    selection: Selection
    teacher: Teacher
    encoders: Mapping[Teacher, EncoderSettings]
    rankings: Mapping[Teacher, Rankings]
    """What the rerankers among the teachers said of all lists; empty until they have ranked."""
    counted: str | None = None
    """A file with the word counts for BM25; None where those of INPUT count."""

    def room(self, name: str) -> str:
        return os.path.join(self.output, name)

    def read(self, piece: Unit) -> pa.Table | None:
        """The rows of a piece; None where they cannot be read: then it leaves a note that says why."""
        try:
            return read_rows(piece, self.selection)
        except UnreadableFileError as error:
            note_unreadable(self.output, piece.name, piece.path, error.why.splitlines()[0])
            return None

    def lists(self, table: pa.Table) -> list[TextList | BadRow]:
        return text_lists(table, self.mapping)


class ReadStage:
    """Writes what teachers need first of a piece: lists without nulls for a reranker, digests of texts for BM25."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling

    def __call__(self, item: dict[str, Any]) -> None:
        piece = Unit(**item["piece"])
        table = self.labelling.read(piece)
        if table is None:
            return
        rows = self.labelling.lists(table)
        if item["lists"]:
            storage.write_table(os.path.join(self.labelling.room(LISTS_ROOM), piece.name), lists_table(rows))
        if item["seen"]:
            write_seen(self.labelling.room(FREQUENCIES_ROOM), piece.name, distinct_texts(rows)[1])


class CountStage:
    """Counts the words of the documents that a piece owns."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling

    def __call__(self, item: dict[str, Any]) -> None:
        piece = Unit(**item)
        table = self.labelling.read(piece)
        if table is not None:
            texts = distinct_texts(self.labelling.lists(table))[1]
            write_counted_words(self.labelling.room(FREQUENCIES_ROOM), piece.name, texts)


class LabelStage:
    """Writes the part of a piece: its rows with the teacher's scores."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        self.score = {member: scorer_of(member, labelling) for member in labelling.teacher.members}

    def __call__(self, item: dict[str, Any]) -> None:
        piece = Unit(**item)
        table = self.labelling.read(piece)
        if table is None:
            return
        rows = self.labelling.lists(table)
        by_member = [score(piece, rows) for score in self.score.values()]
        is_fusion = self.labelling.teacher.kind is Kind.FUSION
        outcomes = [fused(outcomes) if is_fusion else outcomes[0] for outcomes in zip(*by_member, strict=True)]
        labelled = with_column(table, self.labelling.column, scores_of(outcomes))
        write_counted(os.path.join(self.labelling.output, piece.name), labelled, counts_of_rows(rows, outcomes))


Score = Callable[[Unit, Sequence[TextList | BadRow]], list[RowScores]]
"""Gives, for the rows of a piece, what a teacher says of each."""


def scorer_of(member: Teacher, labelling: Labelling) -> Score:
    """The function that scores by one teacher; loads what the teacher needs."""
    if member.kind is Kind.RERANKER:
        rankings = labelling.rankings[member]
        return lambda piece, rows: reranked(rankings, os.path.join(labelling.room(LISTS_ROOM), piece.name), rows)
    if member.kind is Kind.BM25:
        return bm25_scorer(labelling)
    return dense_scorer(labelling.encoders[member])


def bm25_scorer(labelling: Labelling) -> Score:
    """Scores by BM25, over the word counts of all documents of INPUT, or of the collection that was counted before."""
    frequencies = read_frequencies(labelling.counted or os.path.join(labelling.room(FREQUENCIES_ROOM), ALL))

    def score(_: Unit, rows: Sequence[TextList | BadRow]) -> list[RowScores]:
        queries, texts = distinct_texts(rows)
        texts_and_queries = list(dict.fromkeys([*texts, *queries]))
        words = dict(zip(texts_and_queries, words_of(texts_and_queries), strict=True))

        def scores(row: TextList) -> list[float]:
            return [frequencies.score(words[row.query], words[text]) for text in row.texts]

        return [row_scores(row, scores) for row in rows]

    return score


def dense_scorer(settings: EncoderSettings) -> Score:
    """Scores by the cosine of the vectors of query and document."""
    encoder = settings.load()

    def score(_: Unit, rows: Sequence[TextList | BadRow]) -> list[RowScores]:
        queries, texts = distinct_texts(rows)
        of_queries, of_texts = encoder.encode_queries(queries), encoder.encode_passages(texts)
        asked, place = ({text: i for i, text in enumerate(some)} for some in (queries, texts))

        def cosines(row: TextList) -> np.ndarray:
            return np.asarray(of_texts[[place[text] for text in row.texts]] @ of_queries[asked[row.query]])

        return [row_scores(row, cosines) for row in rows]

    return score


def lists_table(rows: Sequence[TextList | BadRow]) -> pa.Table:
    """The good rows as a table that the offline job ranks; `row` is the number of a row in its piece."""
    good = [(number, row) for number, row in enumerate(rows) if isinstance(row, TextList)]
    columns = {
        "row": [number for number, _ in good],
        "query": [row.query for _, row in good],
        "documents": [row.texts for _, row in good],
    }
    return pa.table(columns, schema=LISTS)


def distinct_texts(rows: Sequence[TextList | BadRow]) -> tuple[list[str], list[str]]:
    """The distinct queries and the distinct documents of the good rows."""
    good = [row for row in rows if isinstance(row, TextList)]
    return list(dict.fromkeys(row.query for row in good)), list(dict.fromkeys(t for row in good for t in row.texts))


def row_scores(row: TextList | BadRow, score: Callable[[TextList], Sequence[float] | np.ndarray]) -> RowScores:
    """The row's scores, each in the place of its document; NaN where the document is null."""
    if isinstance(row, BadRow):
        return row
    scores = np.full(len(row.documents), np.nan)
    if row.places:
        scores[row.places] = score(row)
    return scores


def reranked(rankings: Rankings, list_file: str, rows: Sequence[TextList | BadRow]) -> list[RowScores]:
    """The scores that the offline job gave the lists of a piece; raises StoppedError where one has none."""
    found = rankings.read(list_file)
    outcomes: list[RowScores] = []
    for number, row in enumerate(rows):
        if isinstance(row, BadRow):
            outcomes.append(row)
            continue
        ranking = found.get(number)
        if ranking is None:
            raise StoppedError(f"row {number} of {list_file} was not ranked; run the same command again")
        if isinstance(ranking, BadRow):
            outcomes.append(ranking)
            continue
        scores = np.full(len(row.documents), np.nan)
        for place, score in ranking:
            scores[row.places[place]] = score
        outcomes.append(scores)
    return outcomes


def fused(outcomes: Sequence[RowScores]) -> RowScores:
    """The sum of the teachers' z-scores within the list, or the first error that one of them has for the row."""
    total: np.ndarray | None = None
    for one in outcomes:
        if isinstance(one, BadRow):
            return one
        total = z_scores(one) if total is None else total + z_scores(one)
    assert total is not None  # a fusion has members
    return total


def scores_of(outcomes: Sequence[RowScores]) -> pa.Array:
    """The new column; null for a row without scores."""
    return scores_array([None if isinstance(one, BadRow) else one for one in outcomes])


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The table with the column at its end, or in place of a column of the same name."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def counts_of_rows(rows: Sequence[TextList | BadRow], outcomes: Sequence[RowScores]) -> dict[str, Any]:
    """The counts that the footer of a part holds."""
    errors: dict[str, int] = {}
    for one in outcomes:
        if isinstance(one, BadRow):
            errors[one.reason] = errors.get(one.reason, 0) + 1
    scored = [one for one in outcomes if not isinstance(one, BadRow)]
    nulls = sum(row.documents.count(None) for row in rows if isinstance(row, TextList))
    return {
        "rows": len(rows),
        "lists": len(scored),
        "documents": sum(len(one) for one in scored),
        "null_documents": nulls,
        "errors": errors,
    }
