"""Ray for a job: the session, the size of the actor pool, and the units on their way through three stages.

Scheduling, back-pressure, spilling, retries and nodes are Ray Data's; the wiring below is what it needs for that.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import ceil
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from rich.console import Console

from jobs.app_scorer import running_replicas
from jobs.columns import Layout
from jobs.errors import StoppedError
from jobs.replicas import Scorer
from jobs.reuse import OpenReuse, Reuse, no_reuse
from jobs.selection import Selection
from jobs.settings import RerankSettings
from jobs.stages import ReadingStage, ScoringStage, UnitReport, WritingStage, reports_of
from jobs.units import Unit
from pipelines.errors import ConfigError

RETRIES_OF_A_UNIT = 2
"""Further processes that a unit may try when the one it is in dies; after that the quarantine looks at it alone."""
REPLICAS_PER_READER = 4
"""And per writer."""
UNITS_PER_APP_ACTOR = 4
"""Scored at once by an actor that only prepares units for an app: one is tokenized while others wait for logits."""


@contextmanager
def ray_session(address: str | None, console: Console) -> Iterator[None]:
    """The cluster at `address`, or a private Ray on this machine; one that already runs in this process is used."""
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    if address is None:
        console.print("starting a private Ray on this machine ...")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side warns of what Ray Data does on purpose
    where: dict[str, Any] = (
        {"address": "local", "include_dashboard": False} if address is None else {"address": address}
    )
    try:
        ray.init(**where, logging_level=logging.ERROR, log_to_driver=False)
    except SystemExit as error:  # its own handler of SIGTERM, which it installs on the way
        if error.code == signal.SIGTERM and callable(handler):
            handler(signal.SIGTERM, None)
        raise
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray.init takes it for itself
        yield
    finally:
        ray.shutdown()


def scoring_pool(settings: RerankSettings, units: int) -> ActorPoolStrategy:
    """The actors that score, or those that keep an app busy: one more than it has replicas now.

    With several calls under way from each, as many tokens wait as make an autoscaling app grow.
    """
    if settings.app is None:
        fewest, most = pool_bounds(settings, units)
        return ActorPoolStrategy(min_size=fewest, max_size=most)
    return ActorPoolStrategy(
        size=min(running_replicas(settings.app) + 1, units),
        max_concurrent_calls_per_actor=UNITS_PER_APP_ACTOR,
        enable_true_multi_threading=True,
    )


def pool_bounds(settings: RerankSettings, units: int) -> tuple[int, int]:
    """Fewest and most replicas: as asked for, else what the cluster has room for now; never more than there are units.

    Raises ConfigError when a replica asks for more than any node has and nothing can be added.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    room = sum(room_on(node, settings) for node in nodes)
    if room < 1 and (settings.replicas is None or settings.address is None):
        largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)))
        raise ConfigError(
            f"a replica asks for {settings.num_cpus} CPUs and {settings.num_gpus:g} GPUs, the largest node has "
            f"{largest.get('CPU', 0):g} and {largest.get('GPU', 0):g}; lower --num-cpus or --num-gpus, or give "
            "--address and --replicas to wait for nodes that an autoscaler adds"
        )
    fewest, most = settings.replicas or (room, room)
    return min(fewest, units), min(most, units)


def room_on(node: Mapping[str, float], settings: RerankSettings) -> int:
    """How many replicas a node with these resources holds."""
    by_cpu = int(node.get("CPU", 0) // settings.num_cpus)
    return min(by_cpu, int(node.get("GPU", 0) / settings.num_gpus)) if settings.num_gpus else by_cpu


def score_units(
    units: Sequence[Unit],
    selection: Selection,
    settings: RerankSettings,
    layout: Layout,
    fingerprint: str,
    scorer_class: Callable[..., Scorer],
    known: OpenReuse = no_reuse,
) -> Iterator[UnitReport]:
    """A report per unit as soon as its part is written (or its reading failed), in any order.

    Units that fail otherwise (their replicas died, the disk was full) are left out: the caller sees no part.
    """
    pool = scoring_pool(settings, len(units))
    with DataContext.current(job_context()), warnings.catch_warnings():
        # max_task_retries has no other way in yet; and warnings about too little work are no news to a small job.
        warnings.simplefilter("ignore")
        source = ray.data.from_items([{"unit": as_json(unit)} for unit in units], override_num_blocks=len(units))
        dataset = through_stages(source, pool, selection, settings, layout, fingerprint, scorer_class, known())
        yield from reports_of(batches_of(dataset))


def batches_of(dataset: Dataset) -> Iterator[pa.Table]:
    """What comes out of the last stage, as it comes; raises StoppedError when Ray gives up."""
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except (RayError, RuntimeError) as error:  # no replica could start, the cluster went away
        raise StoppedError(f"Ray gave up: {error}") from error


def as_json(unit: Unit) -> str:
    """A unit as it goes into the first stage."""
    return json.dumps(asdict(unit))


def through_stages(
    source: Dataset,
    pool: ActorPoolStrategy,
    selection: Selection,
    settings: RerankSettings,
    layout: Layout,
    fingerprint: str,
    scorer_class: Callable[..., Scorer],
    reuse: Reuse,
) -> Dataset:
    """Rows of units -> their reports; nothing runs yet."""
    helpers = ActorPoolStrategy(size=ceil(pool.max_size / REPLICAS_PER_READER))
    return (
        source
        # Readers and writers take no CPU: with the replicas on all of them they would wait for the last score.
        # They are actors and not tasks: Ray ends a node's idle task workers after a second, and starting them
        # again and again took 0.6 of 2 cores. Their number bounds memory: without it all is read at once.
        .map_batches(
            ReadingStage,
            fn_constructor_args=(selection,),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=helpers,
            max_task_retries=RETRIES_OF_A_UNIT,
        )
        .map_batches(
            ScoringStage,
            fn_constructor_args=(settings, layout, fingerprint, scorer_class, reuse),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=settings.stage_cpus,
            num_gpus=settings.num_gpus or None,
            compute=pool,
            max_task_retries=RETRIES_OF_A_UNIT,
        )
        .map_batches(
            WritingStage,
            fn_constructor_args=(settings.output, fingerprint, reuse),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=0,
            compute=helpers,
            max_task_retries=RETRIES_OF_A_UNIT,
        )
    )


def job_context() -> DataContext:
    """Ray Data's settings for a job, in a copy: whole units, nothing fatal about a lost one, our own progress bar."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = None  # one unit is one block, of any size
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a lost unit is ours to report
    return context
