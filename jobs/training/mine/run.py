"""The driver of `crossray mine`: sources -> candidate files -> the offline job scores them -> training lists."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs import storage
from jobs.driver.resolution import JOB_ENVIRONMENT, check_store, with_absolute_paths, with_resolved_model
from jobs.errors import StoppedError, UnreadableFileError, disk_failures_as_stops, refused_access_as_usage_error
from jobs.records import InputFile
from jobs.runtime.session import ray_session
from jobs.runtime.signals import signals_as_exceptions
from jobs.runtime.stages import run_stage
from jobs.screen import say, say_left_out
from jobs.storage import absolute, check_apart
from jobs.training.encoders import with_absolute_directory
from jobs.training.mine.candidates import CandidateStage, KnownStage, Mining, SourceReport, read_report, report_name
from jobs.training.mine.negatives import Choosing, ChoosingStage
from jobs.training.mine.passages import PassageTable
from jobs.training.mine.pool import SHARED, known_name, write_shared
from jobs.training.mine.rows import why_no_source
from jobs.training.mine.settings import MineSettings
from jobs.training.pools import run_stage_on_replicas
from jobs.training.ranked import Rankings, rank_lists
from jobs.training.table_output import TableOutput, added_up, read_counts
from pipelines.errors import ConfigError
from pipelines.evaluation.analysis import ANALYZER
from pipelines.evaluation.bm25 import load_bm25s

KNOWN_ROOM, CANDIDATES_ROOM, RANKED_ROOM = "_known", "_candidates", "_ranked"
COUNTED = ("lists", "negatives", "false_negatives", "without_negatives")


def mine(settings: MineSettings, console: Console | None = None) -> dict[str, Any]:
    """Runs or resumes a mining and returns its summary.

    Raises ConfigError, RefusedError, StoppedError or InterruptedBySignal, as `jobs.driver.run` does.
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops(), ExitStack() as until_the_end:
        started = time.perf_counter()
        load_bm25s()
        settings = with_definite_paths(settings)
        job = settings.job
        output = TableOutput(job.output, "mine", (KNOWN_ROOM, CANDIDATES_ROOM, RANKED_ROOM))
        with refused_access_as_usage_error():
            files = storage.list_input(job.input)
            say_left_out(console, job.input, files.left_out)
            check_apart(job.input, job.output, files)
            check_store(job, files)
            corpus = corpus_files(settings)
            options = options_of(settings, corpus)
            if job.overwrite or not output.directory.is_begun:  # before anything is touched
                check_columns(settings, files, corpus)
            lease = until_the_end.enter_context(output.held())
            manifest = output.begin(options, files, {}, overwrite=job.overwrite)
        if output.directory.is_complete and is_whole(output, files):
            return output.told_complete(console)
        output.enter_rooms()
        with ray_session(job.address, console):
            reports = find_candidates(settings, files, corpus, output, console)
            choose_negatives(settings, reports, output, console)
        summary = summary_of(output, reports, manifest, time.perf_counter() - started)
        output.finish(lease, summary, KNOWN_ROOM)
    print_summary(console, summary, output.path)
    return summary


def with_definite_paths(settings: MineSettings) -> MineSettings:
    """The settings with absolute paths; raises ConfigError for paths that a job cannot use."""
    job, encoder, corpus = with_absolute_paths(settings.job), settings.encoder, settings.corpus
    if encoder is not None:
        encoder = replace(with_absolute_directory(encoder, "--dense"), num_cpus=job.num_cpus, num_gpus=job.num_gpus)
    if corpus is not None:
        corpus = absolute(corpus, "--corpus", allow_relative=JOB_ENVIRONMENT not in os.environ)
    return replace(settings, job=job, encoder=encoder, corpus=corpus)


def corpus_files(settings: MineSettings) -> list[InputFile]:
    """The files of --corpus; raises ConfigError where there are none, RefusedError where they overlap with OUTPUT."""
    if settings.corpus is None:
        return []
    files = storage.list_input(settings.corpus, "--corpus")
    check_apart(settings.corpus, settings.job.output, files, "--corpus")
    return files


def options_of(settings: MineSettings, corpus: Sequence[InputFile]) -> dict[str, Any]:
    """The settings that decide the result, with the digests of the models. Raises ConfigError or ModelError."""
    return {
        "model": with_resolved_model(settings.job)[1],
        "columns": asdict(settings.columns),
        "depth": settings.depth,
        "words": ANALYZER,
        "dense": None if settings.encoder is None else settings.encoder.identity(),
        "corpus": [asdict(file) for file in corpus] or None,
        "corpus_text": settings.corpus_text,
        **asdict(settings.rule),
    }


def check_columns(settings: MineSettings, files: Sequence[InputFile], corpus: Sequence[InputFile]) -> None:
    """Raises ConfigError where no file of INPUT is a source, or a file of --corpus lacks the column of texts."""
    whys = []
    for file in files:
        schema = readable_schema(file.path)
        why = None if schema is None else why_no_source(schema, settings.columns)
        if why is None:
            break
        whys.append(why)
    else:
        raise ConfigError(f"INPUT has no source: {whys[0]}")
    for file in corpus:
        schema = readable_schema(file.path)
        if schema is None or schema.names.count(settings.corpus_text) != 1:
            why = "cannot be read" if schema is None else f"has the columns {', '.join(schema.names)}"
            raise ConfigError(f"--corpus-text is {settings.corpus_text!r}, and {file.path} {why}")


