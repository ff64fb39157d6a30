"""Runs stages whose workers load a model: each worker gets CPUs and GPUs of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.data import ActorPoolStrategy

from jobs.runtime.stages import Stage, run_stage
from jobs.settings import RerankSettings
from jobs.workers.pool import pool_bounds


def run_stage_on_replicas(
    stage: Stage, argument: Any, items: Sequence[dict[str, Any]], settings: RerankSettings, *, loads_model: bool
) -> None:
    """Does all items of a stage; a worker that loads a model gets the CPUs and GPUs of a replica.

    Raises StoppedError when an item comes to no end; the files of the others stay.
    """
    if not items or not loads_model:
        run_stage(stage, argument, items)
        return
    fewest, most = pool_bounds(settings, len(items))
    pool = ActorPoolStrategy(min_size=fewest, max_size=most)
    run_stage(stage, argument, items, pool=pool, num_cpus=settings.num_cpus, num_gpus=settings.num_gpus or None)
