"""A pool for a follower: replicas that stay loaded from one round to the next, on one Ray Data run without an end.

Ray Data's source is an actor that is asked for the next unit and answers when there is one. So units that come later go
through the same pool as those of a job, and a source that ends lets what is in work come to its end.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext
from ray.data.block import Block, BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.exceptions import RayError
from rich.console import Console

from jobs.errors import StoppedError
from jobs.records import Unit, UnitReport
from jobs.runtime.datasets import batches_of, job_context
from jobs.runtime.session import ray_session
from jobs.runtime.signals import LOOK_SECONDS, InterruptedBySignal, StopRequest
from jobs.workers.assignment import Assignment
from jobs.workers.known_scores import OpenReuse, Reuse
from jobs.workers.pool import replica_pool, through_pool, units_at_once
from jobs.workers.wire import as_json, reports_of
from pipelines.own_packages import hint_for

ANY_NUMBER = 1 << 31
UNITS_SENT_PER_UNIT_IN_WORK = 2
"""Units sent for each one that a replica can work on at once: few, since a stop waits for those that are sent."""
UNITS_PER_RUN = 20_000
"""After so many units the next round has a new run: Ray keeps something about each unit until its run ends."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a pool waits for its replicas, in seconds."""

    stalled_seconds: float = 60.0
    """After so long without a report a run is ended, to see which units are lost.

    A run that was only slow begins again.
    """
    loading_seconds: float = 600.0
    """The same before the first report of a run: a large model may come from far away."""
    grace_seconds: float = 20.0
    """How long a stop waits for units that replicas work on; Kubernetes kills after 30 s."""


USUAL_PATIENCE = Patience()


class Feed:
    """The actor that holds the units of a run, in order. It keeps them all: a source that died asks again for each."""

    def __init__(self) -> None:
        self.units: list[str] = []
        self.is_closed = False
        self.changed = asyncio.Event()

    async def put(self, units: Sequence[str]) -> None:
        self.units += units
        self._wake()

    async def close(self) -> None:
        self.is_closed = True
        self._wake()

    async def get(self, index: int) -> str | None:
        """The unit at this place, as soon as there is one; None when no more will come."""
        while index >= len(self.units):
            if self.is_closed:
                return None
            await self.changed.wait()
        return self.units[index]

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FedSource(Datasource):
    """One read task that yields a block per unit, until its feed is closed."""

    def __init__(self, feed: Any) -> None:
        self.feed = feed

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        feed = self.feed

        def read() -> Iterator[Block]:
            index = 0
            while (unit := ray.get(feed.get.remote(index))) is not None:
                yield pa.table({"unit": [unit]})
                index += 1

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


class Run:
    """One run of Ray Data, whose reports a thread collects."""

    def __init__(self, assignment: Assignment, reuse: Reuse) -> None:
        self.assignment = assignment
        self.reports: queue.Queue[UnitReport | None] = queue.Queue()
        """None at the end."""
        self.failure: str | None = None
        self.sent = 0
        self.has_answered = False
        pool = replica_pool(assignment.settings, ANY_NUMBER)
        self.window = UNITS_SENT_PER_UNIT_IN_WORK * int(pool.max_size) * units_at_once(assignment.settings)
        context = job_context()
        context.target_max_block_size = 1  # a block per row: with None the source's only block would wait for its end
        self.feed: Any = ray.remote(Feed).options(num_cpus=0).remote()
        with DataContext.current(context), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in `jobs.workers.pool.score_units`
            source = ray.data.read_datasource(
                FedSource(self.feed), override_num_blocks=1, ray_remote_args={"num_cpus": 0}
            )
            dataset = through_pool(source, pool, replace(assignment, reuse=reuse))
        self.thread = threading.Thread(target=self._collect, args=(dataset,), name="reports", daemon=True)
        self.thread.start()

    def _collect(self, dataset: ray.data.Dataset) -> None:
        try:
            for report in reports_of(batches_of(dataset)):
                self.reports.put(report)
        except StoppedError as error:
            self.failure = str(error)
        finally:
            self.reports.put(None)

    def send(self, units: Sequence[Unit]) -> None:
        self.sent += len(units)
        ray.get(self.feed.put.remote([as_json(unit) for unit in units]))

    def close(self) -> None:
        """Sends no more units: those that are on their way are finished, then the replicas end."""
        with suppress(RayError):
            ray.get(self.feed.close.remote())


