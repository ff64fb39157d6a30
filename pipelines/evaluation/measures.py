"""Measures of an order, by `ir_measures`, whose numbers are those of trec_eval.

They are given ranks and never scores: equal scores would be ordered by each library's own rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, missing_packages

OTHER_NAMES = {"MRR": "RR", "recall": "R", "precision": "P"}
"""What people call some measures of ir_measures."""
DEFAULT_MEASURES = ("nDCG@10", "recall@10", "recall@3", "MRR@10")

Grades = Mapping[str, Mapping[str, int]]
"""By query, then document."""
Order = Mapping[str, Sequence[str]]
"""By query: the ids of its documents, best first. A query that is missing has no answer."""


def load_ir_measures() -> Any:
    """The package; raises ConfigError where it is not installed."""
    try:
        import ir_measures  # optional: the extra `evaluate`
    except ImportError:
        raise ConfigError(missing_packages("An evaluation", "ir-measures scipy", "the extra evaluate")) from None
    return ir_measures


def parse_measure(name: str) -> Any:
    """The measure of ir_measures that a name such as nDCG@10, recall@3 or MRR@10 means; raises ConfigError."""
    ir_measures = load_ir_measures()
    kind, at, cutoff = name.partition("@")
    try:
        return ir_measures.parse_measure(f"{OTHER_NAMES.get(kind, kind)}{at}{cutoff}")
    except (ValueError, NameError, TypeError, SyntaxError):
        raise ConfigError(
            f"--measure is {name!r}; give {', '.join(DEFAULT_MEASURES)}, or another name that ir_measures has"
        ) from None


def values_by_query(name: str, grades: Grades, order: Order) -> dict[str, float]:
    """The measure of each query in `grades`; 0 for one without an answer. Raises ConfigError as `parse_measure`."""
    ir_measures = load_ir_measures()
    qrels = [
        ir_measures.Qrel(query, document, grade)
        for query, of_query in grades.items()
        for document, grade in of_query.items()
    ]
    values = dict.fromkeys(grades, 0.0)
    answered = {query: documents for query, documents in order.items() if query in values}
    if any(answered.values()):
        found = ir_measures.iter_calc([parse_measure(name)], qrels, list(scored_documents(answered)))
        values |= {one.query_id: float(one.value) for one in found}
    return values


def scored_documents(order: Order) -> Iterator[Any]:
    """Each document with its negative rank as its score, so that scores fall strictly."""
    ir_measures = load_ir_measures()
    for query, documents in order.items():
        for rank, document in enumerate(documents):
            yield ir_measures.ScoredDoc(query, document, -float(rank))


def best_order(grades: Grades, candidates: Order) -> dict[str, list[str]]:
    """The candidates in the best order there is: what the first stage did not find stays missed."""

    def best_first(query: str) -> list[str]:
        of_query = grades.get(query, {})
        return sorted(candidates[query], key=lambda document: -of_query.get(document, 0))

    return {query: best_first(query) for query in candidates}
