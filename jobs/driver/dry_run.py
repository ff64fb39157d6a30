"""`--dry-run` estimates a job: it plans as the job does, reads a sample, and measures one replica on this machine.

Nothing is written, no lease is taken and no Ray is started.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.driver.planning import continued_or_new, new_manifest, selection_of
from jobs.driver.resolution import with_absolute_paths, with_resolved_model, with_surveyed_corpus
from jobs.errors import UnreadableFileError, disk_failures_as_stops, refused_access_as_usage_error
from jobs.input.selection import Selection
from jobs.joins.corpus.attaching import TextsById, read_with_texts
from jobs.joins.corpus.texts import texts_here
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.output.parts import missing_units
from jobs.output.summary import unreadable_files
from jobs.records import InputFile, Unit
from jobs.screen import say, say_left_out
from jobs.settings import RerankSettings
from jobs.storage import check_apart, list_input
from jobs.table.columns import Layout
from jobs.table.parsing import parse_rows
from pipelines.errors import ConfigError
from pipelines.records import CandidateList, Usage

if TYPE_CHECKING:  # torch: seconds, and not for --help
    from pipelines.preparation import Preparation
    from pipelines.reranker import Reranker

SAMPLE_UNITS = 32
SAMPLE_BYTES = 16 << 20
"""Decoded: what is looked at in all units of the sample together."""
SAMPLE_BYTES_OF_A_UNIT = 1 << 20
"""Decoded: of a larger unit only the first rows are looked at."""
SEED = 0
MEASURED_SECONDS = 4.0
MEASURED_DOCUMENTS = 32
"""Documents that are scored at once while the speed is measured: few, so that a slow model does not take minutes."""
LARGEST_BATCH = 64
"""Lists of MEASURED_DOCUMENTS that are scored in one call at most: as many as the largest units of a job hold."""


@dataclass(slots=True)
class SampledUnits:
    """What was found in some of the units that are to do."""

    rows: int = 0
    """Rows looked at."""
    passed: int = 0
    """Rows that `--where` lets through."""
    errors: int = 0
    """Rows that `--where` lets through and that cannot be ranked."""
    usage: Usage = field(default_factory=Usage)
    """Of the rows that can be ranked, counted with the model's own tokenizer and lengths."""
    lists: list[CandidateList] = field(default_factory=list)


@disk_failures_as_stops()
@refused_access_as_usage_error()
def dry_run(settings: RerankSettings, console: Console | None = None) -> dict[str, Any]:
    """Prints and returns how many rows and pairs the job would score, and how long that would take.

    Raises ConfigError, RefusedError and StoppedError as the job would before it begins, ConfigError also without a GPU
    to measure.
    """
    console = console or Console()
    settings, fingerprint = with_resolved_model(with_absolute_paths(settings))
    settings = before_grouping(settings)
    files = list_input(settings.input)
    say_left_out(console, settings.input, files.left_out)
    check_apart(settings.input, settings.output, files)
    settings = with_surveyed_corpus(settings, files, console)
    manifest, todo = manifest_and_todo(settings, fingerprint, files)
    sample, speed = sample_and_speed(settings, files, manifest, todo, console)
    estimate = {
        "files": len(files),
        "rows_left_out_unread": manifest.rows_left_out,
        "units": len(manifest.units()),
        "units_done": len(manifest.units()) - len(todo),
        **scaled(sample, sum(unit.rows for unit in todo)),
        "pairs_per_second": speed,
        "replicas": replicas_of(settings, len(todo)),
    }
    estimate |= expected(estimate, settings.price)
    show(console, estimate, settings, unreadable_files(manifest))
    return estimate


def before_grouping(settings: RerankSettings) -> RerankSettings:
    """The settings by which a job is estimated: those of a job with `--group-by` without it, others as they are.

    So pairs are counted as they lie in INPUT; there are as many of them when they are lists.
    """
    if settings.group_by is None:
        return settings
    return replace(
        settings,
        group_by=None,
        top_n=None,
        score_threshold=None,
        uncalibrated=False,
        layout=Layout.PAIRS,
        overwrite=True,
    )


