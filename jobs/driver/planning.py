"""Makes the manifest of a job from its settings, from INPUT as it is now, and from what an earlier run left in OUTPUT.

A job that would mix two results, or rank changed files, is refused here.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from jobs.errors import RefusedError
from jobs.input.conditions import check_condition_columns
from jobs.input.partitions import Partitions, continued_types, infer_types, input_root
from jobs.input.sampling import BytesBesides, nothing_besides
from jobs.input.selection import EVERYTHING, Selection
from jobs.input.survey import Survey, plan_files, survey
from jobs.joins.corpus.attaching import bytes_of_texts
from jobs.joins.groups.stage import check_groupable
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest, check_same_job
from jobs.output.options import JobOptions
from jobs.records import InputFile, PlannedFile
from jobs.settings import RerankSettings
from jobs.storage import list_input
from jobs.table.columns import (
    Layout,
    check_dropped_columns,
    check_output_names,
    check_reserved_names,
    why_not_written,
)
from jobs.table.faults import detect_layout, why_unusable, why_without_ids
from pipelines.errors import ConfigError

logger = logging.getLogger(__name__)


def new_manifest(settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]) -> Manifest:
    """The plan of a job that begins; raises ConfigError when the columns do not fit."""
    paths = [file.path for file in files]
    partitions = infer_types(input_root(settings.input, paths), paths)
    found = survey(files, selection_of(settings, files, partitions), bytes_of_texts(settings.corpus, settings.mapping))
    size, planned = plan_files(found, files, followed=settings.follow)
    if settings.group_by is None:
        options = settings.result_options(checked_layout(found, settings), partitions)
    else:
        check_groupable(found, settings)
        options = options_of_groups(settings, files, partitions)
        planned = ()  # the lists are not there yet
    manifest = Manifest(
        fingerprint=fingerprint,
        options=options,
        unit_bytes=size,
        files=(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=library_versions(),
        followed=settings.follow,
        grouped="" if settings.group_by is None else uuid.uuid4().hex,
    )
    return manifest.with_files(planned)


def selection_of(settings: RerankSettings, files: Sequence[InputFile], partitions: Mapping[str, str]) -> Selection:
    """What this run takes of its input; `partitions` are the types of the columns that paths add."""
    root = input_root(settings.input, [file.path for file in files])
    return Selection(Partitions(root, partitions), settings.where, settings.shard, settings.limit)


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
    if layout is Layout.PAIRS and settings.score_threshold is not None:
        raise ConfigError(
            "--score-threshold does not go with pair rows: each row in is a row out; leave it out and filter the "
            "output by relevance_score, or make lists with --group-by"
        )
    if usable and layout is Layout.LISTS and (told := why_without_ids(usable[0], mapping)):
        logger.warning(told)
    check_dropped_columns(schemas, mapping)
    check_condition_columns(settings.where, schemas)
    for schema in schemas:
        check_reserved_names(schema)
        check_output_names(schema, mapping, layout)
    return layout


def selection_of_lists(
    settings: RerankSettings, lists: str, manifest: Manifest, output: OutputDirectory
) -> tuple[Selection, Manifest]:
    """Makes the lists that pairs were grouped into the input of the job; returns their selection and the manifest.

    All of their rows are selected and planned.
    """
    files = list_input(lists)
    selection = selection_of(replace(settings, input=lists, where=(), shard=None, limit=None), files, {})
    besides = bytes_of_texts(settings.corpus, settings.mapping)
    return selection, reconcile(manifest, files, output.finished(), selection, besides)[0]


def continued_manifest(
    output: OutputDirectory, settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]
) -> tuple[Manifest, bool]:
    """The manifest of a job that goes on, and whether the input has changed; raises RefusedError."""
    before = Manifest.read(output.manifest)
    if settings.group_by is not None:
        return continued_groups(before, settings, fingerprint, files), False
    before = replace(before, followed=before.followed or settings.follow)
    types = before.options.partitions
    check_same_job(before, fingerprint, settings.result_options(settings.layout or before.options.layout, types))
    planned, now = [one.file.path for one in before.files], [file.path for file in files]
    seen = [*planned, *now] if before.followed else now
    partitions = continued_types(input_root(settings.input, seen), types, planned, seen)
    selection, besides = selection_of(settings, files, partitions), bytes_of_texts(settings.corpus, settings.mapping)
    why_not = partial(why_not_written, mapping=before.options.mapping, layout=before.options.layout)
    after, changed = reconcile(before, files, output.finished(), selection, besides, why_not)
    return replace(after, options=replace(before.options, partitions=partitions)), changed


def continued_or_new(
    output: OutputDirectory, settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]
) -> tuple[Manifest, bool, RefusedError | None]:
    """As `continued_manifest`; where it refuses and no part is finished, a new manifest and that refusal.

    Raises RefusedError where a part is finished, ConfigError as `new_manifest`.
    """
    try:
        return *continued_manifest(output, settings, fingerprint, files), None
    except RefusedError as refusal:
        if output.finished():
            raise
        return new_manifest(settings, fingerprint, files), True, refusal


def library_versions(*others: str) -> dict[str, str]:
    """Versions of what can influence a result, and of other packages that are installed."""
    versions = {"python": platform.python_version()}
    for name in ("crossray", "ray", "torch", "tokenizers", "pyarrow"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "source"  # `ray job submit` runs from the sources, installed nowhere
    for name in others:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def reconcile(
    manifest: Manifest,
    files: Sequence[InputFile],
    finished: set[str],
    selection: Selection = EVERYTHING,
    besides: BytesBesides = nothing_besides,
    why_not: Callable[[pa.Schema], str | None] = lambda _: None,
) -> tuple[Manifest, bool]:
    """The manifest for the input as it is now, and whether it differs from the one before.

    A file with finished units must be what it was (RefusedError); any other may change, and new files are planned.
    `why_not` tells of a schema why a new file with it cannot be used, which is an error of the file.
    Once a follower had a part in the job, finished files may go (log rotation), and other content under the name of one
    is left alone: what was not read before it came is an error of the file.
    """
    now = {file.path: file for file in files}
    kept: list[PlannedFile] = []
    for planned in manifest.files:
        current = now.get(planned.file.path)
        if current == planned.file and planned.error is None:
            kept.append(planned)
            del now[current.path]
        elif current != planned.file and any(unit.name in finished for unit in planned.units()):
            state = "was removed" if current is None else "has changed"
            if not manifest.followed:
                raise RefusedError(
                    f"input file {planned.file.path} {state} after units of it were finished; "
                    "restore it, or use --overwrite to start anew"
                )
            kept.append(without_lost_units(planned, finished, f"{state} before all of it was ranked"))
            now.pop(planned.file.path, None)
    fresh = list(now.values())
    size = None if manifest.followed else manifest.unit_bytes
    found = survey(fresh, selection, besides).without(why_not)
    planned_anew = found.planned(fresh, size, taken=sum(one.rows for one in kept))
    result = manifest.with_files([*kept, *planned_anew])
    return result, result.files != manifest.files


def without_lost_units(planned: PlannedFile, finished: set[str], why: str) -> PlannedFile:
    """The plan of a file that is gone or was changed: the units that have their part, and why there are no others."""
    ranges = tuple((unit.start, unit.rows) for unit in planned.units() if unit.name in finished)
    return planned if ranges == planned.ranges else replace(planned, ranges=ranges, error=planned.error or why)


def options_of_groups(
    settings: RerankSettings, files: Sequence[InputFile], partitions: Mapping[str, str]
) -> JobOptions:
    """What the manifest keeps of a job with groups: INPUT too, since the files of its plan are the lists."""
    return replace(settings.result_options(Layout.LISTS, partitions), grouped_files=tuple(files))


def check_same_input(before: Sequence[InputFile], files: Sequence[InputFile]) -> None:
    """Raises RefusedError when INPUT is not what it was when its pairs were grouped."""
    then, now = ({file.path: file for file in some} for some in (before, files))
    changes = {
        "is new": sorted(now.keys() - then.keys()),
        "was removed": sorted(then.keys() - now.keys()),
        "has changed": sorted(path for path in then.keys() & now.keys() if then[path] != now[path]),
    }
    for change, paths in changes.items():
        if paths:
            raise RefusedError(
                f"input file {paths[0]} {change} since pairs were grouped, and its pairs may belong to groups that are "
                "ranked already; restore INPUT, give another OUTPUT, or use --overwrite to start anew"
            )


def continued_groups(
    before: Manifest, settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]
) -> Manifest:
    """The manifest of a job with `--group-by` that goes on; raises RefusedError."""
    if before.options.group_by is not None:
        check_same_input(before.options.grouped_files, files)
    check_same_job(before, fingerprint, options_of_groups(settings, files, before.options.partitions))
    return before
