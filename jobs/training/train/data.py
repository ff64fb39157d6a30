"""How the driver has the rows of a run prepared: on Ray Data each stretch of a file becomes a shard of token lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from jobs import storage
from jobs.runtime.stages import run_stage
from jobs.training.bad_rows import TooManyBadRowsError
from jobs.training.train.config import TrainConfig
from jobs.training.train.paths import RunFiles
from jobs.training.train.planning import SourceFile, stretches, unreadable_reports
from jobs.training.train.screen import print_data
from jobs.training.train.shards import ShardReport, ShardSettings, prepare, read_report
from jobs.training.train.stretches import Stretch
from pipelines.errors import ConfigError
from pipelines.training.base import Base

MOST = {
    "bce": (1, "divide the labels by the highest one, or take softmax or lambda"),
    "lambda": (30, "take grades, such as the logarithm of a number of clicks, or softmax"),
}
"""The highest label of a loss, and the way out: to `bce` a label is a probability, to `lambda` its gain is 2^label."""


def prepared(
    config: TrainConfig, base: Base, files: Sequence[SourceFile], output: RunFiles, console: Console
) -> tuple[list[ShardReport], list[str]]:
    """Makes the shards that are not there yet; returns the reports of all stretches, and the shards that hold lists.

    Sources that are held back whole come first, since no row of another source may have a query of theirs.
    """
    wanted = stretches(files, config.sources, output)
    is_settled = output.has_trained()  # on lists that stay what they are
    todo = {
        stretch
        for stretch in wanted
        if not storage.exists(stretch.report) or (not is_settled and read_report(stretch.report).unreadable is not None)
    }
    measured = [stretch for stretch in wanted if config.sources[stretch.source].held_back]
    trained = [stretch for stretch in wanted if not config.sources[stretch.source].held_back]
    if todo.intersection(measured):  # with them, other rows are to be left out, also when this is stopped in between
        todo.update(trained)
        storage.remove(*(stretch.report for stretch in trained))
    if todo:
        console.print(
            f"preparing {sum(stretch.take for stretch in todo):,} rows of {len(config.sources)} source(s) ..."
        )
    settings = ShardSettings(
        sources=config.sources,
        tokenizer=base.tokenizer.to_str(),
        max_tokens=max(config.recipe.max_lengths),
        held_back=config.validation.share,
        seed=config.recipe.seed,
    )
    storage.make_directory(output.lists)
    run_stage(preparation_stage, settings, [asdict(stretch) for stretch in measured if stretch in todo])
    settings = replace(settings, measured_on=tuple(shards_of(measured, reports_of(measured))))
    run_stage(preparation_stage, settings, [asdict(stretch) for stretch in trained if stretch in todo])
    reports = reports_of(wanted)
    shards = shards_of(wanted, reports)
    reports = [*unreadable_reports(files), *reports]
    print_data(console, config, reports)
    return reports, shards


def reports_of(wanted: Sequence[Stretch]) -> list[ShardReport]:
    """The reports of stretches that are prepared."""
    return [read_report(stretch.report) for stretch in wanted]


def shards_of(wanted: Sequence[Stretch], reports: Sequence[ShardReport]) -> list[str]:
    """The shards of those stretches that hold lists, as their reports say."""
    return [stretch.shard for stretch, report in zip(wanted, reports, strict=True) if report.lists]


def preparation_stage(settings: ShardSettings) -> Any:
    """The function that makes one shard, as `run_stage` wants it."""

    def work(item: dict[str, Any]) -> None:
        prepare(Stretch(**item | {"row_groups": tuple(item["row_groups"])}), settings)

    return work


def check_data(reports: Sequence[ShardReport], max_errors: int | None) -> None:
    """Raises TooManyBadRowsError for more bad rows than --max-errors, ConfigError where no list is left to train on."""
    bad = sum(sum(report.bad_rows.values()) for report in reports)
    unreadable = len({report.path for report in reports if report.unreadable is not None})
    if max_errors is not None and bad + unreadable > max_errors:
        raise TooManyBadRowsError(
            f"{bad} row(s) and {unreadable} file(s) cannot be used, more than --max-errors {max_errors}; mend them, or "
            "raise it"
        )
    if reports and all(report.unreadable is not None for report in reports):
        raise ConfigError(
            "no file of any source could be read, as said above; the table [sources.columns] of the config is for "
            "columns that have other names"
        )
    if not sum(report.trainable for report in reports):
        raise ConfigError("no row of any source can be trained on: bad rows, held back, or without a second passage")


def check_labels(config: TrainConfig, reports: Sequence[ShardReport]) -> None:
    """Raises ConfigError for labels that the label loss cannot learn."""
    if config.recipe.label_loss not in MOST:
        return
    most, way_out = MOST[config.recipe.label_loss]
    for report in reports:
        if report.highest_label > most:
            raise ConfigError(
                f"{report.path} has the label {report.highest_label:g}, and recipe.label_loss is "
                f"{config.recipe.label_loss!r}, which takes labels from 0 to {most}; {way_out}"
            )


def with_steps(config: TrainConfig, reports: Sequence[ShardReport]) -> TrainConfig:
    """The config with `epochs` turned into steps."""
    if config.epochs is None:
        return config
    lists = sum(report.trainable for report in reports)
    steps = max(1, math.ceil(config.epochs * lists / config.recipe.lists_per_step))
    return replace(config, recipe=replace(config.recipe, steps=steps))
