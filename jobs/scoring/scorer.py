"""The Scorer of a job's replica: one Reranker that turns the rows of a unit into answered rows and their counts."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa

from jobs.errors import DeadlyError, StoppedError
from jobs.records import Counts
from jobs.settings import RerankSettings
from jobs.table.answers import append_rankings, append_scores
from jobs.table.columns import Layout
from jobs.table.parsing import ParsedRow, parse_lists, parse_pairs
from jobs.table.reasons import reason_of
from pipelines.memory import RecentLogits, ReusingEngine, StoredLogits
from pipelines.records import CandidateList, Ranking, ScoringTime, Usage


@dataclass(slots=True)
class Effort(ScoringTime):
    """What it took to answer a unit, and what was learned; depends on what was known, so it is no part of Counts."""

    waited: float = 0.0
    """Seconds until the model was free; no part of `forward`."""
    chunks_reused: int = 0
    """Of those in Usage: chunks that did not go through the model, equal ones within the unit among them."""
    new_logits: dict[bytes, float] = field(default_factory=dict)
    """Of the others, by the digest of their token pair."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows of a unit with their answer columns."""

    table: pa.Table
    counts: Counts
    spent: Effort = field(default_factory=Effort)
    """By whoever answered; no part of the answer."""


class Scorer:
    """Loads the model once and scores units; several threads may ask, while the model computes for one at a time."""

    stored = StoredLogits()
    """What earlier runs left; see `jobs.score_store.store`."""

    def __init__(self, settings: RerankSettings, layout: Layout, fingerprint: str) -> None:
        """Raises RuntimeError when the model on this node is not the one that the driver saw."""
        # The tokenizer's own threads follow the replica's CPUs, as torch's do; read when its first batch comes.
        os.environ["RAYON_NUM_THREADS"] = str(settings.num_cpus)
        with nothing_collected():
            from pipelines.reranker import Reranker  # torch: a second, and not for the driver

            self.reranker = Reranker.from_config(settings.reranker)
        self.settings = settings
        self.layout = layout
        self.turn: AbstractContextManager[Any] = Lock()
        self.recent = RecentLogits(settings.recent_pairs)
        loaded = self.reranker.fingerprint
        if loaded.hash != fingerprint:
            raise RuntimeError(
                f"the model on this node is not the one the job was planned with: fingerprint {loaded.hash} "
                f"({loaded.as_dict()}) instead of {fingerprint}; put the same model files on all nodes"
            )

    def score(self, table: pa.Table) -> Answered:
        """Each row with its ranking (or score) or its error; raises only what means that the replica is unfit."""
        spent = Effort()
        if self.layout is Layout.LISTS:
            rows = parse_lists(table, self.settings.mapping)
            rankings = self.rank(rows, spent)
            answered = append_rankings(table, rows, rankings, self.settings.mapping)
        else:
            rows = parse_pairs(table, self.settings.mapping)
            rankings = self.rank(rows, spent)
            answered = append_scores(table, rows, rankings, self.settings.mapping)
        return Answered(answered, count(rows, rankings), spent)

    def rank(self, rows: Sequence[ParsedRow], spent: Effort) -> list[Ranking | None]:
        """A ranking for each row that has candidates."""
        lists = [row.candidates for row in rows if row.candidates is not None]
        try:
            rankings = self.rerank_lists(lists, spent)
        except Exception as error:
            if ends_scoring(error):
                raise
            rankings = [self.rank_alone(one, spent) for one in lists]  # one of them fails; find out which
        answers = iter(rankings)
        return [None if row.candidates is None else next(answers) for row in rows]

    def rank_alone(self, candidates: CandidateList, spent: Effort) -> Ranking:
        """The ranking of one list, or why there is none."""
        try:
            return self.rerank_lists([candidates], spent)[0]
        except Exception as error:
            if ends_scoring(error):
                raise
            return Ranking([], Usage(), f"scoring_failed: {type(error).__name__}: {error}")

    def rerank_lists(self, lists: Sequence[CandidateList], spent: Effort) -> list[Ranking]:
        engine = ReusingEngine(self.reranker.engine, self.recent, self.stored, self.turn)
        rankings = self.reranker.with_engine(engine).rerank_lists(lists, top_n=self.settings.top_n, spent=spent)
        spent.waited += engine.waited
        spent.forward -= engine.waited
        spent.chunks_reused += engine.reused
        spent.new_logits |= engine.new_logits
        return rankings


@contextmanager
def nothing_collected() -> Iterator[None]:
    """What is made within is never looked through for garbage: while torch is imported a tenth of that time, later,
    between units, 1.5% of all.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def count(rows: Sequence[ParsedRow], rankings: Sequence[Ranking | None]) -> Counts:
    """The counts of a unit."""
    answered = [ranking for ranking in rankings if ranking is not None]
    messages = [row.error for row in rows] + [ranking.error for ranking in answered]
    errors = Counter(reason_of(message) for message in messages if message is not None)
    return Counts(len(rows), dict(sorted(errors.items())), sum((one.usage for one in answered), Usage()))


def ends_scoring(error: Exception) -> bool:
    """Whether the lists one by one would fare no better, such as after a broken or full GPU."""
    import torch

    device_failures = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError)
    return isinstance(error, (DeadlyError, StoppedError, *device_failures))
