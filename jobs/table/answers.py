"""Turns rankings into Arrow columns: each row comes out with its answer or its error."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from jobs.table.columns import RANKING_TYPE, ColumnMapping, Layout, kept_columns, output_names
from jobs.table.parsing import ParsedRow
from jobs.table.reasons import Reason
from pipelines.records import RankedDocument, Ranking


def append_answers(
    table: pa.Table,
    rows: Sequence[ParsedRow],
    rankings: Sequence[Ranking | None],
    layout: Layout,
    mapping: ColumnMapping,
    top_n: int | None = None,
    *,
    with_nulls: bool = True,
) -> pa.Table:
    """The rows with their two new columns, as list rows or pair rows have them."""
    if layout is Layout.LISTS:
        return append_rankings(table, rows, rankings, mapping, top_n, with_nulls=with_nulls)
    return append_scores(table, rows, rankings, mapping)


def append_rankings(
    table: pa.Table,
    rows: Sequence[ParsedRow],
    rankings: Sequence[Ranking | None],
    mapping: ColumnMapping,
    top_n: int | None = None,
    *,
    with_nulls: bool = True,
) -> pa.Table:
    """The list rows with `ranking` and `error`: for each row one of the two is null.

    `rows` and `rankings` are as long as the table; a row with an error of its own needs no ranking. The rankings have
    at most `top_n` documents each; where one has fewer, null documents follow, or are left out without `with_nulls`.
    """
    errors = _errors(rows, rankings)
    ranking_array = _ranking_array(rows, _scored(rankings, errors), top_n, with_nulls)
    return _with_answers(table, mapping, Layout.LISTS, ranking_array, errors)


def append_scores(
    table: pa.Table, rows: Sequence[ParsedRow], rankings: Sequence[Ranking | None], mapping: ColumnMapping
) -> pa.Table:
    """The pair rows with `relevance_score` and `error`: for each row one of the two is null."""
    errors = _errors(rows, rankings)
    scores = [None if ranked is None else ranked[0].relevance_score for ranked in _scored(rankings, errors)]
    return _with_answers(table, mapping, Layout.PAIRS, pa.array(scores, pa.float32()), errors)


def _errors(rows: Sequence[ParsedRow], rankings: Sequence[Ranking | None]) -> list[str | None]:
    return [_error(row, ranking) for row, ranking in zip(rows, rankings, strict=True)]


def _error(row: ParsedRow, ranking: Ranking | None) -> str | None:
    if row.error is not None:
        return row.error
    return f"{Reason.NOT_RANKED}: no scores came back" if ranking is None else ranking.error


def _scored(rankings: Sequence[Ranking | None], errors: Sequence[str | None]) -> list[list[RankedDocument] | None]:
    return [
        ranking.documents if ranking is not None and error is None else None
        for ranking, error in zip(rankings, errors, strict=True)
    ]


def _ranking_array(
    rows: Sequence[ParsedRow], scored: Sequence[list[RankedDocument] | None], top_n: int | None, with_nulls: bool
) -> pa.ListArray:
    starts: list[int | None] = []
    ids: list[str | None] = []
    indexes: list[int] = []
    scores: list[float | None] = []
    for row, documents in zip(rows, scored, strict=True):
        starts.append(None if documents is None else len(indexes))
        if documents is None:
            continue
        ranked = [*_indexes_of(row, documents), *(row.null_documents if with_nulls else ())][:top_n]
        indexes += ranked
        scores += [one.relevance_score for one in documents] + [None] * (len(ranked) - len(documents))
        ids += [row.ids[index] if row.ids is not None else None for index in ranked]
    fields = list(RANKING_TYPE.value_type)
    arrays = [pa.array(values, field.type) for values, field in zip((ids, indexes, scores), fields, strict=True)]
    offsets = pa.array([*starts, len(indexes)], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, fields=fields), type=RANKING_TYPE)


def _indexes_of(row: ParsedRow, ranked: Sequence[RankedDocument]) -> list[int]:
    """Indexes in the caller's list, where a ranking has those of candidates."""
    if not row.null_documents:
        return [one.index for one in ranked]
    absent = set(row.null_documents)
    size = len(absent) + (0 if row.candidates is None else len(row.candidates.documents))
    present = [index for index in range(size) if index not in absent]
    return [present[one.index] for one in ranked]


def _with_answers(
    table: pa.Table, mapping: ColumnMapping, layout: Layout, answers: pa.Array, errors: list[str | None]
) -> pa.Table:
    answer_name, error_name = output_names(mapping, layout)
    kept = table.select(kept_columns(table.schema, mapping))
    return kept.append_column(answer_name, answers).append_column(error_name, pa.array(errors, pa.string()))
