"""Finds the rows that kill replicas: scores a unit alone, and halves it while its replica dies, down to single rows.

A row is blamed only when three replicas, one after the other, died with nothing but this row in them, each of which had
just scored a pair that is known to be harmless, and when the next one scores that pair too. So deaths from outside (a
node, a kill, the kernel's out-of-memory killer) only cost time, and a machine on which every pair kills stops the job.
"""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import OutOfMemoryError, RayError

from jobs.errors import StoppedError, StoreError, UnreadableFileError
from jobs.joins.corpus.attaching import read_with_texts
from jobs.records import Counts, Unit
from jobs.scoring.answering import Answered, without_answers
from jobs.table.reasons import Reason
from jobs.table.streams import from_stream, to_stream
from jobs.workers.assignment import Assignment
from jobs.workers.replica import Replica

DEATHS_TO_BLAME = 3
FRUITLESS_STARTS = 10
"""Replicas in a row that died before they were of any use; then the cluster and not the data is at fault."""
PAUSE_SECONDS = 1.0


def read_apart(unit: Unit, assignment: Assignment) -> pa.Table | str:
    """The unit's rows with their texts, or why they cannot be read.

    A process apart reads them, since reading may be what kills. Raises StoppedError where there is too little memory.
    """
    reading = ray.remote(num_cpus=0, max_retries=DEATHS_TO_BLAME - 1)(read_with_texts)
    try:
        return ray.get(reading.remote(unit, assignment.selection, assignment.texts))
    except RayError as error:
        cause = cause_of(error)
        if isinstance(cause, MemoryError | OutOfMemoryError):
            raise StoppedError(
                f"there is too little memory to read {unit.path}, rows from {unit.start}: {cause}"
            ) from None
        return cause.why if isinstance(cause, UnreadableFileError) else f"{type(cause).__name__}: {cause}"


def mortal_replica(assignment: Assignment) -> Any:
    """Starts a replica that Ray does not start again when it dies, so that its death is seen here."""
    settings = assignment.settings
    mortal = ray.remote(Replica).options(
        num_cpus=settings.replica_cpus, num_gpus=settings.num_gpus, max_restarts=0, max_task_retries=0
    )
    return mortal.remote(assignment)


def cause_of(error: RayError) -> BaseException:
    """What the other process raised, or `error` itself where that process died.

    A StoppedError or StoreError of the other process is raised: it stops the job.
    """
    cause: BaseException = getattr(error, "cause", error)
    if isinstance(cause, StoppedError | StoreError):
        raise cause from None
    return cause


class Quarantine:
    """Scores suspicious rows in a replica that has nothing else to do, and takes a new replica when that one dies."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.replica: Any = None
        self.last_failure = ""

    def score(self, table: pa.Table) -> Answered:
        """The answered rows of a unit, with an error for each row that kills its replica."""
        answered = self._attempt(table)
        if answered is not None:
            return answered
        if table.num_rows > 1:
            middle = table.num_rows // 2
            first, second = self.score(table.slice(0, middle)), self.score(table.slice(middle))
            return Answered(pa.concat_tables([first.table, second.table]), first.counts + second.counts)
        for _ in range(DEATHS_TO_BLAME - 1):
            time.sleep(PAUSE_SECONDS)
            answered = self._attempt(table)
            if answered is not None:
                return answered
        self._healthy_replica()  # else it was the machine that broke meanwhile
        return self._blamed(table)

    def close(self) -> None:
        """Ends the replica."""
        if self.replica is not None:
            ray.kill(self.replica)
            self.replica = None

    def _attempt(self, table: pa.Table) -> Answered | None:
        """The answered rows, or None when the replica died or failed while it had these rows."""
        replica = self._healthy_replica()
        try:
            content, counts = ray.get(replica.score_stream.remote(to_stream(table).to_pybytes()))
        except RayError as error:
            cause = cause_of(error)
            self.last_failure = type(cause).__name__
            self.close()
            return None
        return Answered(from_stream(pa.py_buffer(content)), Counts.from_dict(counts))

    def _healthy_replica(self) -> Any:
        """A replica that has just scored a pair that is known to be harmless; raises StoppedError when none can."""
        for _ in range(FRUITLESS_STARTS):
            if self.replica is None:
                self.replica = mortal_replica(self.assignment)
            try:
                ray.get(self.replica.score_known_pair.remote())
                return self.replica
            except RayError as error:
                self.last_failure = str(cause_of(error))
                self.close()
                time.sleep(PAUSE_SECONDS)
        raise StoppedError(
            f"{FRUITLESS_STARTS} replicas in a row could not score a pair that is known to be harmless, so no row is "
            f"at fault: {self.last_failure}"
        )

    def _blamed(self, table: pa.Table) -> Answered:
        message = (
            f"{Reason.KILLED_REPLICA}: scoring this row alone ended its replica {DEATHS_TO_BLAME} times "
            f"({self.last_failure})"
        )
        return without_answers(table, message, self.assignment.layout, self.assignment.settings.mapping)
