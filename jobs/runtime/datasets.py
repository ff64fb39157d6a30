"""Ray Data for whole units of work: a row is one of them, none is split, and a lost one is no end."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pyarrow as pa
from ray.data import DataContext, Dataset
from ray.exceptions import RayError

from jobs.errors import StoppedError
from pipelines.own_packages import hint_for

RETRIES_OF_A_UNIT = 2
"""Further processes that a unit may try when the one it is in dies; after that the quarantine looks at it alone."""


def batches_of(dataset: Dataset) -> Iterator[pa.Table]:
    """What comes out at the end, as it comes; raises StoppedError when Ray gives up."""
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except (RayError, RuntimeError) as error:  # no replica could start, the cluster went away
        raise StoppedError(f"Ray gave up: {error}{hint_for(str(error))}") from error


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
