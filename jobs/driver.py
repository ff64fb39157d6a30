"""The driver of a rerank job: what is asked for -> manifest -> units to do -> Ray -> quarantine -> summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.console import Console

from jobs.errors import StoppedError, disk_failures_as_stops, refused_access_as_usage_error
from jobs.input.selection import Selection
from jobs.joins.corpus.attaching import TextsById
from jobs.joins.corpus.texts import texts_for
from jobs.joins.groups.stage import group_input
from jobs.output.attempts import Attempt, begin_attempt
from jobs.output.directory import OutputDirectory
from jobs.output.lease import hold_lease
from jobs.output.manifest import Manifest
from jobs.output.parts import missing_units, write_part
from jobs.output.summary import by_file, summarize, unreadable_files
from jobs.planning import continued_manifest, library_versions, new_manifest, selection_of, selection_of_lists
from jobs.progress import print_summary, say, show_progress
from jobs.records import Unit, UnitReport
from jobs.resolution import check_store, with_absolute_paths, with_resolved_model, with_surveyed_corpus
from jobs.runtime.session import ray_session, session_with_app
from jobs.runtime.signals import signals_as_exceptions
from jobs.scoring.app_scorer import AppScorer
from jobs.scoring.scorer import Scorer
from jobs.settings import RerankSettings
from jobs.storage import check_apart, list_input, read_json, remove, remove_below, write_json
from jobs.table.columns import Layout
from jobs.workers.known_scores import open_reuse
from jobs.workers.pool import score_units, units_at_once
from jobs.workers.quarantine import Quarantine, read_apart, replica_starter

ScoreUnits = Callable[..., Iterator[UnitReport]]
"""Called as `jobs.workers.pool.score_units` is."""
WRITES_THAT_MAY_FAIL = 3
"""A file system may stumble; with a full one all further scores would be computed for nothing."""


def run(
    settings: RerankSettings,
    scorer_class: Callable[..., Scorer] | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Runs or resumes the job and returns its summary; `command` is kept for whoever finds the output unfinished.

    Raises ConfigError (nothing was touched), RefusedError (nothing was changed), StoppedError or InterruptedBySignal
    (the same call resumes).
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops():
        if settings.app is None:
            return run_here(settings, scorer_class or Scorer, console, command)
        # The app knows the model: without it there is no plan.
        with session_with_app(settings.address, settings.app, console):
            return run_here(settings, scorer_class or AppScorer, console, command)


def run_here(
    settings: RerankSettings, scorer_class: Callable[..., Scorer], console: Console, command: str | None
) -> dict[str, Any]:
    """`run`, with signals and failures of disks left as they come."""
    settings = with_absolute_paths(settings)
    settings, fingerprint = with_resolved_model(settings)
    output = OutputDirectory(settings.output)
    with ExitStack() as until_the_end:
        with refused_access_as_usage_error():
            files = list_input(settings.input)
            check_apart(settings.input, output.path, files)
            check_store(settings, files)
            settings = with_surveyed_corpus(settings, files)
            fresh = None if output.is_begun and not settings.overwrite else new_manifest(settings, fingerprint, files)
            output.create()
            lease = until_the_end.enter_context(hold_lease(output.path))
        output.remove_temporaries()
        if fresh is not None and (settings.overwrite or not output.is_begun):  # not begun and ended since by another
            output.clear()
            manifest, changed = fresh, True
        else:
            manifest, changed = continued_manifest(output, settings, fingerprint, files)
        if output.is_complete and not changed and not missing_units(output, manifest):
            say(console, f"{output.path} is complete, and INPUT has nothing new; --overwrite starts anew")
            return dict(read_json(output.summary))
        attempt = begin_attempt(output, command)
        remove(output.summary)
        if changed:
            manifest.write(output.manifest)
        lease.on_heartbeat = attempt.save
        selection = selection_of(settings, files, manifest.options["partitions"])
        if settings.group_by is not None:
            attempt.enter("group")
            until_the_end.enter_context(ray_session(settings.address, console))
            lists = group_input(settings, files, selection, output.grouped, console)
            selection, manifest = selection_of_lists(settings, lists, manifest, output)
        todo = missing_units(output, manifest)
        announce(console, manifest, todo)
        damaged = score_everything(todo, selection, settings, manifest, output, attempt, scorer_class, console)
        attempt.save()
        summary = summarize(output, manifest, by_file(damaged))
        write_json(output.summary, summary)
        if settings.corpus is not None:
            remove_below(output.texts)
    print_summary(console, summary, output.path)
    return summary


def score_everything(
    todo: Sequence[Unit],
    selection: Selection,
    settings: RerankSettings,
    manifest: Manifest,
    output: OutputDirectory,
    attempt: Attempt,
    scorer_class: Callable[..., Scorer],
    console: Console,
    score: ScoreUnits | None = None,
) -> dict[Unit, str]:
    """Brings every unit to its part; returns why units have none.

    `score` does it in place of a pool that is there for these units alone.
    """
    if not todo:
        return {}
    layout, fingerprint = Layout(manifest.options["layout"]), manifest.fingerprint["hash"]
    damaged: dict[Unit, str] = {}
    done: set[Unit] = set()
    failures: list[str] = []
    not_stored: list[str] = []
    attempt.replicas.units_at_once = 1 if settings.app is None else units_at_once(settings)
    attempt.enter("start")
    with ray_session(settings.address, console):
        texts = texts_for(todo, selection, settings.corpus, settings.mapping, layout, output.texts, console)
        known = partial(open_reuse, settings, manifest.fingerprint, console)
        score = score or score_units
        rows_left = sum(unit.rows for unit in todo)
        with show_progress(console, manifest.rows, manifest.rows - rows_left) as progress:
            for report in score(todo, selection, texts, settings, layout, fingerprint, scorer_class, known):
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
            start_replica = replica_starter(settings, layout, fingerprint, scorer_class)
            quarantine = Quarantine(start_replica, settings, layout)
            damaged |= score_alone(lost, selection, texts, quarantine, output, fingerprint)
        attempt.enter("finish")
    return damaged


def score_alone(
    units: Sequence[Unit],
    selection: Selection,
    texts: TextsById | None,
    quarantine: Quarantine,
    output: OutputDirectory,
    fingerprint: str,
) -> dict[Unit, str]:
    """Parts for units that Ray Data gave up on; returns why units cannot be read."""
    damaged: dict[Unit, str] = {}
    try:
        for unit in units:
            table = read_apart(unit, selection, texts)
            if isinstance(table, str):
                damaged[unit] = table
            else:
                answered = quarantine.score(table)
                write_part(output.path, fingerprint, unit, table.num_rows, answered.table, answered.counts)
    finally:
        quarantine.close()
    return damaged


def announce(console: Console, manifest: Manifest, todo: Sequence[Unit]) -> None:
    """What there is and what is to do."""
    total = len(manifest.units())
    console.print(
        f"{manifest.rows:,} rows in {len(manifest.files)} file(s), {total:,} units, {total - len(todo):,} done"
    )
    if manifest.rows_left_out:
        console.print(f"{manifest.rows_left_out:,} of the rows are in no unit: --where leaves out their row groups")
    for path, error in unreadable_files(manifest).items():
        say(console, f"{path}: {error}", "cannot be read: ")
    if manifest.versions != library_versions():
        say(console, str(manifest.versions), "begun with other library versions: ", "yellow")