def manifest_and_todo(
    settings: RerankSettings, fingerprint: Mapping[str, Any], files: Sequence[InputFile]
) -> tuple[Manifest, list[Unit]]:
    """The manifest of the job, begun or not, and the units that are to do; raises as the job would."""
    output = OutputDirectory(settings.output)
    if not output.is_begun or settings.overwrite:
        manifest = new_manifest(settings, fingerprint, files)
        return manifest, manifest.units()
    manifest, _, _ = continued_or_new(output, settings, fingerprint, files)
    return manifest, missing_units(output, manifest)


def sample_and_speed(
    settings: RerankSettings, files: Sequence[InputFile], manifest: Manifest, todo: Sequence[Unit], console: Console
) -> tuple[SampledUnits, float]:
    """Returns a sample of the units that are to do, and how many pairs a replica scores in a second.

    That speed is what the user gave, or it is measured here.
    """
    from pipelines.preparation import Preparation  # torch: seconds, and not for --help

    os.environ["RAYON_NUM_THREADS"] = str(settings.num_cpus)  # as in a replica; read when the first batch comes
    reranker = None if settings.pairs_per_second is not None else loaded_reranker(settings)
    preparation = Preparation.load(settings.reranker) if reranker is None else reranker.preparation
    layout = manifest.options.layout
    texts = texts_here(settings.corpus, settings.mapping, layout, console)
    selection = selection_of(settings, files, manifest.options.partitions)
    sample = take_sample(todo, manifest.unit_bytes, selection, texts, settings, layout, preparation)
    if reranker is None:
        return sample, settings.pairs_per_second or 0.0
    return sample, measured_speed(reranker, sample.lists, settings.top_n)


def loaded_reranker(settings: RerankSettings) -> Reranker:
    """The model as a replica has it; raises ConfigError for one on a GPU where there is none."""
    import torch

    from pipelines.reranker import Reranker

    if settings.num_gpus and not torch.cuda.is_available():
        raise ConfigError(
            f"--num-gpus is {settings.num_gpus:g}, and this machine has no GPU to measure a replica on; "
            "give --pairs-per-second, or run this where the replicas will be"
        )
    return Reranker.from_config(settings.reranker)


def take_sample(
    units: Sequence[Unit],
    unit_bytes: int,
    selection: Selection,
    texts: TextsById | None,
    settings: RerankSettings,
    layout: Layout,
    preparation: Preparation,
) -> SampledUnits:
    """Reads some units, which are drawn at random but the same each time, and returns what they hold.

    Units that cannot be read are left out, as they are in the job.
    """
    sample = SampledUnits()
    for unit, table in sampled_tables(units, unit_bytes, selection, texts):
        rows = parse_rows(table, layout, settings.mapping)
        lists = [row.candidates for row in rows if row.candidates is not None]
        sample.rows += unit.rows
        sample.passed += table.num_rows
        sample.errors += table.num_rows - len(lists)
        sample.usage = sum((one.usage for one in preparation.prepare(lists, preparation.lengths)), sample.usage)
        sample.lists += lists
    return sample


