"""Scorer: one loaded model behind two lanes, as a deployment. Token ids in, logits out; texts never come here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ray.util import metrics

from pipelines.config import RerankerConfig
from pipelines.fingerprint import Fingerprint
from pipelines.packing import TokenPair
from serve.lanes import Lane, Lanes

SECONDS: list[float] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100]
"""Bounds of the histograms of time."""
BATCH_TOKENS: list[float] = [64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072]


class PairBlock(NamedTuple):
    """Pairs on their way to a replica, laid end to end: a few arrays travel faster than thousands."""

    input_ids: np.ndarray
    """int32 [tokens]"""
    token_type_ids: np.ndarray | None
    """int32 [tokens]; None for families without segments."""
    lengths: np.ndarray
    """int32 [pairs]"""

    @classmethod
    def of(cls, pairs: Sequence[TokenPair]) -> PairBlock:
        """Raises ValueError for no pairs."""
        ids, segments = zip(*pairs, strict=True)
        lengths = np.fromiter(map(len, ids), dtype=np.int32, count=len(pairs))
        return cls(np.concatenate(ids), None if segments[0] is None else np.concatenate(segments), lengths)

    def pairs(self) -> list[TokenPair]:
        """The pairs as they were, as views."""
        ends = np.cumsum(self.lengths)[:-1]
        ids = np.split(self.input_ids, ends)
        segments = [None] * len(ids) if self.token_type_ids is None else np.split(self.token_type_ids, ends)
        return [TokenPair(*both) for both in zip(ids, segments, strict=True)]


class Description(NamedTuple):
    """What a replica says of its model."""

    fingerprint: Fingerprint
    loaded_at: int
    """Seconds since 1970."""


class Scorer:
    """A replica."""

    def __init__(self, config: RerankerConfig) -> None:
        """Loads the model; raises ModelError."""
        from pipelines.reranker import Reranker  # torch: seconds, and not for who only names this class

        self.reranker = Reranker.from_config(config)
        self.described = Description(self.reranker.fingerprint, int(time.time()))
        engine = self.reranker.engine
        self.pairs = metrics.Counter("crossray_pairs", "Pairs scored, chunks of long documents each.")
        self.batch_tokens = metrics.Histogram("crossray_batch_tokens", "Tokens of a pass.", BATCH_TOKENS)
        self.inference_seconds = metrics.Histogram("crossray_inference_seconds", "Seconds of a pass.", SECONDS)
        self.queue_seconds = metrics.Histogram(
            "crossray_queue_seconds", "Seconds until the device took a request's first pair.", SECONDS, ("lane",)
        )
        self.queued_tokens = metrics.Gauge("crossray_queued_tokens", "Tokens that wait for the device.", ("lane",))
        # The budget of a pass is for all of the engine's threads together.
        self.lanes = Lanes(
            engine.logits,
            engine.max_batch_tokens * engine.parallel_batches,
            on_pass=self._count_pass,
            on_wait=self._count_wait,
        )

    async def logits(self, block: PairBlock, lane: Lane = Lane.ONLINE) -> np.ndarray:
        """The logit of each pair, float32 [pairs]."""
        return await self.lanes.logits(block.pairs(), lane)

    async def describe(self) -> Description:
        """Answers as soon as the model is loaded."""
        return self.described

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `serve.autoscaling` looks at; Serve asks for it under this name."""
        for lane in Lane:
            self.queued_tokens.set(self.lanes.queued_tokens(lane), {"lane": lane})
        return {"queued_tokens": float(self.lanes.queued_tokens())}

    def _count_pass(self, pairs: int, tokens: int, seconds: float) -> None:
        self.pairs.inc(pairs)
        self.batch_tokens.observe(tokens)
        self.inference_seconds.observe(seconds)

    def _count_wait(self, lane: Lane, seconds: float) -> None:
        self.queue_seconds.observe(seconds, {"lane": lane})
