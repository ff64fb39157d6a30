"""`python -m jobs.benchmark reuse`: the log that it scores, and the ways to score it. Measured in `jobs.benchmark`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.memory import RecentLogits, ReusingEngine, StoredLogits, halves
from pipelines.records import CandidateList

if TYPE_CHECKING:  # torch: seconds, and not for --help
    from pipelines.reranker import Reranker

UNIT_LISTS = 30
"""Lists of ten short documents in a unit, as `jobs.input.cutting` would cut them."""
LIST_DOCUMENTS = 10
QUERIES, DOCUMENTS = 500, 2_000
"""Different ones to draw from."""


def zipfian_log(lists: int, make_query: Callable[[], str], make_document: Callable[[], str]) -> list[CandidateList]:
    """Seeded; a query's and a document's frequency is 1 / its rank. A query finds the same documents each time."""
    rng = random.Random(0)
    documents = [make_document() for _ in range(DOCUMENTS)]
    found = [CandidateList(make_query(), draw_documents(rng, documents)) for _ in range(QUERIES)]
    return rng.choices(found, by_rank(found), k=lists)


def draw_documents(rng: random.Random, documents: Sequence[str]) -> list[str]:
    """Different ones, as many as a list has."""
    drawn: dict[str, None] = {}
    while len(drawn) < LIST_DOCUMENTS:
        drawn |= dict.fromkeys(rng.choices(documents, by_rank(documents)))
    return list(drawn)


def by_rank(ranked: Sequence[object]) -> list[float]:
    """Zipf's law."""
    return [1 / rank for rank in range(1, len(ranked) + 1)]


def share_of_distinct_pairs(log: Sequence[CandidateList]) -> float:
    """By their texts."""
    pairs = [(one.query, document) for one in log for document in one.documents]
    return len(set(pairs)) / len(pairs)


def score_log(
    reranker: Reranker, log: Sequence[CandidateList], recent_pairs: int, stored: StoredLogits
) -> tuple[np.ndarray, dict[bytes, float]]:
    """The scores of a log that one replica scores unit by unit, list by list in input order; and what was new."""
    recent = RecentLogits(recent_pairs)
    scores: list[float] = []
    new_logits: dict[bytes, float] = {}
    for start in range(0, len(log), UNIT_LISTS):
        engine = ReusingEngine(reranker.engine, recent, stored)
        for ranking in reranker.with_engine(engine).rerank_lists(log[start : start + UNIT_LISTS]):
            scores += [one.relevance_score for one in sorted(ranking.documents, key=lambda one: one.index)]
        new_logits |= engine.new_logits
    return np.array(scores), new_logits


def full_store(new_logits: dict[bytes, float]) -> StoredLogits:
    """What a run that starts with all of these loads."""
    return StoredLogits.of(*halves(b"".join(new_logits)), np.array(list(new_logits.values()), np.float32))
