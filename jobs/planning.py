"""From INPUT as it is and OUTPUT as it was left to the manifest: what a job has to do, or why it must not."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from jobs.attaching import TextsById
from jobs.filters import check_condition_columns
from jobs.grouped_input import check_groupable, continued_groups, options_of_groups
from jobs.manifest import Manifest, Survey, check_same_job, plan_files, reconcile, survey
from jobs.output import OutputDirectory
from jobs.partitions import Partitions, continued_types, infer_types, input_root
from jobs.records import InputFile
from jobs.selection import Selection
from jobs.settings import RerankSettings
from jobs.storage import list_input
from jobs.table.columns import Layout, check_dropped_columns, check_output_names
from jobs.table.faults import detect_layout, why_unusable
from pipelines.errors import ConfigError


def new_manifest(settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]) -> Manifest:
    """The plan of a job that begins; raises ConfigError when the columns do not fit."""
    paths = [file.path for file in files]
    partitions = infer_types(input_root(settings.input, paths), paths)
    found = survey(files, selection_of(settings, files, partitions))
    size, planned = plan_files(found, files, followed=settings.follow)
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
        followed=settings.follow,
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
    before = replace(before, followed=before.followed or settings.follow)
    layout, types = settings.layout or Layout(before.options["layout"]), before.options.get("partitions", {})
    check_same_job(before, fingerprint, settings.result_options(layout) | {"partitions": types})
    planned, now = [one.file.path for one in before.files], [file.path for file in files]
    seen = [*planned, *now] if before.followed else now
    partitions = continued_types(input_root(settings.input, seen), types, planned, seen)
    after, changed = reconcile(before, files, output.finished(), selection_of(settings, files, partitions))
    return replace(after, options={**before.options, "partitions": partitions}), changed


def library_versions() -> dict[str, str]:
    """Versions of what can influence a result."""
    versions = {"python": platform.python_version()}
    for name in ("crossray", "ray", "torch", "tokenizers", "pyarrow"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "source"  # `ray job submit` runs from the sources, installed nowhere
    return versions
