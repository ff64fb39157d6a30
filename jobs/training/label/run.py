"""The driver of `crossray label`: INPUT -> lists and word counts, if a teacher needs them -> parts with its scores."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs import storage
from jobs.driver.resolution import check_store, with_absolute_paths, with_resolved_model
from jobs.errors import StoppedError, disk_failures_as_stops, refused_access_as_usage_error
from jobs.input.partitions import Partitions, infer_types, input_root
from jobs.input.selection import Selection
from jobs.input.survey import Survey, survey
from jobs.records import InputFile, Unit
from jobs.runtime.machine import processor
from jobs.runtime.session import ray_session
from jobs.runtime.signals import signals_as_exceptions
from jobs.runtime.stages import run_stage
from jobs.screen import say, say_left_out
from jobs.settings import RerankSettings
from jobs.storage import check_apart
from jobs.table.columns import Layout
from jobs.table.faults import detect_layout, why_unusable
from jobs.training.encoders import EncoderSettings, with_absolute_directory
from jobs.training.label.frequencies import ALL, write_owned, write_sum
from jobs.training.label.pieces import FREQUENCIES_ROOM, LISTS_ROOM, CountStage, Labelling, LabelStage, ReadStage
from jobs.training.label.settings import LabelSettings
from jobs.training.label.teachers import Kind, Teacher
from jobs.training.pools import run_stage_on_replicas
from jobs.training.ranked import Rankings, rank_lists
from jobs.training.table_output import TableOutput, added_up, read_counts
from pipelines.errors import ConfigError
from pipelines.evaluation.analysis import ANALYZER, load_stemmers

BYTES_AT_ONCE = 16 << 20
"""Decoded size of the rows that a worker reads, scores and writes at once."""
RANKED_ROOM = "_ranked"
ROOMS = (LISTS_ROOM, FREQUENCIES_ROOM, RANKED_ROOM)


def label(settings: LabelSettings, console: Console | None = None) -> dict[str, Any]:
    """Runs or resumes a labelling and returns its summary.

    Raises ConfigError, RefusedError, StoppedError or InterruptedBySignal, as `jobs.driver.run` does.
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops(), ExitStack() as until_the_end:
        started = time.perf_counter()
        job = with_absolute_paths(settings.job)
        encoders = encoders_of(settings.teacher, settings.encoder, settings.job, "--teacher dense")
        jobs = {one: job_of(one, job) for one in settings.teacher.members if one.kind is Kind.RERANKER}
        output = TableOutput(job.output, "label", ROOMS)
        with refused_access_as_usage_error():
            files = storage.list_input(job.input)
            say_left_out(console, job.input, files.left_out)
            check_apart(job.input, job.output, files)
            check_store(job, files)
            options = options_of(settings, job, encoders, jobs)
            is_new = job.overwrite or not output.directory.is_begun
            plan = checked_plan(settings, job, files) if is_new else {}  # before anything is touched
            lease = until_the_end.enter_context(output.held())
            manifest = output.begin(options, files, plan, overwrite=job.overwrite)
            manifest = with_readable_now(manifest, job, files, output)
        pieces = [Unit(*piece) for piece in manifest["pieces"]]
        if output.directory.is_complete and not missing(output, pieces):
            return output.told_complete(console)
        output.enter_rooms()
        with ray_session(job.address, console):
            labelling = labelling_of(settings, job, encoders, manifest)
            speeds = label_pieces(labelling, pieces, jobs, job, output, console)
        summary = {**summary_of(output, pieces, manifest, time.perf_counter() - started), "speeds": speeds}
        # What could not be read may be readable another time: then the same command goes on with what is there.
        output.finish(lease, summary, *(() if summary["unreadable"] else ROOMS))
    print_summary(console, summary, output.path, str(settings.teacher))
    return summary


