"""Orders of candidates -> the results of a set: measures, their intervals, and what is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from pipelines.evaluation.chance import holm, interval, p_value
from pipelines.evaluation.measures import Order, best_order, values_by_query
from pipelines.evaluation.sets import BenchmarkSet

FIRST_STAGE, CEILING = "first stage", "best possible"
"""Rows that every table has: the order in which the candidates came, and the best one that they allow."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The measures of one set: by row, then measure, then query."""

    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    languages: Mapping[str, str]
    """By query, where it is known."""


def compare(
    one: BenchmarkSet, queries: Sequence[str], orders: Mapping[str, Order], measures: Sequence[str]
) -> Compared:
    """Measures all orders over the same queries, of which each needs a grade; one without an answer counts 0."""
    grades = {query: one.grades[query] for query in queries}
    first = {row["query_id"]: [document["id"] for document in row["documents"]] for row in one.candidates.to_pylist()}
    first = {query: documents for query, documents in first.items() if query in grades}
    rows: dict[str, Order] = {FIRST_STAGE: first, **orders, CEILING: best_order(grades, first)}
    values = {
        row: {measure: values_by_query(measure, grades, order) for measure in measures} for row, order in rows.items()
    }
    known = {query: one.queries[query].language for query in queries}
    return Compared(values, {query: language for query, language in known.items() if language is not None})


def as_results(compared: Compared) -> dict[str, Any]:
    """The results of a set as JSON types."""
    return {
        "rows": {
            row: {measure: mean_of(list(by_query.values())) for measure, by_query in by_measure.items()}
            for row, by_measure in compared.values.items()
        },
        "differences": differences(compared),
        "languages": means_by_language(compared),
    }


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """The mean with its 95% interval."""
    low, high = interval(values)
    return {"mean": fmean(values), "low": low, "high": high}


def differences(compared: Compared) -> list[dict[str, Any]]:
    """For each measure and any two rows the difference of their means and its p-value, raw and corrected by Holm.

    The correction is over the differences to the first stage of one measure, and apart from these over all others:
    whether a model is better than what came in does not depend on how many pairs stand beside it.
    """
    rows = [row for row in compared.values if row not in (FIRST_STAGE, CEILING)]
    families = [(FIRST_STAGE, row) for row in rows], list(combinations(rows, 2))
    return [
        one
        for measure in next(iter(compared.values.values()))
        for pairs in families
        for one in differences_of(compared, measure, pairs)
    ]


def differences_of(compared: Compared, measure: str, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The differences of these rows, corrected for how many there are."""
    values = {row: list(by_measure[measure].values()) for row, by_measure in compared.values.items()}
    raw = [p_value(values[one], values[other]) for one, other in pairs]
    return [
        {
            "measure": measure,
            "from": one,
            "to": other,
            "difference": fmean(values[other]) - fmean(values[one]),
            "p": p,
            "p_holm": corrected,
        }
        for (one, other), p, corrected in zip(pairs, raw, holm(raw), strict=True)
    ]


def means_by_language(compared: Compared) -> dict[str, dict[str, Any]]:
    """By language, the number of its queries, and the means by row and measure; empty where there are not two."""
    languages = sorted(set(compared.languages.values()))
    if len(languages) < 2:
        return {}
    return {language: means_of_language(compared, language) for language in languages}


def means_of_language(compared: Compared, language: str) -> dict[str, Any]:
    """What `means_by_language` says of one."""
    queries = [query for query, spoken in compared.languages.items() if spoken == language]
    rows = {
        row: {measure: fmean(values[query] for query in queries) for measure, values in by_measure.items()}
        for row, by_measure in compared.values.items()
    }
    return {"queries": len(queries), "rows": rows}
