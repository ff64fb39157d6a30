"""Runs stages of work that come before scoring, on Ray Data: a stage has many items, and each leaves files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from jobs.errors import StoppedError
from jobs.runtime.datasets import RETRIES_OF_A_UNIT, batches_of, job_context

Stage = Callable[[Any], Callable[[dict[str, Any]], None]]
"""Makes, of the argument that all items of a stage share, the function that does one item."""


class StageActor:
    """A worker of a stage on Ray Data: a row is an item."""

    def __init__(self, stage: Stage, argument: Any) -> None:
        self.work = stage(argument)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table({"failure": pa.array([self._failure(json.loads(item)) for item in batch["item"].to_pylist()])})

    def _failure(self, item: dict[str, Any]) -> str:
        try:
            self.work(item)
        except StoppedError as error:
            return str(error)
        except Exception as error:  # whatever it is, it would be no other another time
            return f"{type(error).__name__}: {error}"
        return ""


def run_stage(
    stage: Stage,
    argument: Any,
    items: Sequence[dict[str, Any]],
    *,
    pool: ActorPoolStrategy | None = None,
    num_cpus: float = 0,
    num_gpus: float | None = None,
) -> None:
    """Does all items of a stage, on all nodes.

    The workers are as many as there are CPUs, of which nothing is set aside, since with --app Serve may have them all;
    or those of `pool`, each with so many CPUs and GPUs.

    Raises StoppedError when an item comes to no end; the files of the others stay.
    """
    if not items:
        return
    done = 0
    with DataContext.current(job_context()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too little work, and of max_task_retries
        source = ray.data.from_items([{"item": json.dumps(item)} for item in items], override_num_blocks=len(items))
        dataset = source.map_batches(
            StageActor,
            fn_constructor_args=(stage, argument),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            compute=pool or a_worker_for_each_cpu(len(items)),
            max_task_retries=RETRIES_OF_A_UNIT,
        )
        for batch in batches_of(dataset):
            failures = [failure for failure in batch["failure"].to_pylist() if failure]
            if failures:
                raise StoppedError(failures[0])
            done += batch.num_rows
    if done < len(items):
        raise StoppedError(f"{len(items) - done} of {len(items)} pieces of work came to no end: their processes died")


def a_worker_for_each_cpu(items: int) -> ActorPoolStrategy:
    """As many workers as the cluster has CPUs, but no more than there are items."""
    cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    return ActorPoolStrategy(size=max(1, min(cpus, items)))
