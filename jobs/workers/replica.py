"""The actor that does a job's work: it loads the model once, and brings units to their parts.

Ray sees the name of a unit on its way in and a report on its way out, and never a row. So it can neither split a unit
nor touch the types of its columns, and only units that replicas work on are in memory.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from typing import Any

import pyarrow as pa
import ray

from jobs.errors import DeadlyError, StoppedError, StoreError, UnreadableFileError, UnwritablePartError
from jobs.input.row_groups import RowGroups
from jobs.output.parts import write_part
from jobs.records import Scored, Unit, UnitReport
from jobs.runtime.machine import peak_gpu_memory, peak_memory
from jobs.score_store.keeper import LogitKeeper
from jobs.scoring.answering import Answered, answer
from jobs.scoring.scorer import Effort
from jobs.table.streams import from_stream, to_stream
from jobs.workers.assignment import Assignment
from jobs.workers.wire import to_batch
from pipelines.records import CandidateList

ROW_GROUPS_KEPT = 2
"""Walks through row groups that a replica keeps. Units side by side share one, or two where one row group ends."""

HARMLESS = CandidateList("What is the capital of France?", ["Paris is the capital of France."])


class Replica:
    """Reads, scores and writes units.

    Several threads call it: while the model computes for one unit, others are read, tokenized, ranked and written.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.groups = RowGroups(ROW_GROUPS_KEPT)
        self.scorer = assignment.scorer()
        self.keeper = LogitKeeper(assignment.reuse.store)
        self.name = replica_id()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Brings a batch of units to their parts, and returns the reports that `bring_to_part` gives."""
        reports = [self.bring_to_part(Unit(**json.loads(unit))) for unit in batch["unit"].to_pylist()]
        return to_batch([report for report in reports if report is not None])

    def bring_to_part(self, unit: Unit) -> UnitReport | None:
        """Reads, scores and writes one unit, and returns its report.

        It returns None for a unit that kills the replicas of an app, or that does not fit into memory beside others.
        The driver sees that such a unit has no part, and scores it alone.
        """
        try:
            return self._bring_to_part(unit)
        except MemoryError:
            return None

    def _bring_to_part(self, unit: Unit) -> UnitReport | None:
        clock = time.perf_counter()
        try:
            table = self.assignment.read(unit, self.groups)
        except (StoreError, StoppedError) as error:
            return UnitReport(unit, stop=str(error))
        except UnreadableFileError as error:  # a damaged file costs its own rows, not the job
            return UnitReport(unit, error=error.why)
        return self._score_and_write(unit, table, time.perf_counter() - clock)

    def _score_and_write(self, unit: Unit, table: pa.Table, read_seconds: float) -> UnitReport | None:
        """Scores a unit's rows and writes its part; new logits before it, so that a death in between loses none."""
        began, clock = time.time(), time.perf_counter()
        try:
            answered = self.answer(table)
        except StoppedError as error:
            return UnitReport(unit, stop=str(error))
        except DeadlyError:
            return None  # this process is fine
        except Exception:  # the replica is unfit (a broken or full GPU): better a new one than units failing one by one
            traceback.print_exc()
            os._exit(1)
        answer_seconds = time.perf_counter() - clock
        try:
            not_stored = self.keeper.keep(answered.spent.new_logits)
            output, fingerprint = self.assignment.settings.output, self.assignment.fingerprint
            counts = write_part(output, fingerprint, unit, table.num_rows, answered.table, answered.counts)
        except StoppedError as error:
            return UnitReport(unit, stop=str(error))
        except UnwritablePartError as error:
            return UnitReport(unit, error=str(error))
        except OSError as error:
            return UnitReport(unit, failure=f"{type(error).__name__}: {error}")
        write_seconds = time.perf_counter() - clock - answer_seconds
        return UnitReport(
            unit,
            counts,
            seconds=seconds_by_stage(read_seconds, answer_seconds, write_seconds, answered.spent),
            scored=Scored(self.name, began, began + answer_seconds, peak_memory(), peak_gpu_memory()),
            chunks_reused=answered.spent.chunks_reused,
            not_stored=not_stored,
        )

    def answer(self, table: pa.Table) -> Answered:
        """The rows with their answers; raises what means that this replica is unfit."""
        settings = self.assignment.settings
        return answer(
            table, self.scorer, self.assignment.layout, settings.mapping, settings.top_n, settings.score_threshold
        )

    def score_known_pair(self) -> None:
        """Scores a pair that harms nobody. The quarantine asks for it, to tell a broken machine from a deadly row.

        Raises StoppedError when the pair gets no score.
        """
        [ranking] = self.scorer.rerank_lists([HARMLESS], Effort())
        if ranking.error is not None:
            raise StoppedError(f"a pair that is known to be harmless has no score: {ranking.error}")

    def score_stream(self, content: bytes) -> tuple[bytes, dict[str, Any]]:
        """Scores the rows of an Arrow stream; returns the answered rows as another stream, and their counts.

        The quarantine calls it.
        """
        answered = self.answer(from_stream(pa.py_buffer(content)))
        return to_stream(answered.table).to_pybytes(), answered.counts.as_dict()


def seconds_by_stage(read: float, answer: float, write: float, spent: Effort) -> dict[str, float]:
    """Where the time of a unit went, as `jobs.output.accounting` names the stages.

    Of answering, what neither the tokenizer nor the model took is parsing and ranking; waiting for the model is none.
    """
    parse_and_rank = answer - spent.tokenize - spent.forward - spent.waited
    return {
        "read": read,
        "tokenize": spent.tokenize,
        "forward": spent.forward,
        "parse_and_rank": parse_and_rank,
        "write": write,
    }


def replica_id() -> str:
    """A name for this actor, the same when Ray starts its process again; outside of actors one for this process."""
    actor: str | None = ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None
    return actor or f"process {os.getpid()}"
