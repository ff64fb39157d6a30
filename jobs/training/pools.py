"""Pieces of work whose workers load a model: like `jobs.pieces`, with CPUs and GPUs set aside for each worker."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext

from jobs.errors import StoppedError
from jobs.runtime.datasets import RETRIES_OF_A_UNIT, batches_of, job_context
from jobs.runtime.pieces import PieceActor, PieceStage, run_pieces
from jobs.settings import RerankSettings
from jobs.workers.pool import pool_bounds


def run_pieces_on_replicas(
    stage: PieceStage, argument: Any, items: Sequence[dict[str, Any]], settings: RerankSettings, *, loads_model: bool
) -> None:
    """Does pieces of work that are files in the end; a worker that loads a model gets what a replica gets.

    Raises StoppedError when one comes to no end; what is done stays.
    """
    if not items or not loads_model:
        run_pieces(stage, argument, items)
        return
    fewest, most = pool_bounds(settings, len(items))
    done = 0
    with DataContext.current(job_context()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too little work, and of max_task_retries
        dataset = ray.data.from_items(
            [{"item": json.dumps(item)} for item in items], override_num_blocks=len(items)
        ).map_batches(
            PieceActor,
            fn_constructor_args=(stage, argument),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus or None,
            compute=ActorPoolStrategy(min_size=fewest, max_size=most),
            max_task_retries=RETRIES_OF_A_UNIT,
        )
        for batch in batches_of(dataset):
            failures = [failure for failure in batch["failure"].to_pylist() if failure]
            if failures:
                raise StoppedError(failures[0])
            done += batch.num_rows
    if done < len(items):
        raise StoppedError(f"{len(items) - done} of {len(items)} pieces of work came to no end: their processes died")
