"""Runs a rerank job: settings -> manifest -> units that have no part -> their parts -> summary."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.console import Console

from jobs.driver.passes import score_everything
from jobs.driver.planning import continued_or_new, library_versions, new_manifest, selection_of, selection_of_lists
from jobs.driver.resolution import check_store, with_absolute_paths, with_resolved_model, with_surveyed_corpus
from jobs.errors import disk_failures_as_stops, refused_access_as_usage_error
from jobs.input.selection import Selection
from jobs.input.values import values_there
from jobs.joins.groups.stage import group_input
from jobs.output.attempts import Attempt, begin_attempt
from jobs.output.directory import OutputDirectory
from jobs.output.lease import hold_lease
from jobs.output.manifest import Manifest
from jobs.output.parts import missing_units
from jobs.output.summary import by_file, read_summary, summarize, unreadable_files
from jobs.records import InputFile, Unit
from jobs.runtime.session import ray_session, session_with_app
from jobs.runtime.signals import signals_as_exceptions
from jobs.scoring.app_scorer import app_scorer
from jobs.scoring.scorer import LoadScorer, own_scorer
from jobs.screen import print_summary, say, say_cut_timestamps, say_left_out
from jobs.settings import RerankSettings
from jobs.storage import Listing, check_apart, list_input, remove, remove_below, write_json
from jobs.workers.assignment import Assignment


def run(
    settings: RerankSettings,
    load_scorer: LoadScorer | None = None,
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
            return run_here(settings, load_scorer or own_scorer, console, command)
        # The app knows the model: without it there is no plan.
        with session_with_app(settings.address, settings.app, console):
            return run_here(settings, load_scorer or app_scorer, console, command)


def run_here(
    settings: RerankSettings, load_scorer: LoadScorer, console: Console, command: str | None
) -> dict[str, Any]:
    """Does what `run` says; what signals and failing disks raise is not caught here."""
    settings = with_absolute_paths(settings)
    settings, fingerprint = with_resolved_model(settings)
    output = OutputDirectory(settings.output)
    with ExitStack() as until_the_end:
        with refused_access_as_usage_error():
            settings, files = with_checked_input(settings, console)
            fresh = None if output.is_begun and not settings.overwrite else new_manifest(settings, fingerprint, files)
            output.create()
            tell = partial(say, console, label="waiting for ", style="yellow")
            lease = until_the_end.enter_context(hold_lease(output.path, tell))
        output.remove_temporaries()
        if fresh is not None and (settings.overwrite or not output.is_begun):  # not begun and ended since by another
            output.clear()
            manifest, changed = fresh, True
        else:
            manifest, changed, refusal = continued_or_new(output, settings, fingerprint, files)
            if refusal is not None:
                say(console, str(refusal), f"{output.path} has no finished part, so it begins anew: ", "yellow")
                output.clear()
        before = read_summary(output) if output.is_complete and not changed else None  # a damaged one is made anew
        if before is not None and not missing_units(output, manifest):
            say(console, f"{output.path} is complete, and INPUT has nothing new; --overwrite starts anew")
            return before
        attempt = begin_attempt(output, command, lease.check)
        attempt.check_lease()
        remove(output.summary)
        if changed:
            manifest.write(output.manifest)
        lease.on_heartbeat = attempt.save
        selection = selection_of(settings, files, manifest.options.partitions)
        if settings.group_by is not None:
            attempt.enter("group")
            until_the_end.enter_context(ray_session(settings.address, console))
            selection, manifest = with_lists(settings, files, selection, manifest, output, attempt, console)
        planned_hash = manifest.fingerprint["hash"]
        assignment = Assignment(settings, manifest.options.layout, planned_hash, load_scorer, selection)
        summary = score_and_sum_up(assignment, manifest, output, attempt, console, files.left_out)
    print_summary(console, summary, output.path)
    return summary


def with_checked_input(settings: RerankSettings, console: Console) -> tuple[RerankSettings, Listing]:
    """The settings with what the corpus is now, and the files of INPUT.

    Raises ConfigError for what is not there or cannot be used, RefusedError for places that overlap.
    """
    files = list_input(settings.input)
    say_left_out(console, settings.input, files.left_out)
    check_apart(settings.input, settings.output, files)
    check_store(settings, files)
    return with_surveyed_corpus(settings, files, console), files


def with_lists(
    settings: RerankSettings,
    files: Sequence[InputFile],
    selection: Selection,
    manifest: Manifest,
    output: OutputDirectory,
    attempt: Attempt,
    console: Console,
) -> tuple[Selection, Manifest]:
    """Groups the pairs of INPUT into lists, which take its place in the selection and in the manifest, also on disk."""
    lists = group_input(settings, files, selection, output.grouped_by(manifest.grouped), console)
    selection, planned = selection_of_lists(settings, lists, manifest, output)
    if planned != manifest:
        attempt.check_lease()
        planned.write(output.manifest)
    return selection, planned


def score_and_sum_up(
    assignment: Assignment,
    manifest: Manifest,
    output: OutputDirectory,
    attempt: Attempt,
    console: Console,
    left_out: Sequence[InputFile],
) -> dict[str, Any]:
    """Brings the units that have no part to their parts, and writes the summary, which is returned."""
    todo = missing_units(output, manifest)
    announce(console, manifest, todo)
    damaged = score_everything(todo, assignment, manifest, output, attempt, console)
    attempt.save()
    output.remove_strays({unit.name for unit in manifest.units()}, manifest.grouped)
    summary = summarize(output, manifest, by_file(damaged), left_out)
    if summary["rows_left_out"] and not summary["rows"]:
        for told in values_there(assignment.selection, [file.file for file in manifest.files]):
            say(console, told, "no row passes: ", "yellow")
    attempt.check_lease()
    write_json(output.summary, summary)
    if assignment.settings.corpus is not None:
        remove_below(output.texts)
    return summary


def announce(console: Console, manifest: Manifest, todo: Sequence[Unit]) -> None:
    """Says how many rows and units there are and how many are done, and which files cannot be read."""
    total = len(manifest.units())
    console.print(
        f"{manifest.rows:,} rows in {len(manifest.files)} file(s), {total:,} units, {total - len(todo):,} done"
    )
    if manifest.rows_left_out:
        console.print(f"{manifest.rows_left_out:,} of the rows are in no unit: --where leaves out their row groups")
    for path, error in unreadable_files(manifest).items():
        say(console, f"{path}: {error}", "cannot be read: ")
    say_cut_timestamps(console, manifest.files)
    if manifest.versions != library_versions():
        say(console, str(manifest.versions), "begun with other library versions: ", "yellow")
