"""Turns the rows of a unit into answered rows and their counts, whoever scores their lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from jobs.records import Counts
from jobs.scoring.scorer import Effort, ListScorer, ends_scoring
from jobs.table.answers import append_answers
from jobs.table.columns import ColumnMapping, Layout
from jobs.table.parsing import ParsedRow, parse_rows
from jobs.table.reasons import Reason, reason_of
from pipelines.records import CandidateList, Ranking, Usage


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows of a unit with their answer columns."""

    table: pa.Table
    counts: Counts
    spent: Effort = field(default_factory=Effort)
    """What answering took; no part of the answer."""


def answer(
    table: pa.Table,
    scorer: ListScorer,
    layout: Layout,
    mapping: ColumnMapping,
    top_n: int | None = None,
    score_threshold: float | None = None,
) -> Answered:
    """Each row with its ranking (or score) or its error; raises only what means that the scorer is unfit.

    `top_n` and the threshold are the scorer's. A null document has no score, and so none that reaches a threshold.
    """
    spent = Effort()
    rows = parse_rows(table, layout, mapping)
    rankings = rank(rows, scorer, spent)
    answered = append_answers(table, rows, rankings, layout, mapping, top_n, with_nulls=score_threshold is None)
    return Answered(answered, count(rows, rankings), spent)


def without_answers(table: pa.Table, error: str, layout: Layout, mapping: ColumnMapping) -> Answered:
    """All rows of a table with the same error."""
    rows = [ParsedRow(candidates=None, ids=None, error=error)] * table.num_rows
    rankings = [None] * table.num_rows
    return Answered(append_answers(table, rows, rankings, layout, mapping), count(rows, rankings))


def rank(rows: Sequence[ParsedRow], scorer: ListScorer, spent: Effort) -> list[Ranking | None]:
    """A ranking for each row that has candidates."""
    lists = [row.candidates for row in rows if row.candidates is not None]
    try:
        rankings = scorer.rerank_lists(lists, spent)
    except Exception as error:
        if ends_scoring(error):
            raise
        rankings = [rank_alone(one, scorer, spent) for one in lists]  # one of them fails; find out which
    answers = iter(rankings)
    return [None if row.candidates is None else next(answers) for row in rows]


def rank_alone(candidates: CandidateList, scorer: ListScorer, spent: Effort) -> Ranking:
    """The ranking of one list, or why there is none."""
    try:
        return scorer.rerank_lists([candidates], spent)[0]
    except Exception as error:
        if ends_scoring(error):
            raise
        return Ranking([], Usage(), f"{Reason.SCORING_FAILED}: {type(error).__name__}: {error}")


def count(rows: Sequence[ParsedRow], rankings: Sequence[Ranking | None]) -> Counts:
    """Rows, errors by reason, usage, and the documents of a unit that are null or below the threshold."""
    answered = [ranking for ranking in rankings if ranking is not None]
    messages = [row.error for row in rows] + [ranking.error for ranking in answered]
    errors = Counter(reason_of(message) for message in messages if message is not None)
    return Counts(
        rows=len(rows),
        errors=dict(sorted(errors.items())),
        usage=sum((one.usage for one in answered), Usage()),
        null_documents=sum(len(row.null_documents) for row in rows),
        documents_below_threshold=sum(one.below_threshold for one in answered),
    )
