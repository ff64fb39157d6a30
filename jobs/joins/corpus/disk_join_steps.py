"""What workers do to join units with a corpus that is too large to be held: ask, cut, answer, deliver.

Asked for is what the units of a batch name. Answered is by buckets of the id's hash, and delivered is to units again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs import storage
from jobs.errors import StoppedError, StoreError, UnreadableFileError
from jobs.input.corpus import Corpus
from jobs.input.reading import read_rows
from jobs.input.selection import Selection
from jobs.joins.cells import read_cell, write_cells
from jobs.joins.corpus.attaching import Found, TextsById
from jobs.joins.corpus.lookup import Segment, loaded_here, look_up, search, segment_of, why_absent
from jobs.joins.keys import hashes
from jobs.records import Unit
from jobs.table.faults import why_unusable
from jobs.table.reasons import Reason

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """The texts of one bucket for one share of the batches."""

    bucket: int
    share: int
    shares: int

    @property
    def name(self) -> str:
        return f"answers-{self.bucket:05d}-{self.share:03d}.parquet"

    def is_for(self, batch: int) -> bool:
        return batch % self.shares == self.share


@dataclass(frozen=True, slots=True)
class Join:
    """All that workers have to know about a join."""

    directory: str
    corpus: Corpus
    selection: Selection
    texts: TextsById
    """Without a source yet."""
    batches: tuple[tuple[Unit, ...], ...]
    buckets: int
    answers: tuple[AnswerFile, ...] = ()
    """Empty until all batches have asked."""

    def asked(self, batch: int) -> str:
        return os.path.join(self.directory, "asked", batch_name(batch))

    def cut(self, segment: Unit) -> str:
        return os.path.join(self.directory, "corpus", segment.name)

    def answered(self, file: AnswerFile) -> str:
        return os.path.join(self.directory, "answered", file.name)

    def delivered(self, batch: int) -> str:
        return os.path.join(self.directory, "delivered", batch_name(batch))

    def bucket_of(self, hashed: np.ndarray) -> np.ndarray:
        return (hashed % np.uint64(self.buckets)).astype(np.int64)


def batch_name(batch: int) -> str:
    """The name of the file that a batch has in each step."""
    return f"batch-{batch:05d}.parquet"


def ask(join: Join, batch: int) -> None:
    """Writes which ids the units of a batch name, each once."""
    ids = [pc.drop_null(named) for _, named in named_ids(join, batch)]
    asked = pc.unique(pa.concat_arrays([pa.nulls(0, pa.large_binary()), *ids]))
    hashed = hashes(asked)
    write_cells(join.asked(batch), pa.table({"id": asked}), join.bucket_of(hashed))


def named_ids(join: Join, batch: int) -> Iterator[tuple[int, pa.Array]]:
    """For each unit of a batch its number in it, and its ids in the order of its rows.

    Units that cannot be read are left out: their replica will say why.
    """
    for number, unit in enumerate(join.batches[batch]):
        try:
            table = read_rows(unit, join.selection)
        except UnreadableFileError:
            continue
        if why_unusable(table.schema, join.texts.mapping, join.texts.layout) is None:
            yield number, join.texts.named_documents(table).ids


def cut_corpus(join: Join, segment: Unit) -> None:
    """Writes the documents of a segment of the corpus by bucket."""
    loaded = loaded_here(segment, join.corpus)
    table = pa.table({"hash": loaded.hashes, "row": loaded.rows, "id": loaded.ids, "text": loaded.texts})
    write_cells(join.cut(segment), table, join.bucket_of(loaded.hashes))


def answer(join: Join, file: AnswerFile) -> None:
    """Writes the texts, or why there are none, that batches ask of a bucket; holds the bucket and the answers."""
    segments = [
        segment for segment in (segment_in(join, unit, file.bucket) for unit in join.corpus.found.segments) if segment
    ]
    answers = []
    for batch in filter(file.is_for, range(len(join.batches))):
        asked = read_cell(join.asked(batch), file.bucket)
        if asked is not None:
            ids = asked.column("id").combine_chunks()
            found = look_up(segments, ids)
            numbers = pa.array(np.full(len(ids), batch))
            answers.append(pa.table({"batch": numbers, "id": ids, **columns_from_found(found)}))
    table = pa.concat_tables(answers)
    write_cells(join.answered(file), table.drop(["batch"]), table.column("batch").to_numpy())


def segment_in(join: Join, unit: Unit, bucket: int) -> Segment | None:
    """What a segment of the corpus has in a bucket."""
    cell = read_cell(join.cut(unit), bucket)
    if cell is None:
        return None
    ids, texts = (cell.column(name).combine_chunks() for name in ("id", "text"))
    return Segment(unit.path, cell.column("hash").to_numpy(), cell.column("row").to_numpy(), ids, texts)


def columns_from_found(found: Found) -> dict[str, pa.Array]:
    """Texts and problems, as columns."""
    nothing: tuple[None, None] = (None, None)
    problems = [found.problems.get(i, nothing) for i in range(len(found.texts))]
    return {
        "text": found.texts,
        "reason": pa.array([None if reason is None else str(reason) for reason, _ in problems], pa.string()),
        "why": pa.array([why for _, why in problems], pa.string()),
    }


def found_from_columns(table: pa.Table) -> Found:
    """The inverse of `columns_from_found`."""
    reasons, whys = table.column("reason").combine_chunks(), table.column("why").combine_chunks()
    positions = pc.indices_nonzero(reasons.is_valid()).to_pylist()
    problems = {i: (Reason(reasons[i].as_py()), whys[i].as_py()) for i in positions}
    return Found(table.column("text").combine_chunks(), problems)


def deliver(join: Join, batch: int) -> None:
    """Writes for each unit of a batch what it asked for, in the order of its rows; raises StoppedError."""
    cells = [read_cell(join.answered(file), batch) for file in join.answers if file.is_for(batch)]
    answers = pa.concat_tables([EMPTY, *(cell for cell in cells if cell is not None)]).combine_chunks()
    ids = answers.column("id").combine_chunks()
    segment = segment_of("", np.arange(len(ids)), ids, pa.nulls(len(ids), pa.large_binary()))
    delivered = [EMPTY_DELIVERY]
    for number, named in named_ids(join, batch):
        asked, at = search(segment, named, hashes(named))
        if len(asked) != len(named) - named.null_count:
            raise StoppedError(f"{join.batches[batch][number]} names other documents than before; run it again")
        rows = np.full(len(named), -1)
        rows[asked] = segment.rows[at]
        delivered.append(delivery(answers, named, rows).append_column("unit", pa.array(np.full(len(named), number))))
    table = pa.concat_tables(delivered)
    write_cells(join.delivered(batch), table.drop(["unit"]), table.column("unit").to_numpy())


def delivery(answers: pa.Table, named: pa.Array, rows: np.ndarray) -> pa.Table:
    """Text and problem of each id that a unit names; `rows` is where its answer is, -1 for a null."""
    is_null = rows < 0
    table = answers.select(["text", "reason", "why"]).take(pa.array(rows, mask=is_null))
    if not is_null.any():
        return table
    reason, why = why_absent(named[int(np.flatnonzero(is_null)[0])], is_found=False)
    for name, value in (("reason", str(reason)), ("why", why)):
        column = pc.if_else(pa.array(is_null), value, table.column(name))
        table = table.set_column(table.column_names.index(name), name, column)
    return table


EMPTY = pa.schema(
    {"id": pa.large_binary(), "text": pa.large_binary(), "reason": pa.string(), "why": pa.string()}
).empty_table()
EMPTY_DELIVERY = EMPTY.drop(["id"]).append_column("unit", pa.array([], pa.int64()))


class AskingStage:
    """A step on workers: writes which ids a batch of units names."""

    def __init__(self, join: Join) -> None:
        self.join = join

    def __call__(self, item: dict[str, Any]) -> None:
        ask(self.join, **item)


class CorpusStage:
    """A step on workers: writes a segment of the corpus by bucket."""

    def __init__(self, join: Join) -> None:
        self.join = join

    def __call__(self, item: dict[str, Any]) -> None:
        cut_corpus(self.join, Unit(**item))


class AnsweringStage:
    """A step on workers: writes the texts of a bucket that batches ask for."""

    def __init__(self, join: Join) -> None:
        self.join = join

    def __call__(self, item: dict[str, Any]) -> None:
        answer(self.join, AnswerFile(**item))


class DeliveringStage:
    """A step on workers: writes the texts of a batch, by unit."""

    def __init__(self, join: Join) -> None:
        self.join = join

    def __call__(self, item: dict[str, Any]) -> None:
        deliver(self.join, **item)


@dataclass(frozen=True, slots=True)
class Places:
    """Where a join has delivered its texts."""

    id: str = ""
    """Of the join."""
    by_unit: Mapping[Unit, tuple[str, int]] = field(default_factory=dict)
    """File, and cell in it."""

    @classmethod
    def planned(cls, directory: str) -> Places:
        """Those of the join that is planned below a directory; raises StoppedError when there is no plan."""
        try:
            plan = storage.read_json(os.path.join(directory, PLAN))
        except FileNotFoundError:
            raise StoppedError(f"{directory} has no {PLAN} any more; run the same command again") from None
        delivered = os.path.join(directory, plan["id"], "delivered")
        places = {
            Unit(**unit): (os.path.join(delivered, batch_name(batch)), number)
            for batch, units in enumerate(plan["batches"])
            for number, unit in enumerate(units)
        }
        return cls(plan["id"], places)


@dataclass(slots=True)
class DeliveredTexts:
    """The texts that a join has written for each unit: those of the join below `directory` now, whichever that is.

    So a follower's replicas, which outlive its joins, are told the same in every round.
    """

    directory: str
    places: Places = field(default_factory=Places, compare=False)
    """As they were when a unit was looked for that is not among them."""

    def look_up(self, ids: pa.Array, unit: Unit) -> Found:
        """Raises StoppedError when they cannot be read, or are not those of the unit."""
        try:
            cell = self._cell(unit) if len(ids) else EMPTY_DELIVERY
        except UnreadableFileError as error:
            raise StoppedError(f"{error}; remove {self.directory} and run the same command again") from None
        if cell is None or cell.num_rows != len(ids):
            raise StoppedError(
                f"the texts of rows {unit.start} to {unit.start + unit.rows - 1} of {unit.path} were not gathered: it "
                f"could not be read then; remove {self.directory} and run it again"
            )
        return found_from_columns(cell)

    def _cell(self, unit: Unit) -> pa.Table | None:
        """What was delivered for a unit; another join may have taken the place of the one that is known."""
        known = self.places
        if unit in known.by_unit:
            try:
                return read_cell(*known.by_unit[unit])
            except (UnreadableFileError, StoreError):
                self.places = Places.planned(self.directory)
                if self.places.id == known.id:
                    raise
        else:
            self.places = Places.planned(self.directory)
        place = self.places.by_unit.get(unit)
        return None if place is None else read_cell(*place)
