"""What an evaluation tells beside means: how scores lie, lengths of documents, and queries that moved. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from jobs.evaluation.comparison import FIRST_STAGE, Compared
from jobs.evaluation.systems import Scores
from pipelines.evaluation.calibration import expected_calibration_error, probabilities_of, reliability
from pipelines.evaluation.measures import Grades, Order

HISTOGRAM_BINS = 30
LENGTH_GROUPS = 4
MOVERS = 3
"""Queries that are shown of those that gained the most, and of those that lost the most."""


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """The scores of pairs, and whether each is relevant: graded above 0. What nobody graded counts as not relevant."""

    scores: np.ndarray
    relevant: np.ndarray

    @classmethod
    def of(cls, scores: Scores, grades: Grades) -> ScoredPairs:
        """The pairs of all queries that have scores."""
        pairs = [
            (score, grades[query].get(document, 0) > 0)
            for query, of_query in scores.items()
            for document, score in of_query.items()
        ]
        found = [pair for pair in pairs if np.isfinite(pair[0])]
        return cls(np.asarray([pair[0] for pair in found]), np.asarray([pair[1] for pair in found], dtype=bool))

    @classmethod
    def together(cls, parts: Sequence[ScoredPairs]) -> ScoredPairs:
        """The pairs of several sets."""
        return cls(np.concatenate([one.scores for one in parts]), np.concatenate([one.relevant for one in parts]))


def about_scores(pairs: ScoredPairs, probabilities: bool, scale: float = 1.0, bias: float = 0.0) -> dict[str, Any]:
    """How scores of relevant and other pairs lie, and, for logits of probabilities, how far these can be believed.

    `scale` and `bias` are those of the model's calibration.
    """
    if not len(pairs.scores):
        return {"pairs": 0, "relevant": 0}
    edges = np.linspace(*edges_of(pairs.scores), HISTOGRAM_BINS + 1)
    counts = {
        name: [int(one) for one in np.histogram(pairs.scores[chosen], edges)[0]]
        for name, chosen in (("relevant", pairs.relevant), ("others", ~pairs.relevant))
    }
    told = {
        "pairs": len(pairs.scores),
        "relevant": int(pairs.relevant.sum()),
        "histogram": {"edges": [float(edge) for edge in edges], **counts},
    }
    return told | ({"calibration": calibration(pairs, scale, bias)} if probabilities else {})


def edges_of(scores: np.ndarray) -> tuple[float, float]:
    """The ends of a histogram that has all scores in it."""
    low, high = float(scores.min()), float(scores.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def calibration(pairs: ScoredPairs, scale: float, bias: float) -> dict[str, Any]:
    """The reliability diagram of logits, and its expected calibration error."""
    bins = reliability(probabilities_of(scale * pairs.scores + bias), pairs.relevant)
    return {"expected_calibration_error": expected_calibration_error(bins), "bins": [asdict(one) for one in bins]}


def by_length(compared: Compared, lengths: Mapping[str, float], measure: str) -> list[dict[str, Any]]:
    """The means of queries in groups of about the same size, by how long what answers them is.

    `lengths` are in characters, by query; a query without one is in no group. There are no groups of fewer than 2.
    """
    if not lengths:
        return []
    ends = np.unique(np.quantile(list(lengths.values()), np.linspace(0, 1, LENGTH_GROUPS + 1)))
    groups = []
    for number, (low, high) in enumerate(pairwise(ends)):
        queries = [one for one, length in lengths.items() if low < length <= high or (number == 0 and length == low)]
        if len(queries) > 1:
            rows = {
                row: fmean(by_measure[measure][query] for query in queries)
                for row, by_measure in compared.values.items()
            }
            groups.append({"from": float(low), "to": float(high), "queries": len(queries), "rows": rows})
    return groups


def lengths_of_answers(grades: Grades, texts: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """The mean length of each query's relevant candidates, in characters; `texts` are those of its candidates."""
    lengths: dict[str, float] = {}
    for query, of_query in texts.items():
        found = [len(text) for document, text in of_query.items() if grades.get(query, {}).get(document, 0) > 0]
        if found:
            lengths[query] = fmean(found)
    return lengths


def movers(compared: Compared, row: str, measure: str) -> dict[str, list[dict[str, Any]]]:
    """The queries whose measure rose the most over the first stage, and those whose fell the most."""
    before, after = compared.values[FIRST_STAGE][measure], compared.values[row][measure]
    moved = sorted(before, key=lambda query: (before[query] - after[query], query))
    gained = [query for query in moved[:MOVERS] if after[query] > before[query]]
    lost = [query for query in moved[::-1][:MOVERS] if after[query] < before[query]]
    return {
        name: [{"query_id": query, "before": before[query], "after": after[query]} for query in queries]
        for name, queries in (("gained", gained), ("lost", lost))
    }


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document in the list of a query."""

    document: str
    text: str
    grade: int | None
    """None where nobody graded it."""


@dataclass(frozen=True, slots=True)
class Story:
    """A query that moved, with its texts, which the results leave out."""

    set_name: str
    row: str
    query_id: str
    query: str
    before: float
    after: float
    lists: tuple[tuple[Ranked, ...], tuple[Ranked, ...]]
    """The whole lists of the first stage and of the row."""


def told_story(
    set_name: str,
    row: str,
    mover: Mapping[str, Any],
    query: str,
    texts: Mapping[str, str],
    grades: Mapping[str, int],
    orders: tuple[Order, Order],
) -> Story:
    """The story of one that `movers` found; `texts` and `grades` are of its documents."""
    one = mover["query_id"]
    first, then = (
        tuple(Ranked(document, texts[document], grades.get(document)) for document in order.get(one, ()))
        for order in orders
    )
    return Story(set_name, row, one, query, mover["before"], mover["after"], (first, then))