def readable_schema(path: str) -> pa.Schema | None:
    """The schema of a file; None for one that cannot be read: the worker that reads it says why."""
    try:
        return storage.read_parquet(path, lambda file: file.schema_arrow)
    except UnreadableFileError:
        return None


def find_candidates(
    settings: MineSettings,
    files: Sequence[InputFile],
    corpus: Sequence[InputFile],
    output: TableOutput,
    console: Console,
) -> list[SourceReport]:
    """Writes the candidate files of every source that has none; a source that could not be read is tried again."""
    room = output.room(CANDIDATES_ROOM)
    pool = PassageTable(tuple(file.path for file in corpus), settings.corpus_text) if corpus else None
    done = {report.path for report in reports_in(output, files) if report.unreadable is None}
    todo = [{"path": file.path} for file in files if file.path not in done]
    console.print(f"candidates: {len(files):,} source(s), {len(todo):,} to be searched")
    mining = Mining(room, settings.columns, settings.depth, settings.encoder, pool)
    if todo and len(files) > 1:
        mining = replace(mining, known=share_known(mining, files, output))
    run_stage_on_replicas(CandidateStage, mining, todo, settings.job, loads_model=settings.encoder is not None)
    return reports_in(output, files)


def share_known(mining: Mining, files: Sequence[InputFile], output: TableOutput) -> str:
    """Has every source say what its rows know of passages, and returns where all of that is."""
    room, there = output.room(KNOWN_ROOM), output.there(KNOWN_ROOM)
    names = {file.path: known_name(file.path) for file in files}
    todo = [{"path": path, "location": os.path.join(room, name)} for path, name in names.items() if name not in there]
    run_stage(KnownStage, mining, todo)
    there = output.there(KNOWN_ROOM)
    write_shared(room, [name for name in names.values() if name in there])
    return os.path.join(room, SHARED)


def choose_negatives(
    settings: MineSettings, reports: Sequence[SourceReport], output: TableOutput, console: Console
) -> None:
    """Scores all candidate files with the offline job, and makes a part of training lists from each."""
    candidates, ranked = output.room(CANDIDATES_ROOM), output.room(RANKED_ROOM)
    rank_lists(candidates, ranked, settings.job, console)
    choosing = Choosing(output.path, candidates, Rankings.of(ranked), settings.rule)
    run_stage(ChoosingStage, choosing, missing(output, reports))


def reports_in(output: TableOutput, files: Sequence[InputFile]) -> list[SourceReport]:
    """The reports that are there, in the order of the files."""
    there = output.there(CANDIDATES_ROOM)
    names = [report_name(file.path) for file in files]
    return [read_report(os.path.join(output.room(CANDIDATES_ROOM), name)) for name in names if name in there]


def missing(output: TableOutput, reports: Sequence[SourceReport]) -> list[dict[str, Any]]:
    """The candidate files whose part is not there yet."""
    finished = output.directory.finished()
    return [
        {"name": name, "source": os.path.basename(report.path)}
        for report in reports
        for name in report.files
        if name not in finished
    ]


def is_whole(output: TableOutput, files: Sequence[InputFile]) -> bool:
    """Whether every source could be read, and no part was removed since."""
    could_be_read = not storage.read_json(output.directory.summary)["unreadable"]
    return could_be_read and not missing(output, reports_in(output, files))


def summary_of(
    output: TableOutput, reports: Sequence[SourceReport], manifest: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """The counts of all reports and parts, by source and added up; raises StoppedError where a part is missing."""
    lost = missing(output, reports)
    if lost:
        raise StoppedError(f"{len(lost)} part(s) are missing, such as {lost[0]['name']}; run the same command again")
    sources = {report.path: of_source(output, report) for report in reports}
    errors = added_up([source["errors"] for source in sources.values()])
    return {
        **{name: sum(source[name] for source in sources.values()) for name in ("rows", *COUNTED)},
        "rows_with_errors": sum(errors.values()),
        "errors": errors,
        "examples": {report.path: report.examples for report in reports if report.examples},
        "unreadable": {report.path: report.unreadable for report in reports if report.unreadable is not None},
        "sources": sources,
        "model": manifest["options"]["model"],
        "seconds": round(seconds, 1),
        "versions": manifest["versions"],
    }


def of_source(output: TableOutput, report: SourceReport) -> dict[str, Any]:
    """The counts of one source."""
    counts = read_counts([output.part(name) for name in report.files])
    errors = added_up([report.errors, *(one["errors"] for one in counts)])
    sums = {name: sum(one[name] for one in counts) for name in COUNTED}
    return {"rows": report.rows, "passages": report.passages, **sums, "errors": errors}


def print_summary(console: Console, summary: Mapping[str, Any], output: str) -> None:
    """Prints the table that a mining ends with: a line for each source."""
    say(console, f"Mined into {output} in {summary['seconds']:,.1f} s")
    table = Table()
    for heading in ("source", "rows", "lists", "negatives", "false negatives", "without any", "bad rows"):
        table.add_column(heading, justify="left" if heading == "source" else "right")
    for path, source in summary["sources"].items():
        bad = ", ".join(f"{rows:,} {reason}" for reason, rows in source["errors"].items()) or "0"
        numbers = (source["rows"], *(source[name] for name in COUNTED))
        table.add_row(Text(os.path.basename(path)), *(f"{number:,}" for number in numbers), bad)
    console.print(table)
    for path, error in summary["unreadable"].items():
        say(console, f"{path}: {error}", "could not be read: ")
