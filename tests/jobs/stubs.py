"""Scorers that stand in for a model, importable by Ray's workers, and a job without Ray."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.records import Unit, UnitReport
from jobs.runtime.stages import Stage
from jobs.scoring.scorer import Effort, own_scorer
from jobs.settings import RerankSettings
from jobs.storage import temporary_name
from jobs.workers.assignment import Assignment
from jobs.workers.known_scores import OpenReuse, no_reuse
from jobs.workers.replica import Replica
from jobs.workers.wire import as_json, reports_of
from pipelines.memory import StoredLogits
from pipelines.records import CandidateList, RankedDocument, Ranking, ScoringTime, Usage

POISON = "<kills its replica>"
FAILURE = "<raises>"
BREAK_DISK = "<puts a file where OUTPUT was>"


class StubScorer:
    """A score per pair that is arbitrary, the same everywhere, and cheap; one token per character."""

    def __init__(self, settings: RerankSettings, fingerprint: str, stored: StoredLogits) -> None:
        self.settings = settings

    def rerank_lists(self, lists: Sequence[CandidateList], spent: ScoringTime) -> list[Ranking]:
        return [self.rerank_list(one) for one in lists]

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        return stub_ranking(candidates, self.settings.top_n)


class SlowScorer(StubScorer):
    """0.05 s a list."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        time.sleep(0.05)
        return super().rerank_list(candidates)


class RecordingScorer(StubScorer):
    """Leaves a file `<process id>-<time>` beside OUTPUT for each call with lists, and takes 0.1 s for it."""

    def rerank_lists(self, lists: Sequence[CandidateList], spent: ScoringTime) -> list[Ranking]:
        if lists:
            directory = calls_directory(self.settings.output)
            directory.mkdir(exist_ok=True)
            (directory / f"{os.getpid()}-{time.time_ns()}").touch()
            time.sleep(0.1)
        return super().rerank_lists(lists, spent)


class MeetingScorer(RecordingScorer):
    """Each call waits, 30 s at most, until two replicas have been called."""

    def rerank_lists(self, lists: Sequence[CandidateList], spent: ScoringTime) -> list[Ranking]:
        rankings = super().rerank_lists(lists, spent)
        deadline = time.monotonic() + 30
        while lists and len({pid for pid, _ in recorded_calls(self.settings.output)}) < 2:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return rankings


class PoisonScorer(StubScorer):
    """Dies with its process at a query with POISON in it, as in a segmentation fault, while it writes a part."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        if POISON in candidates.query:
            with suppress(OSError):  # it dies as well where OUTPUT is away
                Path(temporary_name(os.path.join(self.settings.output, "part"))).write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().rerank_list(candidates)


class SlowPoisonScorer(PoisonScorer):
    """0.05 s a list, and as deadly."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        time.sleep(0.05)
        return super().rerank_list(candidates)


class MortalScorer:
    """A real one; the first of its kind dies with its process in its second unit, once the model has scored it."""

    def __init__(self, settings: RerankSettings, fingerprint: str, stored: StoredLogits) -> None:
        self.scorer = own_scorer(settings, fingerprint, stored)
        self.output = settings.output
        self.calls = 0

    def rerank_lists(self, lists: Sequence[CandidateList], spent: Effort) -> list[Ranking]:
        rankings = self.scorer.rerank_lists(lists, spent)
        died = Path(f"{self.output}.died")
        self.calls += 1
        if self.calls == 2 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return rankings


class FailingScorer(StubScorer):
    """Raises for a query with FAILURE in it."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        if FAILURE in candidates.query:
            raise ValueError("no score for this one")
        return super().rerank_list(candidates)


class BrokenDiskScorer(StubScorer):
    """OUTPUT is renamed to `<OUTPUT>.gone` and becomes a file at a query with BREAK_DISK in it."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        output = Path(self.settings.output)
        if BREAK_DISK in candidates.query and output.is_dir():
            output.rename(f"{output}.gone")
            output.touch()
        return super().rerank_list(candidates)


class NothingSurvivesScorer(StubScorer):
    """Dies with its process whenever it has a pair to score, as where the model's kernels do not fit the machine."""

    def rerank_list(self, candidates: CandidateList) -> Ranking:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class UnstartableScorer(StubScorer):
    """Raises on start, as a replica with the wrong model files does."""

    def __init__(self, settings: RerankSettings, fingerprint: str, stored: StoredLogits) -> None:
        raise RuntimeError("the model on this node is not the one")


def stub_score(query: str, document: str) -> float:
    """0..1 from a hash of both texts."""
    return int.from_bytes(hashlib.sha256(f"{query}\0{document}".encode()).digest()[:3]) / (1 << 24)


def stub_ranking(candidates: CandidateList, top_n: int | None = None) -> Ranking:
    """The ranking by `stub_score`."""
    scores = [stub_score(candidates.query, document) for document in candidates.documents]
    best_first = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:top_n]
    documents = [RankedDocument(i, scores[i], candidates.documents[i]) for i in best_first]
    tokens = len(candidates.query) + sum(map(len, candidates.documents))
    return Ranking(documents, Usage(tokens=tokens, pairs=len(scores), chunks=len(scores)))


def calls_directory(output: Path | str) -> Path:
    """Where RecordingScorer notes its calls."""
    return Path(f"{output}.calls")


def recorded_calls(output: Path | str) -> list[tuple[int, int]]:
    """(process id, time in ns) of each call so far, in order of time."""
    names = [path.name.split("-") for path in calls_directory(output).glob("*")]
    return sorted(((int(pid), int(when)) for pid, when in names), key=lambda call: call[1])


def score_units_here(
    units: Sequence[Unit], assignment: Assignment, open_reuse: OpenReuse = no_reuse
) -> Iterator[UnitReport]:
    """`jobs.workers.pool.score_units` without Ray: one replica, one unit after the other, in this process."""
    replica = Replica(replace(assignment, reuse=open_reuse()))
    for unit in units:
        yield from reports_of([replica(pa.table({"unit": [as_json(unit)]}))])


def run_stage_here(stage: Stage, argument: Any, items: Sequence[dict[str, Any]]) -> None:
    """`jobs.runtime.stages.run_stage` without Ray."""
    work = stage(argument)
    for item in items:
        work(item)


@contextmanager
def no_ray_session(*_: Any) -> Iterator[None]:
    """`jobs.runtime.session.ray_session` without Ray."""
    yield


class PoolHere:
    """`jobs.workers.warm_pool.WarmPool` without Ray."""

    def __init__(self, *_: Any) -> None:
        self.score = score_units_here

    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was started."""

    def start(self) -> None:
        """There is nothing to start."""