def label_pieces(
    labelling: Labelling,
    pieces: Sequence[Unit],
    jobs: Mapping[Teacher, RerankSettings],
    job: RerankSettings,
    output: TableOutput,
    console: Console,
) -> dict[str, Any]:
    """Brings every piece to its part: first what the teachers need of all pieces, then the scores.

    Returns how fast the rerankers among the teachers were, by their names.
    """
    todo = missing(output, pieces)
    console.print(f"{sum(piece.rows for piece in pieces):,} rows in {len(pieces):,} piece(s), {len(todo):,} to do")
    read_pieces(labelling, pieces, todo, output)
    if counts_input(labelling):
        count_words(labelling, pieces, output)
    labelling, speeds = with_rankings(labelling, jobs, output, console)
    items = [asdict(piece) for piece in missing(output, pieces)]
    run_stage_on_replicas(LabelStage, labelling, items, job, loads_model=bool(labelling.encoders))
    return speeds


def encoders_of(
    teacher: Teacher, encoder: EncoderSettings | None, job: RerankSettings, flag: str
) -> dict[Teacher, EncoderSettings]:
    """The encoders of the dense teachers, with absolute directories; `flag` is the one that names them.

    Raises ConfigError for a directory that cannot be used.
    """
    shared = replace(encoder or EncoderSettings(""), num_cpus=job.num_cpus, num_gpus=job.num_gpus)
    return {
        member: with_absolute_directory(replace(shared, directory=member.model), flag)
        for member in teacher.members
        if member.kind is Kind.DENSE
    }


def job_of(teacher: Teacher, job: RerankSettings) -> RerankSettings:
    """The offline job that gives a reranker's logits."""
    return replace(job, reranker=replace(job.reranker, model=teacher.model, raw_scores=True))


def options_of(
    settings: LabelSettings,
    job: RerankSettings,
    encoders: Mapping[Teacher, EncoderSettings],
    jobs: Mapping[Teacher, RerankSettings],
) -> dict[str, Any]:
    """The settings that decide the result, with the digests of the models. Raises ConfigError or ModelError."""
    members = {str(one): encoder.identity() for one, encoder in encoders.items()}
    members |= {str(one): with_resolved_model(reranking)[1] for one, reranking in jobs.items()}
    names = {name: getattr(job.mapping, name) for name in ("query", "documents", "text_field")}
    words = {}
    if needs_words(settings.teacher):
        load_stemmers()
        words["words"] = ANALYZER
        if settings.counted is not None:
            words["counted"] = os.path.basename(settings.counted)
    return {"teacher": str(settings.teacher), "column": settings.column, **names, "models": members, **words}


def checked_plan(settings: LabelSettings, job: RerankSettings, files: Sequence[InputFile]) -> dict[str, Any]:
    """What `plan_of` says of INPUT; raises ConfigError when no file has the columns that are needed."""
    found = survey(files, selection_of(job, files))
    check_columns(found, settings, job)
    return plan_of(found, files)


def plan_of(found: Survey, files: Sequence[InputFile]) -> dict[str, Any]:
    """The pieces that files are cut into, and those files that cannot be read."""
    pieces = [unit for file in found.planned(files, BYTES_AT_ONCE) for unit in file.units()]
    return {
        "pieces": [[unit.path, unit.start, unit.rows] for unit in pieces],
        "unreadable": {file.path: error for file, error in found.errors.items()},
    }


def with_readable_now(
    manifest: dict[str, Any], job: RerankSettings, files: Sequence[InputFile], output: TableOutput
) -> dict[str, Any]:
    """The manifest with the pieces of files that could not be read when the job began, and now can."""
    again = [file for file in files if file.path in manifest["unreadable"]]
    plan = plan_of(survey(again, selection_of(job, files)), again)
    if plan["pieces"]:
        manifest |= {"pieces": manifest["pieces"] + plan["pieces"], "unreadable": plan["unreadable"]}
        storage.write_json(output.directory.manifest, manifest)
    return manifest


