"""Measures of an order, by `ir_measures`, whose numbers are those of trec_eval.

They are given ranks and never scores: equal scores would be ordered by each library's own rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, missing_packages

OTHER_NAMES = {"MRR": "RR", "recall": "R", "precision": "P"}
"""What people call some measures of ir_measures."""
LAST_RANK = 2**63 - 1
"""Of trec_eval; a cutoff beyond it is taken for this one, and rank 0 ends the process."""
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
        measure = ir_measures.parse_measure(f"{OTHER_NAMES.get(kind, kind)}{at}{cutoff}")
        ir_measures.evaluator([measure], [ir_measures.Qrel("q", "d", 1)])  # some want packages that are not installed
        if not 0 < measure.params.get("cutoff", 1) <= LAST_RANK:
            raise ValueError
    except (ValueError, NameError, TypeError, SyntaxError, AssertionError, KeyError):
        raise ConfigError(
            f"--measure is {name!r}; give {', '.join(DEFAULT_MEASURES)}, or another one that ir_measures can compute"
        ) from None
    return measure


def values_by_query(name: str, grades: Grades, order: Order) -> dict[str, float]:
    """The measure of each query in `grades`; 0 for one without an answer. Raises ConfigError as `parse_measure`."""
    ir_measures = load_ir_measures()
    numbered = Numbered()
    qrels = [
        ir_measures.Qrel(numbered[query], numbered[document], grade)
        for query, of_query in grades.items()
        for document, grade in of_query.items()
    ]
    values = dict.fromkeys(grades, 0.0)
    answered = {query: documents for query, documents in order.items() if query in values}
    if any(answered.values()):
        run = list(scored_documents(answered, numbered))
        found = {one.query_id: one.value for one in ir_measures.iter_calc([parse_measure(name)], qrels, run)}
        values |= {query: float(found[number]) for query in values if (number := numbered[query]) in found}
    return values


class Numbered(dict[str, str]):
    """A number for each id, as a text: trec_eval would cut an id at a NUL, and ends the process where two are alike."""

    def __missing__(self, one: str) -> str:
        self[one] = str(len(self))
        return self[one]


def scored_documents(order: Order, numbered: Numbered) -> Iterator[Any]:
    """Each document with its negative rank as its score, so that scores fall strictly."""
    ir_measures = load_ir_measures()
    for query, documents in order.items():
        for rank, document in enumerate(documents):
            yield ir_measures.ScoredDoc(numbered[query], numbered[document], -float(rank))


def best_order(grades: Grades, candidates: Order) -> dict[str, list[str]]:
    """The candidates in the best order there is: what the first stage did not find stays missed."""

    def best_first(query: str) -> list[str]:
        of_query = grades.get(query, {})
        return sorted(candidates[query], key=lambda document: -of_query.get(document, 0))

    return {query: best_first(query) for query in candidates}
