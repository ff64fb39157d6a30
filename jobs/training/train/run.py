"""The driver of a training run: config -> shards on Ray Data -> workers on Ray Train -> model, card and summary."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jobs import storage
from jobs.errors import RefusedError, disk_failures_as_stops
from jobs.output import lease
from jobs.output.directory import make_output
from jobs.runtime.session import ray_session
from jobs.runtime.signals import signals_as_exceptions
from jobs.screen import say
from jobs.training.train.card import write_card
from jobs.training.train.config import TrainConfig
from jobs.training.train.paths import RunFiles
from jobs.training.train.planning import (
    SourceFile,
    change_of,
    check_outside_output,
    manifest_of,
    source_files,
    with_definite_paths,
)
from jobs.training.train.plot import write_plot
from jobs.training.train.screen import print_end
from jobs.training.train.shards import ShardReport, source_summaries
from pipelines.errors import ConfigError
from pipelines.model_sources import find_model

if TYPE_CHECKING:  # torch and Ray Train: seconds, spared to a run that is complete
    from jobs.training.train.worker import Task
    from pipelines.training.base import Base


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
    """Runs or resumes a training and returns its summary.

    Raises ConfigError (nothing was touched), RefusedError (nothing was changed), TooManyBadRowsError, StoppedError or
    InterruptedBySignal (the same call resumes).
    """
    console = console or Console()
    with signals_as_exceptions(), disk_failures_as_stops():
        config = with_definite_paths(config, config_file)
        output = RunFiles(config.output)
        files = source_files(config.sources, console)
        check_outside_output(config, files)
        manifest = manifest_of(config, find_model(config.base).digest(), files)
        base = None if storage.exists(output.summary) and not overwrite else checked_base(config)
        take_place(output)
        with lease.hold_lease(output.path) as held:
            begin(output, manifest, overwrite)
            if base is None or storage.exists(output.summary):
                say(console, f"{output.path} is complete; its model is {output.model}; --overwrite starts anew")
                return dict(storage.read_json(output.summary))
            config = replace(config, recipe=base.with_kept_zeros(config.recipe))
            with ray_session(address, console):
                task = train(config, base, files, address, max_errors, tensorboard, console)
            held.check()
            summary = sum_up(task, base, console)
    print_end(console, output, summary)
    return summary


def checked_base(config: TrainConfig) -> Base:
    """Loads the model that training begins from; raises ConfigError for a config that does not fit it."""
    from pipelines.training.base import load_base

    base = load_base(config.base, seed=config.recipe.seed)
    check_lengths(config, base)
    return base


def check_lengths(config: TrainConfig, base: Base) -> None:
    """Raises ConfigError where pairs are longer than the base can read, or a step has fewer lists than workers."""
    longest = max(config.recipe.max_lengths)
    if longest > base.max_length:
        raise ConfigError(f"recipe.max_lengths reaches {longest}; {base.name} reads {base.max_length} tokens at most")
    if config.recipe.lists_per_step < config.workers.count:
        raise ConfigError(
            f"recipe.lists_per_step is {config.recipe.lists_per_step} and workers.count {config.workers.count}; each "
            "worker needs a list of every step"
        )


def take_place(output: RunFiles) -> None:
    """Makes the output's directory; raises ConfigError where that cannot be.

    Raises RefusedError where something lies there that no run of ours wrote.
    """
    if storage.exists(output.path):
        raise RefusedError(f"output {output.path} is a file; give a directory")
    make_output(output.path, "output")
    names = {name for name in storage.names(output.path) if not storage.is_temporary(name)} - {lease.NAME, lease.LOCK}
    if names and not storage.exists(output.manifest):
        raise RefusedError(f"output {output.path} is not empty and no run of ours wrote it; give another directory")


def begin(output: RunFiles, manifest: dict[str, Any], overwrite: bool) -> None:
    """Writes the manifest of a new run, after removing an earlier one if `overwrite` says so, or if it never trained.

    Raises RefusedError where the earlier run was begun with something else and may not be overwritten.
    """
    if storage.exists(output.manifest):
        change = None if overwrite else change_of(output, manifest)
        if not overwrite and change is None:
            return
        if change is not None and output.has_trained():
            raise RefusedError(change)
        storage.remove(output.summary)
        for folder in (output.lists, output.checkpoints, output.model):
            storage.remove_below(folder)
        storage.remove(output.result, output.news, output.curve, output.plot)
    storage.write_json(output.manifest, manifest)


def train(
    config: TrainConfig,
    base: Base,
    files: Sequence[SourceFile],
    address: str | None,
    max_errors: int | None,
    tensorboard: str | None,
    console: Console,
) -> Task:
    """Prepares the rows and trains on them, in a Ray session; returns what the workers were told."""
    from jobs.training.train.data import check_data, check_labels, prepared, with_steps
    from jobs.training.train.fit import check_room, fit
    from jobs.training.train.worker import Task

    if address is None:
        check_room(config)
    output = RunFiles(config.output)
    reports, shards = prepared(config, base, files, output, console)
    check_data(reports, max_errors)
    check_labels(config, reports)
    task = Task(
        config=with_steps(config, reports),
        output=output,
        reports=tuple(reports),
        shards=tuple(shards),
        source_names=tuple(source.name for source in config.sources),
        vocab_size=base.spec.shape.vocab_size,
        lists_id=uuid.uuid4().hex,
        tensorboard=tensorboard,
    )
    fit(task, console)
    return task


def sum_up(task: Task, base: Base, console: Console) -> dict[str, Any]:
    """Writes curve, card and summary of a run that came to its end; raises ConfigError where it diverged."""
    output = task.output
    result = storage.read_json(output.result)
    if "failed" in result:
        raise ConfigError(f"{result['failed']}; then start anew with --overwrite")
    summary = summarize(task.config, base, task.reports, result)
    write_plot(output, result, console)
    write_card(output, task.config, summary, result)
    storage.write_json(output.summary, summary)
    return summary


def summarize(
    config: TrainConfig, base: Base, reports: Sequence[ShardReport], result: dict[str, Any]
) -> dict[str, Any]:
    """The content of `_summary.json`."""
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
        "measure": result["measure"],
        "validation_lists": result["validation_lists"],
        "before": validations[0]["by_source"],
        "after": next((one["by_source"] for one in validations if one["step"] == history["best_step"]), {}),
        "calibration_error": {name: one["error"] for name, one in result.get("calibration", {}).items()},
        "rows": sum(report.rows for report in reports),
        "lists": sum(report.lists for report in reports),
        "sources": source_summaries(config.sources, reports),
    }
