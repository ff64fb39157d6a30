"""Brings units to their parts: through a pool of replicas, then, for those that came to no end, the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from rich.console import Console

from jobs.errors import StoppedError, UnwritablePartError
from jobs.joins.corpus.texts import texts_for
from jobs.output.attempts import Attempt
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.output.parts import write_part
from jobs.records import Unit, UnitReport
from jobs.runtime.session import ray_session
from jobs.screen import ProgressView, say, show_progress
from jobs.workers.assignment import Assignment
from jobs.workers.known_scores import OpenReuse, open_reuse
from jobs.workers.pool import score_units, units_at_once
from jobs.workers.quarantine import Quarantine, read_apart

ScoreUnits = Callable[[Sequence[Unit], Assignment, OpenReuse], Iterator[UnitReport]]
"""Does what `jobs.workers.pool.score_units` does."""
WRITES_THAT_MAY_FAIL = 3
"""A file system may stumble; with a full one all further scores would be computed for nothing."""


@dataclass(slots=True)
class Outcome:
    """What became of units, as their reports come in; each is counted in the driver's attempt."""

    attempt: Attempt
    max_pairs: int | None = None
    max_minutes: float | None = None
    """What this run may rank and how long it may take, at most; None is no limit."""
    done: set[Unit] = field(default_factory=set)
    damaged: dict[Unit, str] = field(default_factory=dict)
    """Why units cannot be read."""
    failures: list[str] = field(default_factory=list)
    """Why parts could not be written."""
    not_stored: list[str] = field(default_factory=list)
    """Why new scores are not in the score store."""

    def add(self, report: UnitReport, progress: ProgressView) -> None:
        """Takes a report; raises StoppedError when it tells of something that would happen to all other units too."""
        if self.attempt.phase == "start":
            self._note_first_score(report, progress)
        if report.stop is not None:
            raise StoppedError(report.stop)
        if report.error is not None:
            self.damaged[report.unit] = report.error
        elif report.failure is not None:
            self._note_failure(report.failure)
        else:
            self.done.add(report.unit)
            self.attempt.add(report)
            self.not_stored += [report.not_stored] if report.not_stored else []
            progress.advance(report.unit.rows, report.counts.usage.pairs)
            self._stop_at_limit(progress)

    def _note_first_score(self, report: UnitReport, progress: ProgressView) -> None:
        """Scoring began when the first replica had its first rows at hand, which was before this report came."""
        if report.scored is not None:
            seconds_ago = report.scored.ended - report.scored.began + report.seconds["write"]
            self.attempt.enter("score", seconds_ago)
            progress.begin(seconds_ago)

    def _stop_at_limit(self, progress: ProgressView) -> None:
        """Raises StoppedError where this run has done as much as it may, and rows are left."""
        pairs, minutes = self.attempt.pairs, self.attempt.seconds / 60
        by_pairs = self.max_pairs is not None and pairs >= self.max_pairs
        by_time = self.max_minutes is not None and minutes >= self.max_minutes
        if (by_pairs or by_time) and progress.rows_done < progress.total_rows:
            limit = f"--max-pairs {self.max_pairs}" if by_pairs else f"--max-minutes {self.max_minutes:g}"
            raise StoppedError(
                f"{limit} is reached: this run has ranked {pairs:,} pairs in {minutes:.1f} minutes; "
                f"{progress.rows_done:,} of {progress.total_rows:,} rows are done"
            )

    def _note_failure(self, failure: str) -> None:
        self.failures.append(failure)
        if len(self.failures) > WRITES_THAT_MAY_FAIL:
            raise StoppedError(f"{len(self.failures)} parts could not be written: {failure}")

    def lost(self, units: Sequence[Unit]) -> list[Unit]:
        """The units that have no part, although their files can be read."""
        return [unit for unit in units if unit not in self.done and unit not in self.damaged]


def score_everything(
    todo: Sequence[Unit],
    assignment: Assignment,
    manifest: Manifest,
    output: OutputDirectory,
    attempt: Attempt,
    console: Console,
    score: ScoreUnits | None = None,
) -> dict[Unit, str]:
    """Brings every unit to its part; returns why units have none.

    `score` sends the units through replicas; by default a pool is started for them, which ends with them.
    """
    if not todo:
        return {}
    settings = assignment.settings
    outcome = Outcome(attempt, settings.max_pairs, settings.max_minutes)
    attempt.replicas.units_at_once = 1 if settings.app is None else units_at_once(settings)
    attempt.enter("start")
    with ray_session(settings.address, console):
        assignment = with_texts(assignment, todo, output, console)
        score_in_pool(todo, assignment, manifest, outcome, score or score_units, console)
        lost = outcome.lost(todo)
        if lost:
            attempt.enter("quarantine")
            why = ", ".join(sorted(set(outcome.failures))) or "their replicas died"
            say(console, f"{len(lost)} unit(s) came to no end ({why}); scoring each alone ...")
            outcome.damaged |= score_alone(lost, assignment, attempt)
        attempt.enter("finish")
    attempt.check_lease()
    output.remove_half_written()
    return outcome.damaged


def with_texts(assignment: Assignment, todo: Sequence[Unit], output: OutputDirectory, console: Console) -> Assignment:
    """The assignment with the texts of documents that are ids; raises StoppedError when they cannot be read."""
    settings, selection, layout = assignment.settings, assignment.selection, assignment.layout
    texts = texts_for(todo, selection, settings.corpus, settings.mapping, layout, output.texts, console)
    return replace(assignment, texts=texts)


def score_in_pool(
    todo: Sequence[Unit],
    assignment: Assignment,
    manifest: Manifest,
    outcome: Outcome,
    score: ScoreUnits,
    console: Console,
) -> None:
    """Sends units through replicas, and shows the rows that are done; raises StoppedError."""
    open_scores = partial(open_reuse, assignment.settings, manifest.fingerprint, console)
    rows_done = manifest.rows - sum(unit.rows for unit in todo)
    with show_progress(console, manifest.rows, rows_done) as progress:
        for report in score(todo, assignment, open_scores):
            outcome.add(report, progress)
    if outcome.not_stored:
        why = f"{outcome.not_stored[0]} ({len(outcome.not_stored)} unit(s))"
        say(console, why, "new scores were not stored: ", "yellow")


def score_alone(units: Sequence[Unit], assignment: Assignment, attempt: Attempt) -> dict[Unit, str]:
    """Writes and counts the parts of units that came to no end in the pool; returns why units have none."""
    output, fingerprint = assignment.settings.output, assignment.fingerprint
    damaged: dict[Unit, str] = {}
    quarantine = Quarantine(assignment)
    try:
        for unit in units:
            table = read_apart(unit, assignment)
            if isinstance(table, str):
                damaged[unit] = table
                continue
            answered = quarantine.score(table)
            try:
                counts = write_part(output, fingerprint, unit, table.num_rows, answered.table, answered.counts)
            except UnwritablePartError as error:
                damaged[unit] = str(error)
            else:
                attempt.add(UnitReport(unit, counts))
    finally:
        quarantine.close()
    return damaged
