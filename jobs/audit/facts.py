"""The state of a job, finished, stopped or running, as its output directory tells it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from jobs import storage
from jobs.errors import StoppedError
from jobs.output import lease
from jobs.output.attempts import past_attempts
from jobs.output.directory import MANIFEST, OutputDirectory
from jobs.output.holder import holder_in
from jobs.output.lease import is_held, read_if_there
from jobs.output.manifest import Manifest
from jobs.output.parts import read_counts
from jobs.output.summary import cut_timestamps, read_summary, time_spent, totals, unreadable_files
from jobs.records import Counts, Unit
from jobs.runtime.threads import in_threads
from pipelines.errors import ConfigError


class State(StrEnum):
    """What a job is doing."""

    COMPLETE = "complete"
    RUNNING = "running"
    STOPPED = "stopped"
    """Unfinished, and nobody works on it."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Who has the lease of an output directory, alive or not."""

    pid: int
    host: str
    heartbeat_ago: float
    """Seconds, by the clock of this machine: for people, since the driver's clock may be another."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An output directory at one moment."""

    output: OutputDirectory
    state: State
    driver: Driver | None
    summary: Mapping[str, Any] | None
    """None where there is none, and where it cannot be read."""
    finished: frozenset[str]
    """Names of the parts."""
    manifest: Manifest
    attempts: Sequence[Mapping[str, Any]]
    """Oldest first."""
    is_driven: bool
    """Whether a driver is at work, or waits for files that it follows."""

    @property
    def units_done(self) -> list[Unit]:
        """The planned units that have their part."""
        return [unit for unit in self.manifest.units() if unit.name in self.finished]

    @property
    def unreadable(self) -> dict[str, str]:
        """Why files could not be read, by path. Damaged pages are known only when the job is complete."""
        return unreadable_files(self.manifest) | dict((self.summary or {}).get("unreadable", {}))

    @property
    def following(self) -> Mapping[str, Any] | None:
        """What a running follower last noted of itself (see `jobs.follow.follower`)."""
        return self.attempts[-1].get("following") if self.is_driven and self.attempts else None

    @property
    def resume(self) -> str | None:
        """The command of the last attempt, which goes on with an unfinished job."""
        return self.attempts[-1].get("command") if self.attempts else None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """All that `crossray inspect` says of a job."""

    output: str
    state: State
    driver: Driver | None
    following: Mapping[str, Any] | None
    resume: str | None
    created: str
    files: int
    units: int
    units_done: int
    rows_planned: int
    counts: Mapping[str, Any]
    """See `jobs.output.summary.totals`; of the parts that are there."""
    parts_not_read: int
    """Parts whose footers cannot be read, or are not those of this job: not in `counts`."""
    unreadable: Mapping[str, str]
    left_out: Mapping[str, Any]
    """How many files of INPUT are no Parquet, and the first of them; known once the job is complete."""
    cut_timestamps: int
    """Timestamps that lose digits below a microsecond."""
    time: Mapping[str, Any]
    """See `jobs.output.summary.time_spent`."""
    attempts: Sequence[Mapping[str, Any]]
    fingerprint: Mapping[str, Any]
    options: Mapping[str, Any]
    versions: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON types; counts and times stand side by side, as in the summary."""
        fields = asdict(self)
        counts, seconds = fields.pop("counts"), fields.pop("time")
        return {**fields, **counts, **seconds}


def look(path: str) -> Snapshot:
    """The directory as it is now; raises ConfigError when no job of ours wrote it, RefusedError for its manifest.

    The order matters where a job runs: it removes its lease after it wrote the summary, and plans before it writes
    parts. So a job that comes to its end meanwhile does not seem to be stopped, nor its newest part to be foreign.
    """
    output = OutputDirectory(path)
    if not output.is_begun:
        if storage.exists(os.path.join(path, lease.NAME)):
            raise ConfigError(f"OUTPUT {path} has no {MANIFEST} yet: its driver plans, or waits for the first file")
        raise ConfigError(
            f"OUTPUT {path} has no {MANIFEST}: no job of ours has begun there, or it has no plan yet; "
            "give a job's output directory"
        )
    place = os.path.join(path, lease.NAME)
    found = read_if_there(place)
    holder, running = holder_in(found, place), is_held(place, found)
    complete = output.is_complete
    summary = read_summary(output) if complete else None
    return Snapshot(
        output,
        State.COMPLETE if complete else State.RUNNING if running else State.STOPPED,
        Driver(holder.pid, holder.host, max(0.0, time.time() - holder.heartbeat)) if holder else None,
        summary,
        frozenset(output.finished()),
        Manifest.read(output.manifest),
        summary["attempts"] if summary and not running else past_attempts(output),
        running,
    )


def gather(snapshot: Snapshot) -> JobFacts:
    """The facts of a job; of an unfinished one it reads the footers of all parts."""
    manifest, done = snapshot.manifest, snapshot.units_done
    found = [] if snapshot.summary else read_footers(snapshot.output, done, manifest.fingerprint["hash"])
    counts = [one for one in found if one is not None]
    of_parts = totals(manifest, counts)
    summary = snapshot.summary or {}
    return JobFacts(
        output=snapshot.output.path,
        state=snapshot.state,
        driver=snapshot.driver,
        following=snapshot.following,
        resume=snapshot.resume,
        created=manifest.created,
        files=len(manifest.files),
        units=len(manifest.units()),
        units_done=len(done),
        rows_planned=manifest.rows,
        counts={name: summary.get(name, value) for name, value in of_parts.items()},
        parts_not_read=len(found) - len(counts),
        unreadable=snapshot.unreadable,
        left_out=summary.get("left_out", {"files": 0, "first": []}),
        cut_timestamps=cut_timestamps(manifest),
        time=time_spent(snapshot.attempts),
        attempts=snapshot.attempts,
        fingerprint=manifest.fingerprint,
        options=manifest.options.as_dict(),
        versions=manifest.versions,
    )


def read_footers(output: OutputDirectory, units: Sequence[Unit], fingerprint: str) -> list[Counts | None]:
    """The counts of each part; None for one that cannot be read or is not of this job."""

    def counts_or_none(unit: Unit) -> Counts | None:
        try:
            return read_counts(output, unit, fingerprint)
        except StoppedError:  # damaged, or gone meanwhile, where the job was begun anew
            return None

    return in_threads(counts_or_none, units)
