"""Runs pieces of work whose workers load a model: each worker gets CPUs and GPUs of its own."""

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
    """Does pieces of work, each of which writes files; a worker that loads a model gets the CPUs and GPUs of a replica.

    Raises StoppedError when a piece cannot be finished; the files of finished pieces stay.
    """
    if not items or not loads_model:
        run_pieces(stage, argument, items)
        return
    fewest, most = pool_bounds(settings, len(items))
    pool = ActorPoolStrategy(min_size=fewest, max_size=most)
    run_pieces(stage, argument, items, pool=pool, num_cpus=settings.num_cpus, num_gpus=settings.num_gpus or None)
