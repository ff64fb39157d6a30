"""Scores the lists of units: a reranker that all threads of a replica share, and how a replica loads its own model."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from jobs.errors import DeadlyError, StoppedError
from jobs.settings import RerankSettings
from pipelines.errors import is_out_of_memory
from pipelines.memory import RecentLogits, ReusingEngine, StoredLogits
from pipelines.records import CandidateList, Ranking, ScoringTime

if TYPE_CHECKING:  # torch: seconds, and not for the driver
    from pipelines.reranker import Reranker


@dataclass(slots=True)
class Effort(ScoringTime):
    """What it took to answer a unit, and the logits that are new.

    It depends on what was known before, so it is no part of Counts, which are the same after any number of attempts.
    """

    waited: float = 0.0
    """Seconds until the model was free; no part of `forward`."""
    chunks_reused: int = 0
    """Chunks of the unit that did not go through the model since their logits were known, or equal another's here."""
    new_logits: dict[bytes, float] = field(default_factory=dict)
    """The logits of chunks that did go through it, by the digest of their token pair."""


class ListScorer(Protocol):
    """Whatever ranks candidate lists for a replica."""

    def rerank_lists(self, lists: Sequence[CandidateList], spent: Effort) -> list[Ranking]:
        """The ranking of each list. Adds to `spent` what it took; several threads may ask at once."""


LoadScorer = Callable[[RerankSettings, str, StoredLogits], ListScorer]
"""Makes the scorer of a replica, in its process.

It is told the job's settings, the hash of the fingerprint that the model has to have, and the logits that earlier runs
left. It raises RuntimeError when the model is another one.
"""


class Scorer:
    """A reranker that several threads ask. Pairs whose logits are known do not go through its engine."""

    def __init__(
        self,
        reranker: Reranker,
        settings: RerankSettings,
        stored: StoredLogits,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`turn` is held while the engine computes; by default that is for one thread at a time."""
        self.reranker = reranker
        self.top_n = settings.top_n
        self.score_threshold = settings.score_threshold
        self.stored = stored
        self.recent = RecentLogits(settings.recent_pairs)
        self.turn = Lock() if turn is None else turn

    def rerank_lists(self, lists: Sequence[CandidateList], spent: Effort) -> list[Ranking]:
        engine = ReusingEngine(self.reranker.engine, self.recent, self.stored, self.turn)
        rankings = self.reranker.with_engine(engine).rerank_lists(
            lists,
            top_n=self.top_n,
            score_threshold=self.score_threshold,
            allow_uncalibrated=True,  # the driver has seen to that
            spent=spent,
        )
        spent.waited += engine.waited
        spent.forward -= engine.waited
        spent.chunks_reused += engine.reused
        spent.new_logits |= engine.new_logits
        return rankings


def own_scorer(settings: RerankSettings, fingerprint: str, stored: StoredLogits) -> Scorer:
    """The scorer of a replica that loads the model itself; a LoadScorer."""
    return Scorer(own_reranker(settings, fingerprint), settings, stored)


def own_reranker(settings: RerankSettings, fingerprint: str) -> Reranker:
    """The model, loaded once; raises RuntimeError when the one on this node is not the one that the driver saw."""
    # The tokenizer's own threads follow the replica's CPUs, as torch's do; read when its first batch comes.
    os.environ["RAYON_NUM_THREADS"] = str(settings.num_cpus)
    with spared_by_the_garbage_collector():
        from pipelines.reranker import Reranker  # torch: a second, and not for the driver

        reranker = Reranker.from_config(settings.reranker)
    loaded = reranker.fingerprint
    if loaded.hash != fingerprint:
        raise RuntimeError(
            f"the model on this node is not the one the job was planned with: fingerprint {loaded.hash} "
            f"({loaded.as_dict()}) instead of {fingerprint}; put the same model files on all nodes"
        )
    return reranker


@contextmanager
def spared_by_the_garbage_collector() -> Iterator[None]:
    """Python's garbage collector does not run in this block, and never looks at the objects that are made in it.

    They live as long as the process. To look through them takes a tenth of the time in which torch is imported, and
    later, between units, 1.5% of all time.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def ends_scoring(error: Exception) -> bool:
    """Whether the lists one by one would fare no better: no memory is left, a GPU is broken, an app is gone."""
    import torch

    return is_out_of_memory(error) or isinstance(error, (DeadlyError, StoppedError, torch.AcceleratorError))