def selection_of(job: RerankSettings, files: Sequence[InputFile]) -> Selection:
    """Selects all rows, with the columns that names of directories such as `lang=de` add."""
    paths = [file.path for file in files]
    root = input_root(job.input, paths)
    return Selection(Partitions(root, infer_types(root, paths)))


def check_columns(found: Survey, settings: LabelSettings, job: RerankSettings) -> None:
    """Raises ConfigError where no file has the columns that are needed, or where the new column is there already.

    A file that alone lacks a column is no error here: its rows are counted as bad.
    """
    schemas = [plan.schema for plan in found.plans.values()]
    usable = [schema for schema in schemas if why_unusable(schema, job.mapping, Layout.LISTS) is None]
    if schemas:
        detect_layout(usable[0] if usable else schemas[0], job.mapping, Layout.LISTS)
    if not job.overwrite and any(settings.column in schema.names for schema in schemas):
        raise ConfigError(
            f"the input has a column `{settings.column}` already; give --column NAME for another one beside it, or "
            "--overwrite to replace it"
        )


def labelling_of(
    settings: LabelSettings,
    job: RerankSettings,
    encoders: Mapping[Teacher, EncoderSettings],
    manifest: Mapping[str, Any],
) -> Labelling:
    """What workers are told, before the rerankers have ranked."""
    files = [InputFile(*file) for file in manifest["files"]]
    selection = selection_of(job, files)
    return Labelling(
        job.output, settings.column, job.mapping, selection, settings.teacher, encoders, {}, settings.counted
    )


def missing(output: TableOutput, pieces: Sequence[Unit]) -> list[Unit]:
    """The pieces whose part is not there yet."""
    finished = output.directory.finished()
    return [piece for piece in pieces if piece.name not in finished]


def needs_words(teacher: Teacher) -> bool:
    """Whether BM25 is the teacher or one of a fusion."""
    return any(member.kind is Kind.BM25 for member in teacher.members)


def counts_input(labelling: Labelling) -> bool:
    """Whether the words of INPUT are to be counted."""
    return needs_words(labelling.teacher) and labelling.counted is None


def read_pieces(labelling: Labelling, pieces: Sequence[Unit], todo: Sequence[Unit], output: TableOutput) -> None:
    """Writes lists of the pieces that have no part, if a reranker teaches, and digests of all pieces for BM25."""
    lists, words = output.there(LISTS_ROOM), output.there(FREQUENCIES_ROOM)
    reranks = any(member.kind is Kind.RERANKER for member in labelling.teacher.members)
    counts = counts_input(labelling) and ALL not in words
    unfinished = set(todo)
    items = [
        {
            "piece": asdict(piece),
            "lists": reranks and piece in unfinished and piece.name not in lists,
            "seen": counts and f"seen-{piece.name}" not in words,
        }
        for piece in pieces
    ]
    run_stage(ReadStage, labelling, [item for item in items if item["lists"] or item["seen"]])


def count_words(labelling: Labelling, pieces: Sequence[Unit], output: TableOutput) -> None:
    """Counts in how many documents of INPUT each word is; pieces that were counted are not counted again."""
    room, there = output.room(FREQUENCIES_ROOM), output.there(FREQUENCIES_ROOM)
    if ALL in there:
        return
    seen = [piece for piece in pieces if f"seen-{piece.name}" in there]
    if any(f"owned-{piece.name}" not in there for piece in seen):
        stale = {name for name in there if name.startswith("counted-")}
        storage.remove(*(os.path.join(room, name) for name in stale))
        there -= stale
        write_owned(room, [piece.name for piece in seen])
    run_stage(CountStage, labelling, [asdict(piece) for piece in seen if f"counted-{piece.name}" not in there])
    there = output.there(FREQUENCIES_ROOM)
    write_sum(room, [piece.name for piece in seen if f"counted-{piece.name}" in there])


