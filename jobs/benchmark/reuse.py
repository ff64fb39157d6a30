"""`python -m jobs.benchmark reuse`: a log that repeats its popular pairs, without and with what is remembered."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from jobs.benchmark.engine import EQUAL
from jobs.benchmark.lists import short_document, vocabulary
from jobs.benchmark.report import CORES, Model, Output, Rounds, Threads, interleave, report
from jobs.settings import RECENT_PAIRS
from pipelines.memory import RecentLogits, ReusingEngine, StoredLogits, halves
from pipelines.records import CandidateList

if TYPE_CHECKING:  # torch: seconds, and not for --help
    from pipelines.reranker import Reranker

UNIT_LISTS = 30
"""Lists of ten short documents in a unit, as `jobs.input.cutting` would cut them."""
LIST_DOCUMENTS = 10
QUERIES, DOCUMENTS = 500, 2_000
"""How many different queries and documents the log is drawn from."""


def reuse(
    model: Model = "embedded",
    threads: Threads = CORES,
    rounds: Rounds = 3,
    pairs: Annotated[int, typer.Option(help="Short pairs by Zipf's law, in lists of 10.")] = 6_000,
    output: Output = None,
) -> None:
    """One replica over a Zipfian log: each unit for itself, with the default memory, with a store that knows all."""
    from jobs.benchmark.reuse import full_store, score_log, share_of_distinct_pairs, zipfian_log
    from pipelines.memory import StoredLogits
    from pipelines.reranker import Reranker

    words, rng = vocabulary(), random.Random(1)
    log = zipfian_log(pairs // 10, lambda: " ".join(rng.choices(words, k=9)), lambda: short_document(rng, words))
    reranker = Reranker.load(model, num_threads=threads)
    expected, logits = score_log(reranker, log, 0, StoredLogits())
    stores = {
        "nothing remembered": (0, StoredLogits()),
        "memory": (RECENT_PAIRS, StoredLogits()),
        "full store": (0, full_store(logits)),
    }
    differences = [np.abs(score_log(reranker, log, *side)[0] - expected).max() for side in stores.values()]
    if max(differences) > EQUAL:
        raise typer.BadParameter(f"scores differ by {max(differences):.1e}; what is remembered would be wrong")
    sides: dict[str, Callable[[], Any]] = {
        name: partial(score_log, reranker, log, *side) for name, side in stores.items()
    }
    medians = {name: statistics.median(times) for name, times in interleave(sides, rounds).items()}
    distinct = share_of_distinct_pairs(log)
    report(
        f"{pairs} short pairs, {distinct:.0%} of them distinct, {threads} threads, {rounds} rounds; "
        f"scores differ by {max(differences):.1e}",
        {
            name: {"pairs_per_second": pairs / median, "is_faster_by": medians["nothing remembered"] / median}
            for name, median in medians.items()
        },
        {"share_of_distinct_pairs": distinct, "largest_score_difference": float(max(differences)), "seconds": medians},
        output,
    )


def zipfian_log(lists: int, make_query: Callable[[], str], make_document: Callable[[], str]) -> list[CandidateList]:
    """Seeded; a query's and a document's frequency is 1 / its rank. A query finds the same documents each time."""
    rng = random.Random(0)
    documents = [make_document() for _ in range(DOCUMENTS)]
    found = [CandidateList(make_query(), draw_documents(rng, documents)) for _ in range(QUERIES)]
    return rng.choices(found, by_rank(found), k=lists)


def draw_documents(rng: random.Random, documents: Sequence[str]) -> list[str]:
    """The documents of one list, of which no two are the same."""
    drawn: dict[str, None] = {}
    while len(drawn) < LIST_DOCUMENTS:
        drawn |= dict.fromkeys(rng.choices(documents, by_rank(documents)))
    return list(drawn)


def by_rank(ranked: Sequence[object]) -> list[float]:
    """Weights by Zipf's law: 1 / rank."""
    return [1 / rank for rank in range(1, len(ranked) + 1)]


def share_of_distinct_pairs(log: Sequence[CandidateList]) -> float:
    """How many different pairs of texts a log has, as a share of all its pairs."""
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
    """The logits as a run loads them from a score store that knows all pairs."""
    return StoredLogits.of(*halves(b"".join(new_logits)), np.array(list(new_logits.values()), np.float32))
