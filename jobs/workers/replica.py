"""The actor of a job's pool: one loaded model that takes units, and brings them to their parts.

Ray sees the name of a unit on its way in and a report on its way out, and never a row. So it can neither split a unit
nor touch the types of its columns, and what is in memory at once is what the replicas have in work.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import ray

from jobs.errors import DeadlyError, StoppedError, StoreError, UnreadableFileError
from jobs.input.row_groups import RowGroups
from jobs.input.selection import EVERYTHING, Selection
from jobs.joins.corpus.attaching import TextsById, read_with_texts
from jobs.output.parts import write_part
from jobs.records import Scored, Unit, UnitReport
from jobs.score_store.keeper import LogitKeeper
from jobs.scoring.scorer import Scorer
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from jobs.table.streams import from_stream, to_stream
from jobs.workers.known_scores import NO_REUSE, Reuse
from jobs.workers.wire import to_batch

ROW_GROUPS_KEPT = 2
"""Those of units side by side when the first has passed into the next row group; or one, and what `--where` asks."""


class Replica:
    """Reads, scores and writes units.

    Threads may call it: while the model computes for one unit, others are read, tokenized, ranked and written.
    """

    def __init__(
        self,
        settings: RerankSettings,
        layout: Layout,
        fingerprint: str,
        scorer_class: Callable[..., Scorer],
        selection: Selection = EVERYTHING,
        texts: TextsById | None = None,
        reuse: Reuse = NO_REUSE,
    ) -> None:
        self.output = settings.output
        self.fingerprint = fingerprint
        self.selection = selection
        self.texts = texts
        self.groups = RowGroups(ROW_GROUPS_KEPT)
        self.scorer = scorer_class(settings, layout, fingerprint)
        self.scorer.stored = reuse.stored_logits()
        self.keeper = LogitKeeper(reuse.store)
        self.name = replica_id()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of units -> their reports; a unit that kills the replicas of an app is left out, for the quarantine."""
        reports = [self.bring_to_part(Unit(**json.loads(unit))) for unit in batch["unit"].to_pylist()]
        return to_batch([report for report in reports if report is not None])

    def bring_to_part(self, unit: Unit) -> UnitReport | None:
        """Reads, scores and writes one unit. New logits come before the part, so that a death in between costs none."""
        clock = time.perf_counter()
        try:
            table = read_with_texts(unit, self.selection, self.texts, self.groups)
        except (StoreError, StoppedError) as error:
            return UnitReport(unit, stop=str(error))
        except UnreadableFileError as error:  # a damaged file costs its own rows, not the job
            return UnitReport(unit, error=error.why)
        began, read_at = time.time(), time.perf_counter()
        try:
            answered = self.scorer.score(table)
        except StoppedError as error:
            return UnitReport(unit, stop=str(error))
        except DeadlyError:
            return None  # the driver will miss the unit and quarantine it; this process is fine
        except Exception:  # the replica is unfit (a broken or full GPU): better a new one than units failing one by one
            traceback.print_exc()
            os._exit(1)
        scored_at = time.perf_counter()
        try:
            not_stored = self.keeper.keep(answered.spent.new_logits)
            counts = write_part(self.output, self.fingerprint, unit, table.num_rows, answered.table, answered.counts)
        except StoppedError as error:
            return UnitReport(unit, stop=str(error))
        except OSError as error:
            return UnitReport(unit, failure=f"{type(error).__name__}: {error}")
        spent = answered.spent
        seconds = {
            "read": read_at - clock,
            "tokenize": spent.tokenize,
            "forward": spent.forward,
            "parse_and_rank": scored_at - read_at - spent.tokenize - spent.forward - spent.waited,
            "write": time.perf_counter() - scored_at,
        }
        return UnitReport(
            unit,
            counts,
            seconds=seconds,
            scored=Scored(self.name, began, began + scored_at - read_at),
            chunks_reused=spent.chunks_reused,
            not_stored=not_stored,
        )

    def score_stream(self, content: bytes) -> tuple[bytes, dict[str, Any]]:
        """Answered rows as an Arrow stream, and their counts: what the quarantine asks, without Ray Data between."""
        answered = self.scorer.score(from_stream(pa.py_buffer(content)))
        return to_stream(answered.table).to_pybytes(), answered.counts.as_dict()


def replica_id() -> str:
    """This actor, which stays the same when Ray starts its process again; outside of actors this process."""
    actor: str | None = ray.get_runtime_context().get_actor_id() if ray.is_initialized() else None
    return actor or f"process {os.getpid()}"
