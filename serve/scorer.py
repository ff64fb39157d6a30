"""Scorer: one loaded model behind two lanes, as a deployment. Token ids in, logits out; texts never come here."""

from __future__ import annotations

import time
import uuid
from typing import NamedTuple

import numpy as np
from ray.util import metrics

from pipelines.config import RerankerConfig
from pipelines.fingerprint import ServedModel, resolved
from pipelines.packing import TokenPair
from pipelines.pair_block import PairBlock
from pipelines.records import CandidateList
from serve.lanes import Lane, Lanes
from serve.pinning import check_pinned
from serve.speed import Speed

SECOND_BOUNDS: list[float] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100]
"""Bounds of the histograms of time."""
TOKEN_BOUNDS: list[float] = [64, 256, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072]
"""Bounds of the histogram of the tokens of a pass."""


MEASURED = "How fast is this model on a text of the length that passages of search engines have? " * 4
"""About 80 tokens of most models."""
MEASURED_SECONDS = 0.1


class Scored(NamedTuple):
    """Logits, and what an endpoint has to know of the replica that gave them."""

    logits: np.ndarray
    """float32 [pairs]"""
    files: str
    """SHA-256 of the model's files."""
    replica: str
    """A name that no other one has."""
    tokens_per_second: float | None
    """How fast it was of late."""


class Scorer:
    """A replica: it holds a loaded model and scores what waits in its two lanes."""

    def __init__(self, config: RerankerConfig, files: str | None = None) -> None:
        """Loads the model; raises ModelError, also where its files are not those with the SHA-256 `files`."""
        from pipelines.reranker import Reranker  # torch: seconds, and not for who only names this class

        self.reranker = Reranker.from_config(config)
        self.served = ServedModel(
            resolved(config, self.reranker.files),
            self.reranker.model_limit,
            self.reranker.fingerprint,
            loaded_at=int(time.time()),
            takes_instruction=self.reranker.tokenizer.template.takes_instruction,
            own_instruction=self.reranker.engine.spec.own_instruction,
        )
        check_pinned(config.model, self.served.fingerprint.files, files)
        self.name = uuid.uuid4().hex
        self.speed = Speed()
        self._measure()
        engine = self.reranker.engine
        self.pairs = metrics.Counter("crossray_pairs", "Pairs scored, chunks of long documents each.")
        self.batch_tokens = metrics.Histogram("crossray_batch_tokens", "Tokens of a pass.", TOKEN_BOUNDS)
        self.inference_seconds = metrics.Histogram("crossray_inference_seconds", "Seconds of a pass.", SECOND_BOUNDS)
        self.queue_seconds = metrics.Histogram(
            "crossray_queue_seconds", "Seconds until the device took a request's first pair.", SECOND_BOUNDS, ("lane",)
        )
        self.queued_tokens = metrics.Gauge("crossray_queued_tokens", "Tokens that wait for the device.", ("lane",))
        # The budget of a pass is for all of the engine's threads together.
        self.lanes = Lanes(
            engine.logits,
            engine.max_batch_tokens * engine.parallel_batches,
            on_pass=self._count_pass,
            on_wait=self._count_wait,
        )

    async def logits(self, block: PairBlock, lane: Lane = Lane.ONLINE) -> Scored:
        """The logit of each pair."""
        logits = await self.lanes.logits(block.pairs(), lane)
        return Scored(logits, self.served.fingerprint.files, self.name, self.speed.tokens_per_second)

    async def tokens_per_second(self) -> float | None:
        """How fast this replica was of late; callers are answered as soon as the model is loaded."""
        return self.speed.tokens_per_second

    async def score_block(self, block: PairBlock) -> tuple[str, np.ndarray]:
        """For jobs: the hash of the fingerprint that the logits belong to, and the logits, scored in the bulk lane."""
        return self.served.fingerprint.hash, await self.lanes.logits(block.pairs(), Lane.BULK)

    async def describe(self) -> ServedModel:
        """What this replica serves; callers are answered as soon as the model is loaded."""
        return self.served

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `serve.autoscaling` looks at; Serve asks for it under this name."""
        for lane in Lane:
            self.queued_tokens.set(self.lanes.queued_tokens(lane), {"lane": lane})
        speed = self.speed.tokens_per_second or 0.0  # a number is all that Serve takes
        return {"queued_tokens": float(self.lanes.queued_tokens()), "tokens_per_second": speed}

    def _measure(self) -> None:
        """Scores pairs that nobody asked for, twice as many each time, until a pass takes long enough to be a measure.

        So the first callers are admitted by a speed that is known, and do not wait for what a first pass sets up.
        """
        engine, count = self.reranker.engine, 1
        engine.logits(self._trial(count))  # sets up, and is no measure
        while True:
            pairs = self._trial(count)
            began = time.perf_counter()
            engine.logits(pairs)
            seconds, tokens = time.perf_counter() - began, sum(len(pair.input_ids) for pair in pairs)
            if seconds >= MEASURED_SECONDS or 2 * tokens > engine.max_batch_tokens * engine.parallel_batches:
                self.speed.add(tokens, seconds)
                return
            count *= 2

    def _trial(self, count: int) -> list[TokenPair]:
        texts = [f"{i} {MEASURED}" for i in range(count)]
        return self.reranker.preparation.prepare([CandidateList(MEASURED, texts)], self.reranker.lengths)[0].pairs

    def _count_pass(self, pairs: int, tokens: int, seconds: float) -> None:
        self.speed.add(tokens, seconds)
        self.pairs.inc(pairs)
        self.batch_tokens.observe(tokens)
        self.inference_seconds.observe(seconds)

    def _count_wait(self, lane: Lane, seconds: float) -> None:
        self.queue_seconds.observe(seconds, {"lane": lane})
