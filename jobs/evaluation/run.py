"""The driver of `crossray evaluate`: sets -> lists -> what each system says of them -> measures.

A system (a reranker, an encoder, BM25, a fusion) scores the lists as a teacher of `crossray label` does, in a directory
of its own: an evaluation that is stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from jobs import storage
from jobs.driver.resolution import with_resolved_model
from jobs.errors import RefusedError, UnreadableFileError, disk_failures_as_stops
from jobs.evaluation.account import Account, origin
from jobs.evaluation.comparison import CEILING, FIRST_STAGE, Compared, as_results, compare
from jobs.evaluation.counted import counted_words
from jobs.evaluation.falls import RESULTS, VALUES, VALUES_SCHEMA, asked
from jobs.evaluation.first_stage import FirstStage, with_candidates
from jobs.evaluation.gate import check_sets
from jobs.evaluation.logs import Log
from jobs.evaluation.markdown import leaderboard
from jobs.evaluation.report.build import report
from jobs.evaluation.screen import print_set
from jobs.evaluation.settings import EvaluateSettings
from jobs.evaluation.systems import SCORE, System, name_of, read_system
from jobs.output.directory import check_no_job, make_output
from jobs.runtime.session import ray_session
from jobs.runtime.signals import signals_as_exceptions
from jobs.screen import OnlyProgress
from jobs.training.label.run import encoders_of, job_of, label, needs_words
from jobs.training.label.settings import LabelSettings
from jobs.training.label.teachers import Kind, Teacher
from pipelines.errors import ConfigError
from pipelines.evaluation.measures import DEFAULT_MEASURES, parse_measure
from pipelines.evaluation.sets import META, QUERIES, BenchmarkSet, first_candidates, read_set

REPORT, LEADERBOARD = "report.html", "leaderboard.md"
LISTS_FILE, SYSTEMS = "lists.parquet", "systems"
PROBLEMS_KEPT = 20
"""Lines of a set that are named in the results; all are counted."""
SEED = 0


def evaluate(settings: EvaluateSettings, console: Console | None = None) -> dict[str, Any]:
    """Runs or resumes an evaluation, prints a table for each set, and returns what `results.json` holds.

    Raises ConfigError, RefusedError, StoppedError or InterruptedBySignal, as `jobs.driver.run` does.
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops():
        for measure in settings.measured:
            parse_measure(measure)
        sets = read_sets(settings)
        check_systems(settings)
        stage = FirstStage.of(settings) if any(one.needs_candidates for one in sets) else None
        check_sets(settings.gate or {}, [one.name for one in sets])
        if settings.gate_against is not None:
            settings.gate_against.check([one.name for one in sets], map(name_of, settings.models))
        output = storage.absolute(settings.output, "--output")
        check_no_job(output, "--output")
        check_room(output, [one.name for one in sets])
        make_output(output, "--output")
        results: dict[str, Any] = {
            "measures": list(settings.measured),
            "top_k": settings.top_k,
            "sets": {},
            **origin(settings.queries),
        }
        tables, told = [], Account()
        with ray_session(settings.job.address, console):
            for one in sets:
                began = time.perf_counter()
                queries = drawn_queries(one, settings.queries)
                room = os.path.join(output, one.name)
                one, first_stage = with_candidates(one, queries, stage, room, console)  # noqa: PLW2901  # the same set
                systems = ranked_by_systems(one, queries, settings, room, console)
                measures = settings.measured_in(one.measure)
                compared = compare(one, queries, {system.name: system.order() for system in systems}, measures)
                tables.append(values_table(one, compared))
                told.add(one, systems, compared, measures[0])
                results["sets"][one.name] = {
                    "measures": list(measures),
                    "judged_by": one.judged_by,
                    "benchmark": one.benchmark,
                    "published_candidates": one.published_candidates,
                    "queries": len(queries),
                    "queries_in_all": one.queries_in_all,
                    "unlabelled": one.unlabelled,
                    "without_list": without_list(one, queries),
                    "problems": len(one.problems),
                    "first_stage": first_stage,
                    "first_problems": [str(problem) for problem in one.problems[:PROBLEMS_KEPT]],
                    "unanswered": {system.name: system.unanswered for system in systems},
                    "seconds": round(time.perf_counter() - began, 3),
                    **as_results(compared),
                    **told.of_set(one.name),
                }
                print_set(console, one.name, results["sets"][one.name], measures)
        storage.write_table(os.path.join(output, VALUES), pa.concat_tables(tables))
        results |= told.of_all_sets()
        storage.write_json(os.path.join(output, RESULTS), results)
        storage.write_text(os.path.join(output, LEADERBOARD), leaderboard(results))
        storage.write_text(os.path.join(output, REPORT), report(results, told.stories))
    console.print(f"To read and to send: {os.path.join(output, REPORT)}", soft_wrap=True)
    console.print(f"All figures are in {os.path.join(output, RESULTS)}; each query's in {VALUES}.", soft_wrap=True)
    return results