def sampled_tables(
    units: Sequence[Unit], unit_bytes: int, selection: Selection, texts: TextsById | None
) -> Iterator[tuple[Unit, pa.Table]]:
    """Yields some of the units, each with its rows; of a large unit only the first rows."""
    left = SAMPLE_BYTES
    for drawn in random.Random(SEED).sample(units, min(SAMPLE_UNITS, len(units))):
        if left <= 0:
            return
        unit = replace(drawn, rows=max(1, min(drawn.rows, drawn.rows * SAMPLE_BYTES_OF_A_UNIT // unit_bytes)))
        try:
            table = read_with_texts(unit, selection, texts)
        except UnreadableFileError:
            continue
        left -= table.nbytes
        yield unit, table


def measured_speed(reranker: Reranker, lists: Sequence[CandidateList], top_n: int | None) -> float:
    """Pairs per second of one replica on this machine; batches grow until MEASURED_SECONDS are over.

    The first, smallest batch does not count unless it is the only one: the model warms up in it.
    """
    shorter = [
        CandidateList(one.query, one.documents[start : start + MEASURED_DOCUMENTS])
        for one in lists
        for start in range(0, len(one.documents), MEASURED_DOCUMENTS)
    ]
    random.Random(SEED).shuffle(shorter)
    size = 1
    pairs: list[int] = []
    seconds: list[float] = []
    while shorter and sum(seconds) < MEASURED_SECONDS:
        batch, shorter = shorter[:size], shorter[size:]
        started = time.perf_counter()
        reranker.rerank_lists(batch, top_n=top_n)
        seconds.append(time.perf_counter() - started)
        pairs.append(sum(len(one.documents) for one in batch))
        size = min(2 * size, LARGEST_BATCH)
    if len(pairs) > 1:
        pairs, seconds = pairs[1:], seconds[1:]
    return sum(pairs) / sum(seconds) if pairs else 0.0


def scaled(sample: SampledUnits, rows: int) -> dict[str, Any]:
    """The counts of the sample, scaled to all `rows` that are to do; exact where the sample is all of them."""
    factor = rows / sample.rows if sample.rows else 0.0
    counts = {"rows": sample.passed, "rows_left_out": sample.rows - sample.passed, "rows_with_errors": sample.errors}
    counts |= asdict(sample.usage)
    return {
        **{name: round(count * factor) for name, count in counts.items()},
        "rows_sampled": sample.rows,
        "is_exact": sample.rows == rows,
    }


def replicas_of(settings: RerankSettings, units: int) -> int:
    """How many replicas would run: the most that are asked for, else what a private Ray here would have room for."""
    if settings.replicas is not None:
        most = settings.replicas[1]
    elif settings.address is not None or settings.num_gpus:
        most = 1
    else:
        most = max(1, (os.cpu_count() or 1) // settings.num_cpus)
    return max(1, min(most, units))


def expected(estimate: Mapping[str, Any], price: float | None) -> dict[str, Any]:
    """How many seconds scoring would take, how many hours that is for all replicas together, and what those cost."""
    speed = estimate["pairs_per_second"]
    seconds = estimate["pairs"] / speed if speed else 0.0
    hours = seconds / 3600
    cost = None if price is None else hours * price
    return {"seconds": seconds / estimate["replicas"], "replica_hours": hours, "cost": cost}


def show(
    console: Console, estimate: Mapping[str, Any], settings: RerankSettings, unreadable: Mapping[str, str]
) -> None:
    """Prints the estimate as a table, and says what its figures rest on."""
    table = Table(title=Text("Dry run: nothing is written"), show_header=False, title_justify="left")
    about = "" if estimate["is_exact"] else "about "
    units = f"{estimate['units']:,}"
    table.add_row("files", f"{estimate['files']:,}")
    table.add_row("units", units + (f", {estimate['units_done']:,} of them done" if estimate["units_done"] else ""))
    table.add_row("rows", f"{about if settings.where else ''}{estimate['rows']:,}")
    for name in ("rows_with_errors", "pairs", "chunks", "tokens", "cut_documents", "cut_queries"):
        table.add_row(name.replace("_", " "), f"{about}{estimate[name]:,}")
    left_out = estimate["rows_left_out"] + estimate["rows_left_out_unread"]
    if settings.where:
        table.add_row("rows left out", f"{about}{left_out:,}, {estimate['rows_left_out_unread']:,} of them unread")
    table.add_row("pairs/s of a replica", f"{estimate['pairs_per_second']:,.1f}")
    table.add_row("time to score", f"{duration(estimate['seconds'])} with {estimate['replicas']} replica(s)")
    table.add_row("replica-hours", f"{estimate['replica_hours']:,.2f}")
    if estimate["cost"] is not None:
        table.add_row("cost", f"{estimate['cost']:,.2f} at {settings.price:,.2f} a replica-hour")
    console.print(table)
    measured = "measured for some seconds on this machine" if estimate["pairs_per_second"] else "not measured: no pairs"
    speed = measured if settings.pairs_per_second is None else "as given"
    basis = f"{estimate['rows_sampled']:,} rows looked at; speed {speed}. An estimate: it holds for replicas like this"
    say(console, f"{basis}, without the seconds that Ray and the replicas take to start.")
    for path, error in unreadable.items():
        say(console, f"{path}: {error}", "cannot be read: ")


def duration(seconds: float) -> str:
    """Seconds as hours, minutes or seconds, whichever a person would say."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
