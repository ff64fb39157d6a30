"""The scorer of a job with `--app`: tokenizes and ranks here; the logits come from the replicas of a running app."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.exceptions import RayActorError, RayTaskError

from jobs.errors import DeadlyError, StoppedError
from jobs.scoring.scorer import Scorer, ends_scoring
from jobs.settings import RerankSettings
from pipelines.errors import ConfigError, CrossrayError

if TYPE_CHECKING:  # torch: seconds, and not for the driver
    from pipelines.families import ModelSpec
    from pipelines.fingerprint import ServedModel
    from pipelines.memory import StoredLogits
    from pipelines.packing import TokenPair
    from pipelines.pair_block import PairBlock
    from pipelines.reranker import Reranker

BLOCK_TOKENS = 16_384
"""Tokens of one call to an app, at most. That is some passes of a replica, so little is lost with one that dies."""
BLOCKS_IN_FLIGHT = 2
"""Calls that wait for their answers at once, for one unit."""
ANSWER_SECONDS = 600.0
"""How long a call may go without an answer: bulk work may wait long behind online requests."""
LOOK_SECONDS = 15.0
"""How often a waiting call looks whether the app is still deployed: calls to one that was deleted never end."""
DESCRIBE_SECONDS = 60.0
RETRY_PAUSES = (1.0, 5.0)
"""Seconds before a call is made again, and again; a replica that died is replaced after about 5."""


def app_scorer(settings: RerankSettings, fingerprint: str, stored: StoredLogits) -> Scorer:
    """The scorer of a job with `--app`; a LoadScorer."""
    return Scorer(app_reranker(settings, fingerprint), settings, stored, turn=nullcontext())  # an app takes many calls


def app_reranker(settings: RerankSettings, fingerprint: str) -> Reranker:
    """A Reranker that tokenizes and ranks here, and whose engine is the app.

    Raises RuntimeError when the app or the files on this node are not what the driver saw.
    """
    os.environ["RAYON_NUM_THREADS"] = str(settings.num_cpus)  # of each actor: the app needs the CPUs
    from pipelines.families import spec_of
    from pipelines.lengths import Lengths
    from pipelines.model_sources import find_model
    from pipelines.preparation import pair_tokenizer
    from pipelines.reranker import Reranker

    assert settings.app is not None
    config = settings.reranker
    served = served_model(settings.app)
    files = find_model(config.model, config.revision, config.token)
    now = served.fingerprint_with(Lengths.of(config), config.instruction).hash
    if now != fingerprint:
        raise RuntimeError(f"{changed(settings.app)}: fingerprint {now} instead of {fingerprint}")
    if files.digest() != served.fingerprint.files:
        raise RuntimeError(
            f"the files of {config.model} on this node are not those of app {settings.app!r}, whose texts would be "
            "tokenized with them; put the same model files on all nodes"
        )
    spec = spec_of(files)
    engine = AppEngine(scorer_handle(settings.app), settings.app, served.fingerprint.hash, spec)
    tokenizer = pair_tokenizer(files, spec, config.instruction)
    # Only a ReusingEngine will ask the engine.
    return Reranker(engine, tokenizer, config, files, calibration=config.calibration)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Stands for the response to a call that Serve refused at once; asking for its result raises the reason."""

    error: Exception

    def result(self, **_: Any) -> Any:
        raise self.error

    def cancel(self) -> None:
        """There is nothing to cancel."""


