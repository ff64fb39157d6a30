"""The stages of a job on Ray Data: ReadingStage -> ScoringStage -> WritingStage, each an actor pool.

Between stages a unit is ONE row whose `content` is its table as an Arrow stream. So Ray can neither split a unit nor
touch the types of its columns, and text that is not valid UTF-8 passes through.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import ray

from jobs.accounting import Scored
from jobs.columns import Layout
from jobs.errors import DeadlyError, StoppedError, StoreError
from jobs.replicas import Answered, Counts, Scorer
from jobs.reuse import NO_REUSE, LogitKeeper, Reuse
from jobs.score_store import table_of
from jobs.selection import EVERYTHING, Selection
from jobs.settings import RerankSettings
from jobs.storage import write_table
from jobs.units import Unit, read_rows

METADATA_KEY = b"crossray"
"""Key of a part's counts in its Parquet metadata."""

IN_FLIGHT = pa.schema(
    [("unit", pa.string()), ("content", pa.large_binary()), ("note", pa.string()), ("new_logits", pa.large_binary())]
)
"""A unit between stages. `note` is JSON: `seconds` by stage, `rows` as read; once it is scored `counts`, `scored` and
`reused`; `not_stored` where its new logits could not be kept. Without content, `error` says why its rows cannot be
read, `failure` why a stage failed, or `stop` why the job has to stop. `new_logits` are for a score store, if any."""


@dataclass(frozen=True, slots=True)
class UnitReport:
    """What the driver hears of a unit that came through the stages."""

    unit: Unit
    counts: Counts
    error: str | None
    """Why its rows cannot be read: the file is at fault."""
    failure: str | None
    """Why a stage failed although the rows were fine, such as a full disk."""
    stop: str | None
    """Why it would fail for all other units too."""
    seconds: dict[str, float]
    """By stage: see `jobs.accounting`."""
    scored: Scored | None
    """By which replica and when; None where it was not."""
    chunks_reused: int
    """Those that did not go through the model."""
    not_stored: str | None
    """Why its new logits are not in the score store."""


class ReadingStage:
    """The actors that read."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def __call__(self, batch: pa.Table) -> pa.Table:
        return read_unit(batch, self.selection)


class WritingStage:
    """The actors that write."""

    def __init__(self, output: str, fingerprint: str, reuse: Reuse = NO_REUSE) -> None:
        self.output = output
        self.fingerprint = fingerprint
        self.keeper = LogitKeeper(reuse.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return write_unit(batch, self.output, self.fingerprint, self.keeper)


def read_unit(batch: pa.Table, selection: Selection = EVERYTHING) -> pa.Table:
    """Rows of units whose content is not there yet -> the same with content."""
    return pa.concat_tables([_read_one(Unit(**json.loads(unit)), selection) for unit in batch["unit"].to_pylist()])


def _read_one(unit: Unit, selection: Selection) -> pa.Table:
    started = time.perf_counter()
    try:
        table = read_rows(unit, selection)
        content = to_stream(table)
    except (StoreError, StoppedError) as error:
        return in_flight(unit, None, {"stop": str(error)})
    except (pa.ArrowException, OSError, ValueError) as error:  # a damaged file costs its own rows, not the job
        return in_flight(unit, None, {"error": f"{type(error).__name__}: {error}"})
    return in_flight(unit, content, {"rows": table.num_rows, "seconds": {"read": time.perf_counter() - started}})


class ScoringStage:
    """The actor of the pool: a Scorer behind Ray Data's batches."""

    def __init__(
        self,
        settings: RerankSettings,
        layout: Layout,
        fingerprint: str,
        scorer_class: Callable[..., Scorer],
        reuse: Reuse = NO_REUSE,
    ) -> None:
        self.scorer = scorer_class(settings, layout, fingerprint)
        self.scorer.stored = reuse.stored_logits()
        self.replica = replica_id()
        self.keeps_logits = reuse.store is not None

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.concat_tables([self._score_one(row["unit"], row["content"], row["note"]) for row in rows_of(batch)])

    def _score_one(self, unit: Unit, content: pa.Buffer | None, note: dict[str, Any]) -> pa.Table:
        if content is None:
            return in_flight(unit, None, note)
        began, clock = time.time(), time.perf_counter()
        try:
            answered = self.scorer.score(from_stream(content))
        except StoppedError as error:
            return in_flight(unit, None, {"stop": str(error)})
        except DeadlyError:
            return IN_FLIGHT.empty_table()  # the driver will miss the unit and quarantine it; this process is fine
        except Exception:  # the replica is unfit (a broken or full GPU): better a new one than units failing one by one
            traceback.print_exc()
            os._exit(1)
        answer = to_stream(answered.table)
        new_logits = answered.spent.new_logits if self.keeps_logits else {}
        to_keep = to_stream(table_of(new_logits)) if new_logits else None
        took, spent = time.perf_counter() - clock, answered.spent.seconds
        seconds = note["seconds"] | spent | {"parse_and_rank": took - sum(spent.values())}
        scored = asdict(Scored(self.replica, began, began + took))
        note |= {"counts": answered.counts.as_dict(), "seconds": seconds, "scored": scored}
        return in_flight(unit, answer, note | {"reused": answered.spent.chunks_reused}, to_keep)

    # The quarantine talks to a replica directly, without Ray Data between.

    def ready(self) -> bool:
        """Answers once the model is loaded."""
        return True

    def score_stream(self, content: bytes) -> tuple[bytes, dict[str, Any]]:
        """Answered rows as an Arrow stream, and their counts."""
        answered = self.scorer.score(from_stream(pa.py_buffer(content)))
        return to_stream(answered.table).to_pybytes(), answered.counts.as_dict()


