"""Ray for a job: the session, the pool of replicas, and the units on their way through it.

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
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import psutil
import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from rich.console import Console

from jobs.app_scorer import running_replicas
from jobs.attaching import TextsById
from jobs.errors import StoppedError
from jobs.input.selection import Selection
from jobs.records import Unit, UnitReport
from jobs.replica import Replica
from jobs.reports import reports_of
from jobs.reuse import OpenReuse, Reuse, no_reuse
from jobs.scorer import Scorer
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from pipelines.errors import ConfigError

RETRIES_OF_A_UNIT = 2
"""Further processes that a unit may try when the one it is in dies; after that the quarantine looks at it alone."""
UNITS_IN_REPLICA = 2
"""While the model computes for one, the other is read, tokenized, ranked or written."""
UNITS_IN_FAST_REPLICA = 4
"""With a GPU, which scores a unit in less time than an object store takes to give it or to take its part; and in an
actor that only prepares units for an app."""

ENVIRONMENT_OF_PRIVATE_RAY = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side warns of what Ray Data does on purpose
    # glibc gives the kernel back what a thread frees and takes it again page by page. A replica's activations come and
    # go in a thread: with its memory kept it was 1.5% faster.
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
}
"""Where the user sets nothing else."""


@contextmanager
def ray_session(address: str | None, console: Console) -> Iterator[None]:
    """The cluster at `address`, or a private Ray on this machine; one that already runs in this process is used."""
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    if address is None:
        console.print("starting a private Ray on this machine ...")
        for name, value in ENVIRONMENT_OF_PRIVATE_RAY.items():
            os.environ.setdefault(name, value)
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
        if address is None:
            kill_autoscaler_monitor()
        ray.shutdown()


def kill_autoscaler_monitor() -> None:
    """Ends a process of a private Ray that has nothing to do there, and that `ray.shutdown` would wait a second for.

    It ends the GCS first, and then asks the monitor, which does not answer without it.
    """
    with suppress(psutil.Error):
        for child in psutil.Process().children():
            if any(argument.endswith("autoscaler/_private/monitor.py") for argument in child.cmdline()):
                child.kill()


def replica_pool(settings: RerankSettings, units: int) -> ActorPoolStrategy:
    """The replicas, or the actors that keep an app busy: one more than it has replicas now.

    With several units under way in each of these, as many tokens wait as make an autoscaling app grow.
    """
    if settings.app is None:
        fewest, most = pool_bounds(settings, units)
    else:
        fewest = most = min(running_replicas(settings.app) + 1, units)
    at_once = units_at_once(settings)
    return ActorPoolStrategy(
        min_size=fewest,
        max_size=most,
        max_concurrent_calls_per_actor=at_once,
        enable_true_multi_threading=True,
        max_tasks_in_flight_per_actor=at_once,  # none queued besides: those would be lost with its process too
    )


def units_at_once(settings: RerankSettings) -> int:
    """In one actor."""
    return UNITS_IN_FAST_REPLICA if settings.num_gpus or settings.app is not None else UNITS_IN_REPLICA


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
    texts: TextsById | None,
    settings: RerankSettings,
    layout: Layout,
    fingerprint: str,
    scorer_class: Callable[..., Scorer],
    known: OpenReuse = no_reuse,
) -> Iterator[UnitReport]:
    """A report per unit as soon as its part is written (or its reading failed), in any order.

    Units that fail otherwise (their replicas died, the disk was full) are left out: the caller sees no part.
    """
    pool = replica_pool(settings, len(units))
    with DataContext.current(job_context()), warnings.catch_warnings():
        # max_task_retries has no other way in yet; and warnings about too little work are no news to a small job.
        warnings.simplefilter("ignore")
        source = ray.data.from_items([{"unit": as_json(unit)} for unit in units], override_num_blocks=len(units))
        dataset = through_pool(source, pool, selection, texts, settings, layout, fingerprint, scorer_class, known())
        yield from reports_of(batches_of(dataset))


def batches_of(dataset: Dataset) -> Iterator[pa.Table]:
    """What comes out at the end, as it comes; raises StoppedError when Ray gives up."""
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except (RayError, RuntimeError) as error:  # no replica could start, the cluster went away
        raise StoppedError(f"Ray gave up: {error}") from error


def as_json(unit: Unit) -> str:
    """A unit as it goes into the pool."""
    return json.dumps(asdict(unit))


def through_pool(
    source: Dataset,
    pool: ActorPoolStrategy,
    selection: Selection,
    texts: TextsById | None,
    settings: RerankSettings,
    layout: Layout,
    fingerprint: str,
    scorer_class: Callable[..., Scorer],
    reuse: Reuse,
) -> Dataset:
    """Rows of units -> their reports; nothing runs yet."""
    return source.map_batches(
        Replica,
        fn_constructor_args=(settings, layout, fingerprint, scorer_class, selection, texts, reuse),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=settings.replica_cpus,
        num_gpus=settings.num_gpus or None,
        compute=pool,
        max_task_retries=RETRIES_OF_A_UNIT,
    )


def job_context() -> DataContext:
    """Ray Data's settings for a job, in a copy: whole units, nothing fatal about a lost one, our own progress bar."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = None  # one unit is one block, of any size
    context.max_errored_blocks = -1
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # a pool grows when all its replicas are full
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a lost unit is ours to report
    return context