class WarmPool:
    """Scores round after round as `jobs.workers.pool.score_units` scores once, on a Ray that it starts and ends."""

    def __init__(
        self, stop: StopRequest, address: str | None, console: Console, patience: Patience = USUAL_PATIENCE
    ) -> None:
        self.stop = stop
        self.address = address
        self.console = console
        self.patience = patience
        self.session = ExitStack()
        self.run: Run | None = None

    def __enter__(self) -> WarmPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.session.close()

    def start(self) -> None:
        """Starts Ray where none runs yet: the first time, and after a failure. That takes seconds."""
        if self.run is None:
            self.session.close()
            self.session.enter_context(ray_session(self.address, self.console))

    def score(self, units: Sequence[Unit], assignment: Assignment, open_reuse: OpenReuse) -> Iterator[UnitReport]:
        """Scores units, and yields reports as `score_units` does.

        After a signal no unit is begun, and those that are have `grace_seconds` to end. Raises InterruptedBySignal
        when units are left then, StoppedError when Ray gives up.
        """
        waiting = deque(units)
        try:
            while waiting:
                if self.stop.number is not None:
                    raise InterruptedBySignal(self.stop.number)
                if self.run is None or self.run.assignment != assignment:
                    self.close()
                    self.run = Run(assignment, open_reuse())
                yield from self._score_in(self.run, waiting)
        except RayError as error:  # the feed is gone
            self.close(wait=False)
            raise StoppedError(f"Ray gave up: {error}{hint_for(str(error))}") from error
        except BaseException:  # a GeneratorExit too: of what is under way no later round may hear
            self.close(wait=False)
            raise
        if self.run is not None and self.run.sent > UNITS_PER_RUN:
            self.close()

    def _score_in(self, run: Run, waiting: deque[Unit]) -> Iterator[UnitReport]:
        """Sends units and yields their reports until all have come, or until the run has ended without some of them.

        In the latter case those that were sent are lost, and others may still wait to be sent.
        """
        begun: set[Unit] = set()
        news = time.monotonic()
        stopped: float | None = None
        is_closed = False
        while waiting or begun:
            now = time.monotonic()
            if self.stop.number is not None:
                stopped = stopped or now
                if now - stopped > self.patience.grace_seconds:
                    raise InterruptedBySignal(self.stop.number)
            longest = self.patience.stalled_seconds if run.has_answered else self.patience.loading_seconds
            if not is_closed and (stopped or now - news > longest):
                run.close()
                is_closed = True
            elif not is_closed and (room := run.window - len(begun)) > 0 and waiting:
                units = [waiting.popleft() for _ in range(min(room, len(waiting)))]
                run.send(units)
                begun.update(units)
            try:
                report = run.reports.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if report is None:
                break
            news, run.has_answered = time.monotonic(), True
            begun.discard(report.unit)
            yield report
        else:
            self.run = None if is_closed else run
            return
        self.run = None
        if self.stop.number is not None:
            raise InterruptedBySignal(self.stop.number)
        if run.failure is not None or not is_closed:
            raise StoppedError(run.failure or "Ray gave up: the run ended before its time")

    def close(self, *, wait: bool = True) -> None:
        """Ends the run, if there is one; its replicas end when the units that they work on are done."""
        if self.run is None:
            return
        run, self.run = self.run, None
        run.close()
        if wait:
            run.thread.join(self.patience.grace_seconds)