def replica_id() -> str:
    """This actor, which stays the same when Ray starts its process again; outside of actors this process."""
    actor: str | None = ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None
    return actor or f"process {os.getpid()}"


def write_unit(batch: pa.Table, output: str, fingerprint: str, keeper: LogitKeeper | None = None) -> pa.Table:
    """Writes the part of each unit, and before it its new logits, so that a death in between costs none of them.

    What goes on to the driver is a report, without content.
    """
    keeper = keeper or LogitKeeper(None)
    reports = [_write_one(output, fingerprint, keeper, **row) for row in rows_of(batch)]
    return pa.concat_tables([IN_FLIGHT.empty_table(), *reports])


def _write_one(
    output: str,
    fingerprint: str,
    keeper: LogitKeeper,
    unit: Unit,
    content: pa.Buffer | None,
    note: dict[str, Any],
    new_logits: pa.Buffer | None,
) -> pa.Table:
    if content is None:
        return in_flight(unit, None, note)
    started = time.perf_counter()
    if new_logits is not None:
        note["not_stored"] = keeper.keep(from_stream(new_logits))
    try:
        answered = Answered(from_stream(content), Counts.from_dict(note["counts"]))
        counts = write_part(output, fingerprint, unit, note["rows"], answered)
    except OSError as error:
        return in_flight(unit, None, {"failure": f"{type(error).__name__}: {error}"})
    note["seconds"]["write"] = time.perf_counter() - started
    return in_flight(unit, None, note | {"counts": counts.as_dict()})


def write_part(output: str, fingerprint: str, unit: Unit, rows: int, answered: Answered) -> Counts:
    """The output file of a unit, with its counts in the metadata; a second time it is the same file again.

    `rows` is how many the reader let through; returns the counts with those it left out.
    Raises StoppedError when the answer does not have exactly these rows: nothing may be lost silently.
    """
    table = answered.table
    if not table.num_rows == answered.counts.rows == rows:
        raise StoppedError(
            f"{unit} came back with {table.num_rows} rows, counted {answered.counts.rows}, of {rows}: "
            "please report this bug"
        )
    counts = replace(answered.counts, rows_left_out=unit.rows - rows)
    summary = json.dumps({**counts.as_dict(), "fingerprint": fingerprint, "unit": asdict(unit)}, sort_keys=True)
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: summary.encode()}
    write_table(os.path.join(output, unit.name), table.replace_schema_metadata(metadata))
    return counts


def in_flight(
    unit: Unit, content: pa.Buffer | None, note: Mapping[str, Any], new_logits: pa.Buffer | None = None
) -> pa.Table:
    """One row of IN_FLIGHT; content and logits are not copied."""
    columns = [pa.array([json.dumps(asdict(unit))]), cell(content), pa.array([json.dumps(note)]), cell(new_logits)]
    return pa.table(columns, schema=IN_FLIGHT)


def cell(content: pa.Buffer | None) -> pa.Array:
    """A column of one row."""
    if content is None:
        return pa.nulls(1, pa.large_binary())
    offsets = pa.array([0, content.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content])


def rows_of(batch: pa.Table) -> Iterator[dict[str, Any]]:
    """What `in_flight` took, by its names, for each row; nothing is copied."""
    for i in range(batch.num_rows):
        content, new_logits = batch["content"][i], batch["new_logits"][i]
        yield {
            "unit": Unit(**json.loads(batch["unit"][i].as_py())),
            "content": content.as_buffer() if content.is_valid else None,
            "note": json.loads(batch["note"][i].as_py()),
            "new_logits": new_logits.as_buffer() if new_logits.is_valid else None,
        }


def reports_of(batches: Iterable[pa.Table]) -> Iterator[UnitReport]:
    """What the last stage tells the driver."""
    for batch in batches:
        for row in rows_of(batch):
            note = row["note"]
            counts = Counts.from_dict(note["counts"]) if "counts" in note else Counts()
            error, failure, stop = (note.get(name) for name in ("error", "failure", "stop"))
            scored = Scored(**note["scored"]) if "scored" in note else None
            yield UnitReport(
                row["unit"],
                counts,
                error,
                failure,
                stop,
                note.get("seconds", {}),
                scored,
                note.get("reused", 0),
                note.get("not_stored"),
            )


def to_stream(table: pa.Table) -> pa.Buffer:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_stream(content: pa.Buffer) -> pa.Table:
    """The inverse of `to_stream`, without copying."""
    return pa.ipc.open_stream(content).read_all()