def check_systems(settings: EvaluateSettings) -> None:
    """Raises ConfigError or ModelError for a model or encoder that cannot be used, before Ray takes time to start.

    Raises ConfigError, too, for two rows that would be called alike.
    """
    names = [FIRST_STAGE, CEILING, *map(name_of, settings.systems)]
    if len(set(names)) < len(names):
        alike = max(names, key=names.count)
        raise ConfigError(f"two rows would be called {alike!r}; call the model by another path, such as ./{alike}")
    for system in settings.systems:
        encoders_of(system, settings.encoder, settings.job, "--baseline dense")
        for one in system.members:
            if one.kind is Kind.RERANKER:
                with_resolved_model(job_of(one, settings.job))


def read_sets(settings: EvaluateSettings) -> list[BenchmarkSet]:
    """The sets with the first candidates of each query; raises ConfigError."""
    sets = [read_one(place, settings) for place in settings.sets]
    names = [one.name for one in sets]
    if len(set(names)) < len(names):
        raise ConfigError(f"two sets are called {max(names, key=names.count)}; rename the folder of one")
    if settings.label_column is not None and all(one.unlabelled is None for one in sets):
        raise ConfigError("--label-column is of logs, and each SET is a folder that has its own judgements")
    for one in sets:
        check_own_measure(one)
    return [replace(one, candidates=first_candidates(one.candidates, settings.top_k)) for one in sets]


def check_room(output: str, names: Sequence[str]) -> None:
    """Raises RefusedError where results would go into a benchmark set, or replace files that no evaluation wrote."""
    rooms = [os.path.join(output, name) for name in names]
    for room in rooms:
        if storage.exists(os.path.join(room, QUERIES)):
            told = "is a benchmark set, and the results of a set of this name would go into it"
            raise RefusedError(f"--output {output}: {room} {told}; give another directory")
    if is_evaluation(output) or any(storage.exists(os.path.join(room, LISTS_FILE)) for room in rooms):
        return
    for name in (REPORT, LEADERBOARD, RESULTS, VALUES):
        if storage.exists(os.path.join(output, name)):
            raise RefusedError(f"--output {output} holds a {name} that no evaluation wrote; give another directory")


def is_evaluation(output: str) -> bool:
    """Whether a directory has the results of an evaluation that came to its end."""
    try:
        results = storage.read_json(os.path.join(output, RESULTS))
    except (OSError, ValueError):
        return False
    return isinstance(results, dict) and "sets" in results


def check_own_measure(one: BenchmarkSet) -> None:
    """Raises ConfigError where `meta.json` names a measure that there is not."""
    try:
        parse_measure(one.measure or DEFAULT_MEASURES[0])
    except ConfigError:
        raise ConfigError(f"{META} of {one.name} has the measure {one.measure!r}, which ir_measures has not") from None


def read_one(place: str, settings: EvaluateSettings) -> BenchmarkSet:
    """A benchmark set, or a log where its labels are named; raises ConfigError, and RefusedError as `check_apart`."""
    location = storage.absolute(place, "SET")
    is_log = not (Path(place) / QUERIES).is_file() and bool(storage.find_input(location))
    if not is_log:
        return read_set(Path(place), with_candidates=settings.first_stage is None)
    if settings.label_column is None:
        raise ConfigError(f"{place} has no {QUERIES}; if it is a log of your own, give --label-column")
    if settings.first_stage is not None:
        raise ConfigError(f"--first-stage with {place}: a log has its own lists, and no corpus to search")
    output = storage.absolute(settings.output, "--output")
    storage.check_apart(location, output, storage.list_input(location, "SET"), "SET", "--output")
    return Log(location, settings.label_column, settings.mapping).read(settings.queries)


