"""The Scorer actor of a job: one Reranker that turns the rows of a unit into answered rows and their counts.

Its model is in the same process, or (AppScorer) in the replicas of a running app.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from ray.exceptions import RayActorError, RayTaskError

from jobs.columns import Layout
from jobs.errors import StoppedError
from jobs.rows import ParsedRow, append_rankings, append_scores, parse_lists, parse_pairs, reason_of
from jobs.settings import RerankSettings
from pipelines.errors import ConfigError, CrossrayError
from pipelines.records import CandidateList, Ranking, ScoringTime, Usage

if TYPE_CHECKING:  # torch: seconds, and not for the driver
    from pipelines.families import ModelSpec
    from pipelines.fingerprint import ServedModel
    from pipelines.packing import TokenPair
    from pipelines.pair_block import PairBlock

BLOCK_TOKENS = 16_384
"""Tokens of a call to an app: some passes of its replicas, so that little is lost with one that dies."""
BLOCKS_IN_FLIGHT = 2
"""Calls under way for one unit."""
ANSWER_SECONDS = 600.0
"""For one call: bulk work may wait long behind online requests."""
LOOK_SECONDS = 15.0
"""Between two looks whether an app that does not answer is there at all: calls of one that was deleted hang."""
DESCRIBE_SECONDS = 60.0
RETRY_PAUSES = (1.0, 5.0)
"""Seconds before a call is made again, and again; a replica that died is replaced after about 5."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one unit holds and took: deterministic, so it says the same after any number of attempts. Adds up."""

    rows: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Rows by the reason of their error."""
    usage: Usage = field(default_factory=Usage)
    rows_left_out: int = 0
    """Rows of the unit that `--where` left out, on top of `rows`."""

    def __add__(self, other: Counts) -> Counts:
        errors = dict(Counter(self.errors) + Counter(other.errors))
        left_out = self.rows_left_out + other.rows_left_out
        return Counts(self.rows + other.rows, dict(sorted(errors.items())), self.usage + other.usage, left_out)

    def as_dict(self) -> dict[str, Any]:
        """JSON types: the counts of rows, errors, and the fields of Usage beside them."""
        rows = {"rows": self.rows, "rows_left_out": self.rows_left_out}
        return {**rows, "errors": self.errors, **asdict(self.usage)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Counts:
        """The inverse of `as_dict`; fields that it does not know are left out."""
        usage = Usage(**{name: raw[name] for name in Usage.__dataclass_fields__})
        return cls(raw["rows"], raw["errors"], usage, raw.get("rows_left_out", 0))


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows of a unit with their answer columns."""

    table: pa.Table
    counts: Counts
    spent: ScoringTime = field(default_factory=ScoringTime)
    """By whoever answered; no part of the answer."""


class Scorer:
    """Loads the model once and scores unit after unit; the class that Ray runs as the replicas of a job."""

    def __init__(self, settings: RerankSettings, layout: Layout, fingerprint: str) -> None:
        """Raises RuntimeError when the model on this node is not the one that the driver saw."""
        # The tokenizer's own threads follow the replica's CPUs, as torch's do; read when its first batch comes.
        os.environ["RAYON_NUM_THREADS"] = str(settings.num_cpus)
        from pipelines.reranker import Reranker  # torch: seconds, and not for the driver

        self.settings = settings
        self.layout = layout
        self.reranker = Reranker.from_config(settings.reranker)
        loaded = self.reranker.fingerprint
        if loaded.hash != fingerprint:
            raise RuntimeError(
                f"the model on this node is not the one the job was planned with: fingerprint {loaded.hash} "
                f"({loaded.as_dict()}) instead of {fingerprint}; put the same model files on all nodes"
            )

    def score(self, table: pa.Table) -> Answered:
        """Each row with its ranking (or score) or its error; raises only what means that the replica is unfit."""
        spent = ScoringTime()
        if self.layout is Layout.LISTS:
            rows = parse_lists(table, self.settings.mapping)
            rankings = self.rank(rows, spent)
            answered = append_rankings(table, rows, rankings, self.settings.mapping)
        else:
            rows = parse_pairs(table, self.settings.mapping)
            rankings = self.rank(rows, spent)
            answered = append_scores(table, rows, rankings, self.settings.mapping)
        return Answered(answered, count(rows, rankings), spent)

    def rank(self, rows: Sequence[ParsedRow], spent: ScoringTime) -> list[Ranking | None]:
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

    def rank_alone(self, candidates: CandidateList, spent: ScoringTime) -> Ranking:
        """The ranking of one list, or why there is none."""
        try:
            return self.rerank_lists([candidates], spent)[0]
        except Exception as error:
            if ends_scoring(error):
                raise
            return Ranking([], Usage(), f"scoring_failed: {type(error).__name__}: {error}")

    def rerank_lists(self, lists: Sequence[CandidateList], spent: ScoringTime) -> list[Ranking]:
        return self.reranker.rerank_lists(lists, top_n=self.settings.top_n, spent=spent)


