"""The driver of a rerank job: what is asked for -> manifest -> units to do -> Ray -> quarantine -> summary."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from jobs.app_scorer import AppScorer
from jobs.attaching import TextsById
from jobs.columns import Layout, check_dropped_columns, check_output_names, detect_layout, why_unusable
from jobs.errors import AccessError, StoppedError
from jobs.filters import check_condition_columns
from jobs.grouped_input import check_groupable, continued_groups, group_input, options_of_groups
from jobs.lease import hold_lease
from jobs.manifest import Manifest, Survey, check_same_job, plan_files, reconcile, survey
from jobs.output import OutputDirectory, check_apart
from jobs.partitions import Partitions, continued_types, infer_types, input_root
from jobs.pool import UNITS_PER_APP_ACTOR, ray_session, score_units
from jobs.progress import print_summary, say, show_progress
from jobs.quarantine import Quarantine, read_apart, replica_starter
from jobs.replicas import Scorer
from jobs.resolution import with_absolute_paths, with_resolved_model, with_surveyed_corpus
from jobs.selection import Selection
from jobs.settings import RerankSettings
from jobs.signals import signals_as_exceptions
from jobs.stages import write_part
from jobs.storage import InputFile, list_input, read_json, remove, remove_below, write_json
from jobs.summary import Attempt, begin_attempt, missing_units, summarize, unreadable_files
from jobs.texts import with_texts
from jobs.units import Unit
from pipelines.errors import ConfigError, ModelError

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
        with session_with_app(settings, console):  # the app knows the model: without it there is no plan
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
        damaged = score_everything(settings, selection, manifest, output, attempt, scorer_class, console)
        attempt.save()
        summary = summarize(output, manifest, damaged)
        write_json(output.summary, summary)
        if settings.corpus is not None:
            remove_below(output.texts)
    print_summary(console, summary, output.path)
    return summary


@contextmanager
def session_with_app(settings: RerankSettings, console: Console) -> Iterator[None]:
    """The cluster that the app runs on; raises ConfigError where there is none."""
    with ExitStack() as session:
        try:
            session.enter_context(ray_session(settings.address or "auto", console))
        except ConnectionError as error:
            raise ConfigError(
                f"--app is {settings.app!r}, but there is no Ray to find it on: {error}; give --address or RAY_ADDRESS"
            ) from None
        yield


def new_manifest(settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]) -> Manifest:
    """The plan of a job that begins; raises ConfigError when the columns do not fit."""
    paths = [file.path for file in files]
    partitions = infer_types(input_root(settings.input, paths), paths)
    found = survey(files, selection_of(settings, files, partitions))
    size, planned = plan_files(found, files)
    if settings.group_by is None:
        options = settings.result_options(checked_layout(found, settings)) | {"partitions": partitions}
    else:
        check_groupable(found, settings)
        options = options_of_groups(settings, files, partitions)
        planned = ()  # the lists are not there yet
    return Manifest(
        fingerprint=fingerprint,
        options=options,
        unit_bytes=size,
        files=planned,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=library_versions(),
    )


def selection_of(settings: RerankSettings, files: Sequence[InputFile], partitions: Mapping[str, str]) -> Selection:
    """What this run takes of its input; `partitions` are the types of the columns that paths add."""
    root = input_root(settings.input, [file.path for file in files])
    corpus = settings.corpus
    texts = None if corpus is None else TextsById(settings.mapping, corpus.found.bytes_per_row)
    return Selection(Partitions(root, partitions), settings.where, settings.shard, settings.limit, texts)


def checked_layout(found: Survey, settings: RerankSettings) -> Layout:
    """The layout of the input. What one file lacks is an error of its rows; what all lack is a usage error."""
    schemas = [plan.schema for plan in found.plans.values()]
    if not schemas:
        return settings.layout or Layout.LISTS  # nothing is readable: the summary will say why
    mapping = settings.mapping
    usable = [schema for schema in schemas for layout in Layout if why_unusable(schema, mapping, layout) is None]
    layout = detect_layout(usable[0] if usable else schemas[0], mapping, settings.layout)
    if layout is Layout.PAIRS and settings.top_n is not None:
        raise ConfigError("--top-n does not go with pair rows: each row in is a row out; leave it out")
    check_dropped_columns(schemas, mapping)
    check_condition_columns(settings.where, schemas)
    for schema in schemas:
        check_output_names(schema, mapping, layout)
    return layout


def selection_of_lists(
    settings: RerankSettings, lists: str, manifest: Manifest, output: OutputDirectory
) -> tuple[Selection, Manifest]:
    """All rows of the lists that pairs were grouped into, and the manifest with their plan, which is written."""
    files = list_input(lists)
    selection = selection_of(replace(settings, input=lists, where=(), shard=None, limit=None), files, {})
    manifest, changed = reconcile(manifest, files, output.finished(), selection)
    if changed:
        manifest.write(output.manifest)
    return selection, manifest


def continued_manifest(
    output: OutputDirectory, settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]
) -> tuple[Manifest, bool]:
    """The manifest of a job that goes on, and whether the input has changed; raises RefusedError."""
    before = Manifest.read(output.manifest)
    if settings.group_by is not None:
        return continued_groups(before, settings, fingerprint, files), False
    layout, types = settings.layout or Layout(before.options["layout"]), before.options.get("partitions", {})
    check_same_job(before, fingerprint, settings.result_options(layout) | {"partitions": types})
    planned, now = [one.file.path for one in before.files], [file.path for file in files]
    partitions = continued_types(input_root(settings.input, now), types, planned, now)
    after, changed = reconcile(before, files, output.finished(), selection_of(settings, files, partitions))
    return replace(after, options={**before.options, "partitions": partitions}), changed


def score_everything(
    settings: RerankSettings,
    selection: Selection,
    manifest: Manifest,
    output: OutputDirectory,
    attempt: Attempt,
    scorer_class: Callable[..., Scorer],
    console: Console,
) -> dict[str, str]:
    """Brings every unit to its part; returns why units have none, by file."""
    todo = missing_units(output, manifest)
    announce(console, manifest, todo)
    if not todo:
        return {}
    layout, fingerprint = Layout(manifest.options["layout"]), manifest.fingerprint["hash"]
    damaged: dict[Unit, str] = {}
    failures: list[str] = []
    attempt.replicas.units_at_once = 1 if settings.app is None else UNITS_PER_APP_ACTOR
    attempt.enter("start")
    with ray_session(settings.address, console):
        selection = with_texts(selection, settings.corpus, layout, todo, output.texts, console)
        rows_left = sum(unit.rows for unit in todo)
        with show_progress(console, manifest.rows, manifest.rows - rows_left) as progress:
            for report in score_units(todo, selection, settings, layout, fingerprint, scorer_class):
                if attempt.phase == "start" and report.scored is not None:
                    scoring = report.scored.ended - report.scored.began
                    attempt.enter("score", seconds_ago=scoring + report.seconds.get("write", 0.0))
                if report.stop is not None:
                    raise StoppedError(report.stop)
                if report.error is not None:
                    damaged[report.unit] = report.error
                elif report.failure is not None:
                    failures.append(report.failure)
                    if len(failures) > WRITES_THAT_MAY_FAIL:
                        raise StoppedError(f"{len(failures)} parts could not be written: {report.failure}")
                else:
                    attempt.add(report)
                    progress.advance(report.unit.rows, report.counts.usage.pairs)
        lost = missing_units(output, manifest, but=list(damaged))
        if lost:
            attempt.enter("quarantine")
            why = ", ".join(sorted(set(failures))) or "their replicas died"
            say(console, f"{len(lost)} unit(s) came to no end ({why}); scoring each alone ...")
            start_replica = replica_starter(settings, layout, fingerprint, scorer_class)
            damaged |= score_alone(lost, selection, Quarantine(start_replica, settings, layout), output, fingerprint)
        attempt.enter("finish")
    return {unit.path: error for unit, error in damaged.items()}


def score_alone(
    units: Sequence[Unit], selection: Selection, quarantine: Quarantine, output: OutputDirectory, fingerprint: str
) -> dict[Unit, str]:
    """Parts for units that Ray Data gave up on; returns why units cannot be read."""
    damaged: dict[Unit, str] = {}
    try:
        for unit in units:
            table = read_apart(unit, selection)
            if isinstance(table, str):
                damaged[unit] = table
            else:
                write_part(output.path, fingerprint, unit, table.num_rows, quarantine.score(table))
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


def library_versions() -> dict[str, str]:
    """Versions of what can influence a result."""
    versions = {"python": platform.python_version()}
    for name in ("crossray", "ray", "torch", "tokenizers", "pyarrow"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "source"  # `ray job submit` runs from the sources, installed nowhere
    return versions


@contextmanager
def refused_access_as_usage_error() -> Iterator[None]:
    """Before anything is written, a store that does not let us in is a wrong command; later it is a failure."""
    try:
        yield
    except AccessError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def disk_failures_as_stops() -> Iterator[None]:
    """A disk or store that is full or gone stops the job; what is written stays."""
    try:
        yield
    except ModelError:
        raise  # some are OSErrors too, but nothing has begun
    except OSError as error:
        raise StoppedError(f"{type(error).__name__}: {error}") from error
