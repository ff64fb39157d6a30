"""`_summary.json`: what became of a job. Written last, so its presence means complete.

Rows, errors and tokens are added up from the parts' footers, so they are right after any number of attempts. Seconds
stand per attempt in `_attempts/`, since a killed attempt has no end to write.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.accounting import Presences, with_idle
from jobs.errors import StoppedError
from jobs.manifest import Manifest
from jobs.output import OutputDirectory
from jobs.parts import METADATA_KEY
from jobs.records import Counts, Unit, UnitReport
from jobs.storage import FOOTER_THREADS


@dataclass(slots=True)
class Attempt:
    """One run of the driver: when, how long in which phase, how much it finished."""

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
    replicas: Presences = field(default_factory=Presences)
    scoring_ended: float | None = None
    units: int = 0
    rows: int = 0
    pairs: int = 0
    chunks: int = 0
    chunks_reused: int = 0
    """Those of them that did not go through the model."""
    following: Mapping[str, Any] | None = None
    """How following stands; None where nothing is followed."""
    phase: str = "plan"
    phase_began: float = field(default_factory=time.perf_counter)

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

    def as_dict(self) -> dict[str, Any]:
        replica_seconds = self.replicas.seconds(self.scoring_ended)
        stages = with_idle(self.stages, replica_seconds)
        return {
            "command": self.command,
            "started": self.started,
            "seconds": round(time.perf_counter() - self.clock, 3),
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
            **({} if self.following is None else {"following": self.following}),
        }

    def save(self) -> None:
        """Called with every heartbeat, so that a killed attempt is on record too."""
        storage.make_directory(os.path.dirname(self.path))
        storage.write_json(self.path, self.as_dict())


def begin_attempt(output: OutputDirectory, command: str | None = None) -> Attempt:
    """The next attempt; its record is written with the first heartbeat or phase."""
    number = len(attempt_records(output)) + 1
    return Attempt(os.path.join(output.attempts, f"{number:06d}.json"), command)


def past_attempts(output: OutputDirectory) -> list[dict[str, Any]]:
    """The records of all attempts, oldest first."""
    return [storage.read_json(path) for path in attempt_records(output)]


def attempt_records(output: OutputDirectory) -> list[str]:
    """Where the records of all attempts lie, oldest first."""
    names = storage.names(output.attempts) if storage.is_directory(output.attempts) else []
    return [os.path.join(output.attempts, name) for name in sorted(names) if name.endswith(".json")]


def read_counts(output: OutputDirectory, unit: Unit, fingerprint: str) -> Counts:
    """The counts in a part's footer; raises StoppedError when the part is not what this job would have written."""
    path = os.path.join(output.path, unit.name)
    try:
        metadata = storage.read_parquet(path, lambda file: file.metadata)
    except pa.ArrowException as error:
        raise StoppedError(f"{path} is damaged ({error}); remove it and run the same command again") from None
    raw = json.loads((metadata.metadata or {}).get(METADATA_KEY, b"{}"))
    rows = metadata.num_rows + raw.get("rows_left_out", 0)
    if rows != unit.rows or raw.get("fingerprint") != fingerprint:
        raise StoppedError(f"{path} is not a part of this job; remove it and run the same command again")
    return Counts.from_dict(raw)


def summarize(output: OutputDirectory, manifest: Manifest, damaged: Mapping[str, str]) -> dict[str, Any]:
    """The summary of a finished job; `damaged` says why units have no part, by file."""
    finished = output.finished()
    counts = counts_of(output, manifest, [unit for unit in manifest.units() if unit.name in finished])
    return compose(manifest, totals(manifest, counts), damaged, past_attempts(output))


def counts_of(output: OutputDirectory, manifest: Manifest, units: Sequence[Unit]) -> list[Counts]:
    """The counts in the footers of these units' parts; raises StoppedError as `read_counts` does."""
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(lambda unit: read_counts(output, unit, manifest.fingerprint["hash"]), units))


def compose(
    manifest: Manifest,
    sums: Mapping[str, Any],
    damaged: Mapping[str, str],
    attempts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The summary of these `totals`."""
    return {
        **sums,
        "unreadable": unreadable_files(manifest) | dict(damaged),
        **time_spent(attempts),
        "attempts": list(attempts),
        "fingerprint": manifest.fingerprint,
        "versions": manifest.versions,
    }


def totals(manifest: Manifest, counts: Sequence[Counts]) -> dict[str, Any]:
    """What the parts hold together, by the counts of each; deterministic."""
    total = sum(counts, Counts(rows_left_out=manifest.rows_left_out))
    return {
        **total.as_dict(),
        "rows_with_errors": sum(total.errors.values()),
        "rows_not_read": manifest.rows - total.rows - total.rows_left_out,
        "files": len(manifest.files),
        "parts": len(counts),
    }


def time_spent(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of all attempts: on the whole, of their replicas and in which stage; the speed while they scored, and the
    chunks that they did not have to score.

    What an earlier version did not record counts as 0.
    """
    scoring = sum(attempt["phases"].get("score", 0.0) for attempt in attempts)
    scored = sum(attempt["pairs"] for attempt in attempts)
    return {
        "seconds": added_up(attempt["seconds"] for attempt in attempts),
        "pairs_per_second": round(scored / scoring, 2) if scoring else 0.0,
        "chunks_reused": sum(attempt.get("chunks_reused", 0) for attempt in attempts),
        "replica_seconds": added_up(attempt.get("replica_seconds", 0.0) for attempt in attempts),
        "stages": {
            name: added_up(attempt["stages"].get(name, 0.0) for attempt in attempts) for name in with_idle({}, 0.0)
        },
    }


def added_up(seconds: Iterable[float]) -> float:
    """To milliseconds, as they are in the records."""
    return round(sum(seconds), 3)


def unreadable_files(manifest: Manifest) -> dict[str, str]:
    """Why a file could not even be planned, by path."""
    return {file.file.path: file.error for file in manifest.files if file.error is not None}


def missing_units(output: OutputDirectory, manifest: Manifest) -> list[Unit]:
    """Units without a part, in the order of the plan."""
    finished = output.finished()
    return [unit for unit in manifest.units() if unit.name not in finished]
