"""The driver of a training run: config -> shards on Ray Data -> workers on Ray Train -> model, card and summary."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from rich.console import Console

from jobs import storage
from jobs.errors import RefusedError, StoppedError, disk_failures_as_stops
from jobs.output import lease
from jobs.runtime.pieces import run_pieces
from jobs.runtime.session import ray_session
from jobs.runtime.signals import signals_as_exceptions
from jobs.screen import say
from jobs.training.train.card import write_card
from jobs.training.train.config import TrainConfig
from jobs.training.train.paths import Output
from jobs.training.train.planning import (
    SourceFile,
    check_same,
    manifest_of,
    source_files,
    stretches,
    unreadable_reports,
    with_definite_paths,
)
from jobs.training.train.plot import write_plot
from jobs.training.train.screen import LiveLine, print_data, print_end
from jobs.training.train.shards import Preparation, ShardReport, Stretch, prepare, read_report, source_summaries
from jobs.training.train.worker import Task, train_worker
from pipelines.errors import ConfigError
from pipelines.model_files import find_model
from pipelines.stores import filesystem, is_uri, parse_uri
from pipelines.training.base import Base, load_base

LOOK_SECONDS = 1.0
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # A worker that leaves a checkpoint waits until it is looked at, by default every two seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Of Ray Train, where the user sets nothing else."""


class TooManyBadRowsError(StoppedError):
    """More rows cannot be used than --max-errors allows; nothing was trained."""