class AppScorer(Scorer):
    """Prepares and ranks here; the logits come from a running app."""

    def __init__(self, settings: RerankSettings, layout: Layout, fingerprint: str) -> None:
        """Raises RuntimeError when the app or the files on this node are not what the driver saw."""
        os.environ["RAYON_NUM_THREADS"] = str(settings.num_cpus)  # of each actor: the app needs the CPUs
        from pipelines.families import recognise
        from pipelines.lengths import Lengths
        from pipelines.model_files import find_model, tensor_names
        from pipelines.preparation import pair_tokenizer
        from pipelines.reranker import Reranker

        assert settings.app is not None
        config = settings.reranker
        served = served_model(settings.app)
        files = find_model(config.model, config.revision, config.token)
        now = served.fingerprint_with(Lengths.of(config)).hash
        if now != fingerprint:
            raise RuntimeError(f"{changed(settings.app)}: fingerprint {now} instead of {fingerprint}")
        if files.digest() != served.fingerprint.files:
            raise RuntimeError(
                f"the files of {config.model} on this node are not those of app {settings.app!r}, whose texts would be "
                "tokenized with them; put the same model files on all nodes"
            )
        self.settings = settings
        self.layout = layout
        spec = recognise(files.config(), list(tensor_names(files)))
        engine = AppEngine(scorer_handle(settings.app), settings.app, served.fingerprint.hash, spec)
        tokenizer = pair_tokenizer(files, spec)
        self.reranker = Reranker(engine, tokenizer, config, files)  # type: ignore[arg-type]  # it needs no more


class DeadlyError(CrossrayError):
    """Replicas of the app died one after the other with these pairs in them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Stands for the response to a call that was never under way."""

    error: Exception

    def result(self, **_: Any) -> Any:
        raise self.error

    def cancel(self) -> None:
        """There is nothing to cancel."""


@dataclass(frozen=True, slots=True)
class AppEngine:
    """An engine for a Reranker, as far as that needs one, whose passes run in the replicas of an app."""

    handle: Any
    """Of the Scorer deployment."""
    app: str
    fingerprint: str
    """The hash that all answers must have."""
    spec: ModelSpec

    def logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each pair, float32 [len(pairs)].

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
        """A call under way; one that Serve refuses at once tells its reason when it is awaited."""
        try:
            return self.handle.score_block.remote(block)
        except Exception as error:
            return Refusal(error)

    def _answer(self, block: PairBlock, response: Any) -> np.ndarray:
        """What `response` brings, or another call: scoring has no side effects."""
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
        """What `response` brings; raises TimeoutError after ANSWER_SECONDS, or once the app is seen to be gone."""
        ends = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return response.result(timeout_s=LOOK_SECONDS)  # type: ignore[no-any-return]
            except TimeoutError:
                if not is_deployed(self.app):
                    raise TimeoutError("it was deleted") from None
                if time.monotonic() > ends:
                    raise TimeoutError(f"no answer for {ANSWER_SECONDS:g} s") from None


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
    """The beginning of a message."""
    return f"app {app!r} no longer has the model that the job began with"


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
