"""How the driver trains on Ray Train: it starts the workers, shows how the run stands, and waits for the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from rich.console import Console

from jobs import storage
from jobs.errors import StoppedError
from jobs.training.train.config import TrainConfig
from jobs.training.train.paths import RunFiles
from jobs.training.train.screen import LiveLine
from jobs.training.train.worker import Task, remove_lists, train_worker
from pipelines.errors import ConfigError
from pipelines.stores import filesystem, is_uri, parse_uri

LOOK_SECONDS = 1.0
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # A worker that leaves a checkpoint waits until it is looked at, by default every two seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Variables of Ray Train, set where the user has not set them."""


def check_room(config: TrainConfig) -> None:
    """Raises ConfigError where the workers ask for more than a private Ray has: it would wait for ever."""
    workers, there = config.workers, ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, wanted in (("CPU", workers.count * workers.cpus), ("GPU", workers.count * workers.gpus)):
        if wanted > there.get(name, 0):
            raise ConfigError(
                f"{workers.count} worker(s) ask for {wanted:g} {name}s, and this machine has {there.get(name, 0):g}; "
                "lower workers.count, or give the --address of a cluster"
            )


def fit(task: Task, console: Console) -> None:
    """Trains with the workers of a task; raises StoppedError when Ray Train gives up."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    trainer = trainer_of(task)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # handed over to the main thread
            failures.append(error)

    thread = threading.Thread(target=work, name="ray-train", daemon=True)
    try:
        with live_line(task.output, console) as line:
            thread.start()
            while thread.is_alive():
                thread.join(LOOK_SECONDS)
                line.look()
    finally:
        remove_lists(task)
    if failures:
        raise StoppedError(f"training came to no end: {last_line_of(failures[0])}") from failures[0]


def trainer_of(task: Task) -> ray.train.torch.TorchTrainer:
    """Ray Train's trainer with the workers of a task; its checkpoints come to lie in the run's output."""
    workers = task.config.workers
    where: dict[str, Any] = {"storage_path": task.output.path}
    if is_uri(task.output.path):
        store = parse_uri(task.output.path)
        where = {"storage_path": store.path, "storage_filesystem": filesystem(store)}
    return ray.train.torch.TorchTrainer(
        partial(train_worker, task),
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name="checkpoints",
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            **where,
        ),
    )


@contextmanager
def live_line(output: RunFiles, console: Console) -> Iterator[LiveLine]:
    """Shows a line about the run while it goes on."""
    storage.remove(output.news)
    line = LiveLine(output, console)
    try:
        yield line
    finally:
        line.close()


def last_line_of(error: BaseException) -> str:
    """The last line of the error that a worker raised, without what Ray wraps around it."""
    failures = getattr(error, "worker_failures", None)
    inner = next(iter(failures.values())) if failures else error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(inner).__name__