def with_rankings(
    labelling: Labelling, jobs: Mapping[Teacher, RerankSettings], output: TableOutput, console: Console
) -> tuple[Labelling, dict[str, Any]]:
    """Lets each reranker rank all lists; returns the labelling with what they say, and how fast they were."""
    rankings, speeds = {}, {}
    for number, (teacher, job) in enumerate(jobs.items()):
        ranked = os.path.join(output.room(RANKED_ROOM), str(number))
        summary = rank_lists(output.room(LISTS_ROOM), ranked, job, console)
        rankings[teacher] = Rankings.of(ranked)
        if summary is not None:
            speeds[str(teacher)] = speed_of(summary, job)
    return replace(labelling, rankings=rankings), speeds


def speed_of(summary: Mapping[str, Any], job: RerankSettings) -> dict[str, Any]:
    """How fast a reranker was, how much memory it took, and of what: of the summary of the offline job.

    `runs` is in how many the pairs were scored: what was in work when one was stopped is time without pairs.
    """
    scored = [attempt for attempt in summary["attempts"] if attempt["pairs"]]
    seconds = sum(attempt["phases"].get(phase, 0.0) for attempt in scored for phase in ("score", "quarantine"))
    return {
        "pairs": sum(attempt["pairs"] for attempt in scored),
        "seconds": round(seconds, 3),
        "pairs_per_second": summary["pairs_per_second"],
        "tokens": summary["tokens"],
        "chunks": summary["chunks"],
        "chunks_reused": summary["chunks_reused"],
        "stored_scores": job.scores is not None,
        "peak_memory": max((attempt.get("peak_memory", 0) for attempt in scored), default=0),
        "peak_gpu_memory": max((attempt.get("peak_gpu_memory", 0) for attempt in scored), default=0),
        "replicas": max((attempt["replicas"] for attempt in scored), default=0),
        "cpus_each": job.num_cpus,
        "gpus_each": job.num_gpus,
        "processor": processor(),
        "started": scored[0]["started"] if scored else None,
        "runs": len(summary["attempts"]),
    }


def summary_of(
    output: TableOutput, pieces: Sequence[Unit], manifest: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """The counts of all parts, added up.

    Raises StoppedError where a part is missing although its file could be read.
    """
    unfinished = missing(output, pieces)
    incomplete = {piece.path for piece in unfinished}
    # A file that failed once, while its words were counted, may have been labelled afterwards.
    notes = {path: why for path, why in output.unreadable().items() if path in incomplete}
    unreadable = manifest["unreadable"] | notes
    lost = [piece for piece in unfinished if piece.path not in unreadable]
    if lost:
        raise StoppedError(f"{len(lost)} piece(s) have no part, such as {lost[0].name}; run the same command again")
    finished = output.directory.finished()
    counts = read_counts([output.part(piece.name) for piece in pieces if piece.name in finished])
    names = ("rows", "lists", "documents", "null_documents")
    errors = added_up([one["errors"] for one in counts])
    return {
        **{name: sum(one[name] for one in counts) for name in names},
        "rows_with_errors": sum(errors.values()),
        "errors": errors,
        "unreadable": unreadable,
        "parts": len(counts),
        "teacher": manifest["options"]["teacher"],
        "column": manifest["options"]["column"],
        "seconds": round(seconds, 1),
        "versions": manifest["versions"],
    }


def print_summary(console: Console, summary: Mapping[str, Any], output: str, teacher: str) -> None:
    """Prints the table that a labelling ends with."""
    say(console, f"Labelled by {teacher} into {output}")
    table = Table(show_header=False)
    table.add_row("rows", f"{summary['rows']:,} in {summary['parts']:,} part(s)")
    for name in ("lists", "documents", "null_documents", "rows_with_errors"):
        table.add_row(name.replace("_", " "), f"{summary[name]:,}")
    for reason, rows in summary["errors"].items():
        table.add_row(f"  {reason}", f"{rows:,}")
    table.add_row("seconds", f"{summary['seconds']:,.1f}")
    console.print(table)
    for path, error in summary["unreadable"].items():
        say(console, f"{path}: {error}", "could not be read: ")
