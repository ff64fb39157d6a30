"""Every unit to its part: through a pool of replicas, then, where one came to no end, through the quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from rich.console import Console

from jobs.errors import StoppedError
from jobs.joins.corpus.texts import texts_for
from jobs.output.attempts import Attempt
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.output.parts import write_part
from jobs.records import Unit, UnitReport
from jobs.runtime.session import ray_session
from jobs.screen import say, show_progress
from jobs.workers.assignment import Assignment
from jobs.workers.known_scores import OpenReuse, open_reuse
from jobs.workers.pool import score_units, units_at_once
from jobs.workers.quarantine import Quarantine, read_apart

ScoreUnits = Callable[[Sequence[Unit], Assignment, OpenReuse], Iterator[UnitReport]]
"""Does what `jobs.workers.pool.score_units` does."""
WRITES_THAT_MAY_FAIL = 3
"""A file system may stumble; with a full one all further scores would be computed for nothing."""


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

    `score` does it in place of a pool that is there for these units alone.
    """
    if not todo:
        return {}
    settings = assignment.settings
    damaged: dict[Unit, str] = {}
    done: set[Unit] = set()
    failures: list[str] = []
    not_stored: list[str] = []
    attempt.replicas.units_at_once = 1 if settings.app is None else units_at_once(settings)
    attempt.enter("start")
    with ray_session(settings.address, console):
        selection, layout = assignment.selection, assignment.layout
        texts = texts_for(todo, selection, settings.corpus, settings.mapping, layout, output.texts, console)
        assignment = replace(assignment, texts=texts)
        known = partial(open_reuse, settings, manifest.fingerprint, console)
        score = score or score_units
        rows_left = sum(unit.rows for unit in todo)
        with show_progress(console, manifest.rows, manifest.rows - rows_left) as progress:
            for report in score(todo, assignment, known):
                if attempt.phase == "start" and report.scored is not None:
                    seconds_ago = report.scored.ended - report.scored.began + report.seconds["write"]
                    attempt.enter("score", seconds_ago)
                    progress.begin(seconds_ago)
                if report.stop is not None:
                    raise StoppedError(report.stop)
                if report.error is not None:
                    damaged[report.unit] = report.error
                elif report.failure is not None:
                    failures.append(report.failure)
                    if len(failures) > WRITES_THAT_MAY_FAIL:
                        raise StoppedError(f"{len(failures)} parts could not be written: {report.failure}")
                else:
                    done.add(report.unit)
                    attempt.add(report)
                    not_stored += [report.not_stored] if report.not_stored else []
                    progress.advance(report.unit.rows, report.counts.usage.pairs)
        if not_stored:
            say(console, f"{not_stored[0]} ({len(not_stored)} unit(s))", "new scores were not stored: ", "yellow")
        lost = [unit for unit in todo if unit not in done and unit not in damaged]
        if lost:
            attempt.enter("quarantine")
            why = ", ".join(sorted(set(failures))) or "their replicas died"
            say(console, f"{len(lost)} unit(s) came to no end ({why}); scoring each alone ...")
            damaged |= score_alone(lost, assignment)
        attempt.enter("finish")
    return damaged


def score_alone(units: Sequence[Unit], assignment: Assignment) -> dict[Unit, str]:
    """Parts for units that Ray Data gave up on; returns why units cannot be read."""
    output, fingerprint = assignment.settings.output, assignment.fingerprint
    damaged: dict[Unit, str] = {}
    quarantine = Quarantine(assignment)
    try:
        for unit in units:
            table = read_apart(unit, assignment)
            if isinstance(table, str):
                damaged[unit] = table
            else:
                answered = quarantine.score(table)
                write_part(output, fingerprint, unit, table.num_rows, answered.table, answered.counts)
    finally:
        quarantine.close()
    return damaged
