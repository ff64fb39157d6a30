"""A corpus that is too large for each node to hold: a hash join through files, below OUTPUT/_texts.

    _texts/plan.json        the units in batches, the number of buckets, and ID: written first
    _texts/ID/              what follows, so that a worker that is late writes into no other join
    _texts/ID/asked/        for each batch of units the ids that they name, by bucket of the id's hash
    _texts/ID/corpus/       for each segment of the corpus its documents, by bucket
    _texts/ID/answered/     for each bucket the texts that batches ask for, by batch
    _texts/ID/delivered/    for each batch the texts of its units, by unit: what their replicas read

Each file is whole or not there, so the join goes on where it was stopped. All of it goes when the job is complete.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from jobs import storage
from jobs.errors import UnreadableFileError
from jobs.input.corpus import Corpus
from jobs.input.cutting import read_plan
from jobs.input.selection import Selection
from jobs.joins.cells import cell_sizes
from jobs.joins.corpus.attaching import TextsById
from jobs.joins.corpus.disk_join_steps import (
    PLAN,
    AnswerFile,
    AnsweringStage,
    AskingStage,
    CorpusStage,
    DeliveredTexts,
    DeliveringStage,
    Join,
    batch_name,
)
from jobs.records import Unit
from jobs.runtime.stages import Stage, run_stage
from jobs.runtime.threads import in_threads

BUCKET_BYTES = 32 << 20
"""Decoded: documents of the corpus that are held at once, and texts that are answered with."""
MAX_BUCKETS = 1024
BATCH_BYTES = 32 << 20
"""Decoded: texts of the units of a batch."""
STEPS = ("asked", "corpus", "answered", "delivered")


def join_texts(
    selection: Selection, texts: TextsById, corpus: Corpus, todo: Sequence[Unit], directory: str, console: Console
) -> DeliveredTexts:
    """Brings the texts of all units in `todo` to disk. `texts` has the layout, and no source yet.

    Needs a Ray session; raises StoppedError when something cannot be read or written, and the same call goes on.
    """
    join = plan_join(selection, texts, corpus, todo, directory)
    batches = range(len(join.batches))
    every_batch = [{"batch": batch} for batch in batches]
    if to_do(join, "delivered", list(batches), batch_name):
        console.print(
            f"corpus: {corpus.found.rows:,} documents, joined through {join.buckets:,} buckets in {directory}"
        )
        run_step(join, AskingStage, "asked", every_batch, lambda item: batch_name(**item))
        segments = [asdict(segment) for segment in corpus.found.segments]
        run_step(join, CorpusStage, "corpus", segments, lambda item: Unit(**item).name)
        join = replace(join, answers=tuple(planned_answers(join)))
        answers = [asdict(one) for one in join.answers]
        run_step(join, AnsweringStage, "answered", answers, lambda item: AnswerFile(**item).name)
        run_step(join, DeliveringStage, "delivered", every_batch, lambda item: batch_name(**item))
    for step in STEPS[:-1]:
        storage.remove_below(os.path.join(join.directory, step))
    return DeliveredTexts(directory)


def plan_join(selection: Selection, texts: TextsById, corpus: Corpus, todo: Sequence[Unit], directory: str) -> Join:
    """The plan of an earlier run, if it has all units that are to do, else a new one."""
    path = os.path.join(directory, PLAN)
    plan = storage.read_json(path) if storage.exists(path) else None
    if plan is None or "id" not in plan or not {*todo} <= {Unit(**unit) for units in plan["batches"] for unit in units}:
        storage.remove_below(directory)
        plan = {
            "id": uuid.uuid4().hex,
            "batches": [[asdict(unit) for unit in units] for units in cut_into_batches(todo, selection, texts)],
            "buckets": min(max(1, round(corpus.found.bytes / BUCKET_BYTES)), MAX_BUCKETS),
        }
        storage.make_directory(directory)
        storage.write_json(path, plan)
    of_this_join = os.path.join(directory, plan["id"])
    for step in STEPS:
        storage.make_directory(os.path.join(of_this_join, step))
        storage.remove_temporaries(os.path.join(of_this_join, step))
    batches = tuple(tuple(Unit(**unit) for unit in units) for units in plan["batches"])
    return Join(of_this_join, corpus, selection, texts, batches, plan["buckets"])


def cut_into_batches(todo: Sequence[Unit], selection: Selection, texts: TextsById) -> list[list[Unit]]:
    """Groups neighbouring units into batches, each of about BATCH_BYTES of rows with their texts."""
    paths = sorted({unit.path for unit in todo})
    sizes = in_threads(lambda path: bytes_of_a_row(path, selection, texts), paths)
    per_row = dict(zip(paths, sizes, strict=True))
    batches: list[list[Unit]] = []
    room = 0.0
    for unit in todo:
        size = unit.rows * per_row[unit.path]
        if not batches or size > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(unit)
        room -= size
    return batches


def bytes_of_a_row(path: str, selection: Selection, texts: TextsById) -> float:
    """Decoded bytes of a row of a file with its texts; 0 where the file cannot be read, and gives no rows."""
    try:
        return read_plan(path, selection, texts.expected_bytes).bytes_per_row
    except UnreadableFileError:
        return 0.0


def planned_answers(join: Join) -> list[AnswerFile]:
    """Plans the files of answers: a bucket gets as many as it takes that the texts of each fit into memory."""
    asked = in_threads(lambda batch: cell_sizes(join.asked(batch)), range(len(join.batches)))
    rows: Counter[int] = Counter()
    for cells in asked:
        rows.update({bucket: size.rows for bucket, size in cells.items()})
    files = []
    for bucket, count in sorted(rows.items()):
        shares = min(len(join.batches), max(1, round(count * join.corpus.found.bytes_per_row / BUCKET_BYTES)))
        of_bucket = [AnswerFile(bucket, share, shares) for share in range(shares)]
        asking = {batch for batch, cells in enumerate(asked) if bucket in cells}
        files += [file for file in of_bucket if any(map(file.is_for, asking))]
    return files


def run_step(
    join: Join, stage: Stage, step: str, items: list[dict[str, Any]], name: Callable[[dict[str, Any]], str]
) -> None:
    """Does the work of a step whose files are not there yet."""
    run_stage(stage, join, to_do(join, step, items, name))


def to_do(join: Join, step: str, items: Sequence[Any], name: Callable[[Any], str]) -> list[Any]:
    """The items of a step without their file."""
    there = set(storage.names(os.path.join(join.directory, step)))
    return [item for item in items if name(item) not in there]
