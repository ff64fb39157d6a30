"""Pieces of work whose workers load a model: CPUs and GPUs are set aside for each worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.data import ActorPoolStrategy

from jobs.runtime.pieces import PieceStage, run_pieces
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
    pool = ActorPoolStrategy(min_size=fewest, max_size=most)
    run_pieces(stage, argument, items, pool=pool, num_cpus=settings.num_cpus, num_gpus=settings.num_gpus or None)
