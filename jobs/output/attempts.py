"""`_attempts/`: a record of each run of the driver, with its seconds. It is written again with every heartbeat."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobs import storage
from jobs.output.accounting import ReplicaSpans, with_idle
from jobs.output.directory import OutputDirectory
from jobs.records import UnitReport


def nothing_to_check() -> None:
    """The check of an attempt that needs no lease."""


@dataclass(slots=True)
class Attempt:
    """One run of the driver: when it started, how long each phase took, how much it finished."""

    path: str
    command: str | None = None
    """What was typed to run it, as far as that is known."""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    clock: float = field(default_factory=time.perf_counter)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of the driver by phase: `plan`; `group`, with --group-by; `start`, until Ray runs, ids have their
    texts and a replica begins to score; `score`, until the last part; `quarantine`; `finish`, in which Ray ends."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, added up over all finished units."""
    replicas: ReplicaSpans = field(default_factory=ReplicaSpans)
    scoring_ended: float | None = None
    units: int = 0
    rows: int = 0
    pairs: int = 0
    chunks: int = 0
    chunks_reused: int = 0
    """Chunks that did not go through the model."""
    peak_memory: int = 0
    peak_gpu_memory: int = 0
    """The most bytes that one replica had at once."""
    following: Mapping[str, Any] | None = None
    """The state of `--follow`, for `crossray inspect`; None for a job that follows nothing."""
    check_lease: Callable[[], None] = nothing_to_check
    """Raises where another driver has the output by now; called before anything is written."""
    phase: str = "plan"
    phase_began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the driver began."""
        return time.perf_counter() - self.clock

    def enter(self, phase: str, seconds_ago: float = 0.0) -> None:
        """Ends one phase and begins the next: now, or so many seconds ago, within the one that ends."""
        ends = max(self.phase_began, time.perf_counter() - seconds_ago)
        self.phases = self.phases_until(ends)
        if self.phase == "score":
            self.scoring_ended = ends
        self.phase, self.phase_began = phase, ends
        self.save()

    def phases_until(self, moment: float) -> dict[str, float]:
        return self.phases | {self.phase: self.phases.get(self.phase, 0.0) + moment - self.phase_began}

    def add(self, report: UnitReport) -> None:
        """Counts a finished unit."""
        self.units += 1
        self.rows += report.counts.rows
        self.pairs += report.counts.usage.pairs
        self.chunks += report.counts.usage.chunks
        self.chunks_reused += report.chunks_reused
        for stage, seconds in report.seconds.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        if report.scored is not None:
            self.replicas.add(report.scored, time.perf_counter())
            self.peak_memory = max(self.peak_memory, report.scored.peak_memory)
            self.peak_gpu_memory = max(self.peak_gpu_memory, report.scored.peak_gpu_memory)

    def as_dict(self) -> dict[str, Any]:
        replica_seconds = self.replicas.seconds(self.scoring_ended)
        stages = with_idle(self.stages, replica_seconds)
        return {
            "command": self.command,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "phases": {name: round(seconds, 3) for name, seconds in self.phases_until(time.perf_counter()).items()},
            "replicas": len(self.replicas.by_replica),
            "units_at_once": self.replicas.units_at_once,
            "replica_seconds": round(replica_seconds, 3),
            "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
            "units": self.units,
            "rows": self.rows,
            "pairs": self.pairs,
            "chunks": self.chunks,
            "chunks_reused": self.chunks_reused,
            "peak_memory": self.peak_memory,
            "peak_gpu_memory": self.peak_gpu_memory,
            **({} if self.following is None else {"following": self.following}),
        }

    def save(self) -> None:
        """Writes the record: with every heartbeat, so that there is one of a killed attempt too."""
        self.check_lease()
        storage.make_directory(os.path.dirname(self.path))
        storage.write_json(self.path, self.as_dict())


def begin_attempt(
    output: OutputDirectory, command: str | None = None, check_lease: Callable[[], None] = nothing_to_check
) -> Attempt:
    """The next attempt; its record is written with the first heartbeat or phase."""
    number = len(attempt_records(output)) + 1
    return Attempt(os.path.join(output.attempts, f"{number:06d}.json"), command, check_lease=check_lease)


def past_attempts(output: OutputDirectory) -> list[dict[str, Any]]:
    """The records of all attempts, oldest first, without those that are damaged: nothing but times would be wrong."""
    return [record for path in attempt_records(output) if (record := read_record(path)) is not None]


def read_record(path: str) -> dict[str, Any] | None:
    """The record of an attempt; None for a file that holds something else."""
    try:
        record = storage.read_json(path)
    except (ValueError, FileNotFoundError, IsADirectoryError):
        return None
    is_record = isinstance(record, dict) and record.keys() >= {"started", "seconds", "phases", "stages", "pairs"}
    return record if is_record else None


def attempt_records(output: OutputDirectory) -> list[str]:
    """Where the records of all attempts lie, oldest first."""
    names = storage.names(output.attempts) if storage.is_directory(output.attempts) else []
    return [os.path.join(output.attempts, name) for name in sorted(names) if name.endswith(".json")]