def run(
    config: TrainConfig,
    config_file: Path,
    *,
    address: str | None = None,
    max_errors: int | None = None,
    tensorboard: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs or resumes the training and returns its summary.

    Raises ConfigError (nothing was touched), RefusedError (nothing was changed), TooManyBadRowsError, StoppedError or
    InterruptedBySignal (the same call resumes).
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops():
        config = with_definite_paths(config, config_file)
        output = Output(config.output)
        files = source_files(config.sources)
        base_files = find_model(config.base)
        base = load_base(config.base, seed=config.recipe.seed)
        check_lengths(config, base)
        manifest = manifest_of(config, base_files.digest(), files)
        take_place(output)
        with lease.hold_lease(output.path):
            begin(output, manifest, overwrite)
            if storage.exists(output.summary):
                say(console, f"{output.path} is complete; its model is {output.model}; --overwrite starts anew")
                summary: dict[str, Any] = storage.read_json(output.summary)
                return summary
            with ray_session(address, console):
                if address is None:
                    check_room(config)
                reports, shards = prepared(config, base, files, output, console)
                check_data(reports, max_errors)
                config = with_steps(config, reports)
                task = Task(
                    config=config,
                    output=output,
                    reports=tuple(reports),
                    shards=tuple(shards),
                    source_names=tuple(source.name for source in config.sources),
                    vocab_size=base.spec.shape.vocab_size,
                    data_id=digest_of([manifest, [asdict(report) for report in reports]]),
                    tensorboard=tensorboard,
                )
                train(task, console)
            result = storage.read_json(output.result)
            if "failed" in result:
                raise ConfigError(f"{result['failed']}; then start anew with --overwrite")
            summary = summarize(config, base, reports, result)
            write_plot(output, result["history"], console)
            write_card(output, config, summary, result)
            storage.write_json(output.summary, summary)
    print_end(console, output, summary)
    return summary


def check_lengths(config: TrainConfig, base: Base) -> None:
    """Raises ConfigError where a pair would be longer than the base reads."""
    longest = max(config.recipe.max_lengths)
    if longest > base.max_length:
        raise ConfigError(f"recipe.max_lengths reaches {longest}; {base.name} reads {base.max_length} tokens at most")
    if config.recipe.lists_per_step < config.workers.count:
        raise ConfigError(
            f"recipe.lists_per_step is {config.recipe.lists_per_step} and workers.count {config.workers.count}; each "
            "worker needs a list of every step"
        )


def take_place(output: Output) -> None:
    """Makes the output's directory; raises RefusedError where something lies there that no run of ours wrote."""
    if storage.exists(output.path):
        raise RefusedError(f"output {output.path} is a file; give a directory")
    storage.make_directory(output.path)
    names = {name for name in storage.names(output.path) if not storage.is_temporary(name)} - {lease.NAME}
    if names and not storage.exists(output.manifest):
        raise RefusedError(f"output {output.path} is not empty and no run of ours wrote it; give another directory")


def check_room(config: TrainConfig) -> None:
    """Raises ConfigError where a private Ray has not what the workers ask for, and would wait for it for ever."""
    workers, there = config.workers, ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, wanted in (("CPU", workers.count * workers.cpus), ("GPU", workers.count * workers.gpus)):
        if wanted > there.get(name, 0):
            raise ConfigError(
                f"{workers.count} worker(s) ask for {wanted:g} {name}s, and this machine has {there.get(name, 0):g}; "
                "lower workers.count, or give the --address of a cluster"
            )


def begin(output: Output, manifest: dict[str, Any], overwrite: bool) -> None:
    """Writes the manifest, or sees to it that the run is this one; raises RefusedError where it is not."""
    if storage.exists(output.manifest):
        if not overwrite:
            check_same(output, manifest)
            return
        storage.remove(output.summary)
        for folder in (output.lists, output.checkpoints, output.model):
            storage.remove_below(folder)
        storage.remove(output.result, output.news, output.curve, output.plot)
    storage.write_json(output.manifest, manifest)


def prepared(
    config: TrainConfig, base: Base, files: Sequence[SourceFile], output: Output, console: Console
) -> tuple[list[ShardReport], list[str]]:
    """Reports of all stretches, and the shards that came of them; those that are there are not made again."""
    wanted = stretches(files, config.sources, output)
    todo = [stretch for stretch in wanted if not storage.exists(stretch.report)]
    if todo:
        console.print(
            f"preparing {sum(stretch.take for stretch in todo):,} rows of {len(config.sources)} source(s) ..."
        )
    preparation = Preparation(
        sources=config.sources,
        tokenizer=base.tokenizer.to_str(),
        max_tokens=max(config.recipe.max_lengths),
        held_back=config.validation.share,
        seed=config.recipe.seed,
    )
    storage.make_directory(output.lists)
    run_pieces(preparation_stage, preparation, [asdict(stretch) for stretch in todo])
    reports = [read_report(stretch.report) for stretch in wanted]
    shards = [stretch.shard for stretch, report in zip(wanted, reports, strict=True) if report.lists]
    reports = [*unreadable_reports(files), *reports]
    print_data(console, config, reports)
    return reports, shards


def preparation_stage(preparation: Preparation) -> Any:
    """What does one piece of work of `run_pieces`."""

    def work(item: dict[str, Any]) -> None:
        prepare(Stretch(**item | {"row_groups": tuple(item["row_groups"])}), preparation)

    return work


def check_data(reports: Sequence[ShardReport], max_errors: int | None) -> None:
    """Raises TooManyBadRowsError, and ConfigError where nothing is left to train on."""
    bad = sum(sum(report.bad_rows.values()) for report in reports)
    unreadable = sum(report.unreadable is not None for report in reports)
    if max_errors is not None and bad + unreadable > max_errors:
        raise TooManyBadRowsError(
            f"{bad} row(s) and {unreadable} file(s) cannot be used, more than --max-errors {max_errors}; mend them, or "
            "raise it"
        )
    if not sum(report.trainable for report in reports):
        raise ConfigError("no row of any source can be trained on: bad rows, held back, or without a second passage")


def with_steps(config: TrainConfig, reports: Sequence[ShardReport]) -> TrainConfig:
    """The config with the steps that its epochs come to."""
    if config.epochs is None:
        return config
    lists = sum(report.trainable for report in reports)
    steps = max(1, math.ceil(config.epochs * lists / config.recipe.lists_per_step))
    return replace(config, recipe=replace(config.recipe, steps=steps))


def train(task: Task, console: Console) -> None:
    """Ray Train, watched; raises StoppedError when it gives up."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    workers = task.config.workers
    where: dict[str, Any] = {"storage_path": task.output.path}
    if is_uri(task.output.path):
        store = parse_uri(task.output.path)
        where = {"storage_path": store.path, "storage_filesystem": filesystem(store)}
    trainer = ray.train.torch.TorchTrainer(
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
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # handed over to the main thread
            failures.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    with live_line(task.output, console) as line:
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            line.look()
    if failures:
        raise StoppedError(f"training came to no end: {reason_of(failures[0])}") from failures[0]


@contextmanager
def live_line(output: Output, console: Console) -> Iterator[LiveLine]:
    """A line about the run while it goes on."""
    storage.remove(output.news)
    line = LiveLine(output, console)
    try:
        yield line
    finally:
        line.close()


def reason_of(error: BaseException) -> str:
    """The last line of the innermost error that a worker raised, which says more than Ray's own words."""
    failures = getattr(error, "worker_failures", None)
    inner = next(iter(failures.values())) if failures else error
    lines = [line for line in str(inner).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(inner).__name__


def summarize(
    config: TrainConfig, base: Base, reports: Sequence[ShardReport], result: dict[str, Any]
) -> dict[str, Any]:
    """What a run came to, for `_summary.json`."""
    history = result["history"]
    validations = history["validations"]
    return {
        "model": config.name,
        "base": base.name,
        "digest": result["digest"],
        "steps": max((one["step"] for one in validations), default=0),
        "planned_steps": config.recipe.steps,
        "best_step": history["best_step"],
        "pairs": history["pairs"],
        "seconds": history["seconds"],
        "validation_lists": result["validation_lists"],
        "ndcg_before": validations[0]["by_source"],
        "ndcg_after": next((one["by_source"] for one in validations if one["step"] == history["best_step"]), {}),
        "calibration_error": {name: one["error"] for name, one in result.get("calibration", {}).items()},
        "rows": sum(report.rows for report in reports),
        "lists": sum(report.lists for report in reports),
        "sources": source_summaries(config.sources, reports),
    }


def digest_of(value: Any) -> str:
    """A name for what a JSON value says."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