@dataclass(frozen=True, slots=True)
class AppEngine:
    """An engine whose forward passes run in the replicas of an app. A ReusingEngine asks it, as it would ask ours."""

    handle: Any
    """Of the Scorer deployment."""
    app: str
    fingerprint: str
    """The hash that all answers must have."""
    spec: ModelSpec
    answer_seconds: float = ANSWER_SECONDS

    def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each of these pairs, of which no two are equal; float32 [len(pairs)].

        Raises DeadlyError, StoppedError for what is no fault of the pairs, and what a replica raised on them.
        """
        from pipelines.packing import split_by_token_budget
        from pipelines.pair_block import PairBlock

        logits = np.empty(len(pairs), dtype=np.float32)
        calls: deque[tuple[list[int], PairBlock, Any]] = deque()
        try:
            for run in split_by_token_budget([len(pair.input_ids) for pair in pairs], BLOCK_TOKENS):
                if len(calls) == BLOCKS_IN_FLIGHT:
                    self._settle(*calls.popleft(), logits)
                block = PairBlock.of([pairs[i] for i in run])
                calls.append((run, block, self._send(block)))
            while calls:
                self._settle(*calls.popleft(), logits)
        finally:
            for _, _, response in calls:
                response.cancel()
        return logits

    def _settle(self, run: list[int], block: PairBlock, response: Any, logits: np.ndarray) -> None:
        logits[run] = self._answer(block, response)

    def _send(self, block: PairBlock) -> Any:
        """Sends a block to the app; returns the response, or a Refusal where Serve takes no call."""
        try:
            return self.handle.score_block.remote(block)
        except Exception as error:
            return Refusal(error)

    def _answer(self, block: PairBlock, response: Any) -> np.ndarray:
        """The logits that `response` brings; a call that failed is made again, since scoring has no side effects."""
        deaths, why = 0, ""
        for pause in (*RETRY_PAUSES, None):
            try:
                fingerprint, logits = self._awaited(response)
            except RayActorError as error:
                deaths += 1
                why = type(error).__name__
            except RayTaskError as error:
                cause = error.cause
                if not isinstance(cause, CrossrayError) and not ends_scoring(cause):
                    raise cause from None
                why = f"{type(cause).__name__}: {cause}"
            except TimeoutError as error:
                response.cancel()
                raise StoppedError(f"app {self.app!r} gives no scores: {error}") from None
            except Exception as error:  # of Serve itself
                why = f"{type(error).__name__}: {error}"
            else:
                if fingerprint != self.fingerprint:
                    raise StoppedError(f"{changed(self.app)}: fingerprint {fingerprint} instead of {self.fingerprint}")
                return logits
            if pause is not None:
                time.sleep(pause)
                response = self._send(block)
        if deaths > len(RETRY_PAUSES):
            raise DeadlyError(f"{deaths} replicas of app {self.app!r} died with the same pairs: {why}")
        raise StoppedError(f"app {self.app!r} gives no scores: {why}")

    def _awaited(self, response: Any) -> tuple[str, np.ndarray]:
        """What `response` brings; raises TimeoutError after `answer_seconds`, or once the app is seen to be gone."""
        ends = time.monotonic() + self.answer_seconds
        while True:
            try:
                return response.result(timeout_s=LOOK_SECONDS)  # type: ignore[no-any-return]
            except TimeoutError:
                if not is_deployed(self.app):
                    raise TimeoutError("it was deleted") from None
                if time.monotonic() > ends:
                    raise TimeoutError(f"no answer for {self.answer_seconds:g} s") from None


def served_model(app: str) -> ServedModel:
    """What the app says of its model. Raises ConfigError when there is no such app, StoppedError without an answer."""
    handle = scorer_handle(app)
    try:
        return handle.describe.remote().result(timeout_s=DESCRIBE_SECONDS)  # type: ignore[no-any-return]
    except Exception as error:
        raise StoppedError(f"app {app!r} does not answer: {type(error).__name__}: {error}") from None


def scorer_handle(app: str) -> Any:
    """The handle of the app's Scorer deployment; raises ConfigError, which names the apps there are."""
    from ray import serve  # FastAPI: a second, and only for jobs with an app
    from ray.serve.exceptions import RayServeException

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # where its routers run is no news to a job
    try:
        handle = serve.get_deployment_handle("Scorer", app_name=app)
    except (KeyError, RayServeException):  # no such deployment; no Serve at all
        running = ", ".join(map(repr, serve.status().applications)) or "none"
        raise ConfigError(f"--app is {app!r}; this cluster has no such app with a Scorer; running: {running}") from None
    if not handle.is_initialized:  # Serve keeps one handle a process
        # With RAY_SERVE_THROUGHPUT_OPTIMIZED a handle lives in its caller's event loop; ours has callers without one.
        handle._init(_run_router_in_separate_loop=True)  # type: ignore[no-untyped-call]
    return handle


def running_replicas(app: str) -> int:
    """How many replicas of the app score now."""
    from ray import serve

    found = serve.status().applications.get(app)
    states = found.deployments["Scorer"].replica_states.items() if found else ()
    return sum(replicas for state, replicas in states if state == "RUNNING")


def is_deployed(app: str) -> bool:
    """Whether Serve knows the app."""
    from ray import serve

    return app in serve.status().applications


def changed(app: str) -> str:
    """How a message begins that an app's model is another one."""
    return f"app {app!r} no longer has the model that the job began with"
