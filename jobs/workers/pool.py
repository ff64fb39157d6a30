"""A job's pool of replicas, and the units on their way through it.

Ray Data gives the units to replicas, on all nodes, and gives those of a dead replica to another one. This file tells it
which replicas there are, and how many units each has at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset

from jobs.records import Unit, UnitReport
from jobs.runtime.datasets import RETRIES_OF_A_UNIT, batches_of, job_context
from jobs.runtime.nodes import resources_of_nodes
from jobs.scoring.app_scorer import running_replicas
from jobs.settings import RerankSettings
from jobs.workers.assignment import Assignment
from jobs.workers.known_scores import OpenReuse, no_reuse
from jobs.workers.replica import Replica
from jobs.workers.wire import as_json, reports_of
from pipelines.errors import ConfigError

UNITS_IN_REPLICA = 2
"""Units that a replica works on at once: while its model computes for one, the other is read, ranked or written."""
UNITS_IN_FAST_REPLICA = 4
"""The same with a GPU, which scores a unit faster than an object store gives it or takes its part, and in an actor that
only prepares units for an app."""


def replica_pool(settings: RerankSettings, units: int) -> ActorPoolStrategy:
    """How many actors a job has, and how many units each of them works on at once.

    With an app, actors score nothing themselves: one more than the app has replicas keeps it busy, and lets as many
    tokens wait as make an autoscaling app grow.
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
    """How many units one actor works on at once."""
    return UNITS_IN_FAST_REPLICA if settings.num_gpus or settings.app is not None else UNITS_IN_REPLICA


def pool_bounds(settings: RerankSettings, units: int) -> tuple[int, int]:
    """Fewest and most replicas: as asked for, else what the cluster has room for now; never more than there are units.

    Raises ConfigError when a replica asks for more than any node has and nothing can be added.
    """
    nodes = resources_of_nodes()
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
    units: Sequence[Unit], assignment: Assignment, open_reuse: OpenReuse = no_reuse
) -> Iterator[UnitReport]:
    """Sends units through a pool, and yields a report of each that has its part, or of which it is known why not.

    Reports come in any order. There is none of a unit whose replicas died: the caller sees that it has no part.
    """
    pool = replica_pool(assignment.settings, len(units))
    with DataContext.current(job_context()), warnings.catch_warnings():
        # max_task_retries has no other way in yet; and warnings about too little work are no news to a small job.
        warnings.simplefilter("ignore")
        source = ray.data.from_items([{"unit": as_json(unit)} for unit in units], override_num_blocks=len(units))
        dataset = through_pool(source, pool, replace(assignment, reuse=open_reuse()))
        yield from reports_of(batches_of(dataset))


def through_pool(source: Dataset, pool: ActorPoolStrategy, assignment: Assignment) -> Dataset:
    """Sends the units of `source` through replicas; gives their reports, and runs when somebody reads these."""
    return source.map_batches(
        Replica,
        fn_constructor_args=(assignment,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=assignment.settings.replica_cpus,
        num_gpus=assignment.settings.num_gpus or None,
        compute=pool,
        max_task_retries=RETRIES_OF_A_UNIT,
    )