def drawn_queries(one: BenchmarkSet, count: int | None) -> list[str]:
    """The ids of the queries that are measured: all that have an answer, or so many of them, the same each time."""
    queries = sorted(one.grades)
    return queries if count is None or count >= len(queries) else sorted(random.Random(SEED).sample(queries, count))


def without_list(one: BenchmarkSet, queries: Sequence[str]) -> int:
    """How many of the queries have no candidates at all, and so count 0 in every order."""
    rows = zip(one.candidates["query_id"].to_pylist(), pc.list_value_length(one.candidates["documents"]), strict=True)
    return len(set(queries) - {query for query, length in rows if length.as_py()})


def ranked_by_systems(
    one: BenchmarkSet, queries: Sequence[str], settings: EvaluateSettings, room: str, console: Console
) -> list[System]:
    """What each system says of the candidates of the queries."""
    lists = os.path.join(room, LISTS_FILE)
    write_lists(
        lists,
        settings.job.overwrite,
        one.candidates.filter(pc.is_in(one.candidates["query_id"], pa.array(queries, pa.string()))),
    )
    counts_words = any(needs_words(system) for system in settings.systems)
    counted = counted_words(one, room, console) if counts_words else None
    systems = []
    for system in settings.systems:
        place = os.path.join(room, SYSTEMS, directory_name(system))
        job = replace(settings.job, input=lists, output=place)
        console.print(f"{one.name}, {system}:", soft_wrap=True, highlight=False)
        summary = label(LabelSettings(job, system, SCORE, settings.encoder, counted), console=OnlyProgress(console))
        systems.append(read_system(system, place, summary))
    return systems


def directory_name(system: Teacher) -> str:
    """A name that tells the system to people, and no two systems share."""
    readable = re.sub(r"[^\w.-]+", "-", str(system))[-60:]
    return f"{readable}-{hashlib.sha256(str(system).encode()).hexdigest()[:8]}"


def write_lists(location: str, overwrite: bool, table: pa.Table) -> None:
    """Writes the lists, unless the same are there: a file that is written anew would be another INPUT.

    What has been scored of others is thrown away: a system that is given later, or that a kill kept from its turn,
    would be refused for it. Raises RefusedError where something else is there, and is not to be overwritten.
    """
    room = os.path.dirname(location)
    systems = os.path.join(room, SYSTEMS)
    fault = None
    if storage.exists(location):
        fault = why_not_the_same(location, table)
        if fault is None:
            return
    elif storage.is_directory(systems) and storage.names(systems):
        fault = f"{systems} holds files that no evaluation wrote; give another --output, or --overwrite to remove them"
    if fault is not None and not overwrite:
        raise RefusedError(fault)
    storage.make_directory(room)
    storage.remove_below(systems)
    storage.write_table(location, table)


def why_not_the_same(location: str, table: pa.Table) -> str | None:
    """Why the file does not hold these lists, with the way out; None where it does."""
    try:
        if storage.read_parquet(location, pq.ParquetFile.read).equals(table):
            return None
    except UnreadableFileError as error:
        return f"{error}; give another --output, or --overwrite to replace it"
    return (
        f"{location} holds other candidates, such as of another --queries or --top-k; give the same to go on, another "
        "--output, or --overwrite to start anew"
    )


def values_table(one: BenchmarkSet, compared: Compared) -> pa.Table:
    """Every measure of every query and row of a set."""
    digests = asked(one)
    rows = [
        {
            "set": one.name,
            "row": row,
            "measure": measure,
            "query_id": query,
            "asked": digests[query],
            "value": value,
        }
        for row, by_measure in compared.values.items()
        for measure, by_query in by_measure.items()
        for query, value in by_query.items()
    ]
    return pa.Table.from_pylist(rows, schema=VALUES_SCHEMA)
