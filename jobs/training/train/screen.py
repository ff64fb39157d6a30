"""What a training prints: a table of its data, a line about how it stands, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table

from jobs import storage
from jobs.screen import LOG_SECONDS, say
from jobs.training.train.config import TrainConfig
from jobs.training.train.paths import RunFiles
from jobs.training.train.shards import ShardReport, source_summaries


class LiveLine:
    """Shows loss, validation, speed and time left: a line that changes on a terminal, lines now and then in a log."""

    def __init__(self, output: RunFiles, console: Console) -> None:
        self.output = output
        self.console = console
        self.status: Status | None = None
        self.said = ""
        self.said_at = 0.0
        if console.is_terminal:
            self.status = console.status("starting the workers ...")
            self.status.start()
        else:
            console.print("starting the workers ...")

    def look(self) -> None:
        """Reads how the run stands and shows it."""
        try:
            line = news_line(storage.read_json(self.output.news))
        except (OSError, ValueError):  # not written yet
            return
        if self.status is not None:
            self.status.update(line)
        elif line != self.said and time.monotonic() - self.said_at > LOG_SECONDS:
            self.said, self.said_at = line, time.monotonic()
            self.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self.status is not None:
            self.status.stop()


def news_line(news: dict[str, Any]) -> str:
    """The line that says how a run stands."""
    validation = "" if news["value"] is None else f", validation {news['measure']} {news['value']:.3f}"
    return (
        f"step {news['step']:,} of {news['steps']:,}, loss {news['loss']:.3f}{validation}, "
        f"{news['pairs_per_second']:,.0f} pairs/s, {duration(news['seconds_left'])} left"
    )


def duration(seconds: float) -> str:
    """A time such as `42 s`, `7 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


FEW_LISTS = 50
"""Held-back lists below which figures of a validation are mostly chance."""


def print_data(console: Console, config: TrainConfig, reports: Sequence[ShardReport]) -> None:
    """Prints a table of the sources, then the files and rows that cannot be used, and what cannot be measured."""
    table = Table(title="Training rows", title_justify="left")
    for name, side in (("source", "left"), ("rows", "right"), ("lists", "right"), ("held back", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    table.add_column("not usable")
    for source in source_summaries(config.sources, reports):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in source["bad_rows"].items())
        numbers = (f"{source[name]:,}" for name in ("rows", "lists", "held_back"))
        table.add_row(source["name"], *numbers, reasons)
    console.print(table)
    for path, why in {report.path: report.unreadable for report in reports if report.unreadable}.items():
        say(console, f"{path}: {why}", "could not be read: ")
    for path, example in first_examples(reports):
        say(console, f"{path}: {example}", "not usable: ", "yellow")
    if left_out := sum(report.left_out for report in reports):
        say(
            console, f"{left_out:,} row(s) are left out, whose query a source has that is held back", "note: ", "yellow"
        )
    if any(report.trainable for report in reports):
        labelled, taught = sum(report.measurable for report in reports), sum(report.taught for report in reports)
        more = f"a larger validation.share than {config.validation.share:g} gives more"
        if any(source.held_back for source in config.sources):
            more = "give more lists to the source that is held back"
        for note in little_to_measure(labelled, taught, more):
            say(console, note, "note: ", "yellow")


def first_examples(reports: Sequence[ShardReport]) -> Iterator[tuple[str, str]]:
    """Yields (file, example) of rows that cannot be used: one of each file and reason, however long the file is."""
    told: set[tuple[str, str]] = set()
    for report in reports:
        for example in report.examples:
            _, reason, _ = example.split(": ", 2)
            if (report.path, reason) not in told:
                told.add((report.path, reason))
                yield report.path, example


def little_to_measure(labelled: int, taught: int, more: str) -> Iterator[str]:
    """What it means for a run that few held-back lists have labels, or that none has; `more` says what helps."""
    if not labelled and taught:
        yield (
            "no list that is held back has a positive and another label, so validations measure how far the order is "
            "the teacher's (Kendall's tau), and the scores are not calibrated; `crossray calibrate` does that with "
            "labels of another source"
        )
    elif not labelled:
        yield (
            "no list that is held back has a positive and another label, nor two different scores of a teacher, so "
            "this run is neither validated nor calibrated, and its last weights are the model; give labels, or "
            f"{more}"
        )
    if 0 < (labelled or taught) < FEW_LISTS:
        yield f"only {labelled or taught} held-back list(s) can be measured, so figures are mostly chance; {more}"


def print_end(console: Console, output: RunFiles, summary: dict[str, Any]) -> None:
    """Prints the table at the end: validation before and after, calibration, and where the model is."""
    lists = f"validation on {summary['validation_lists']:,} lists" if summary["validation_lists"] else "not validated"
    title = f"{summary['steps']:,} steps, {summary['pairs']:,} pairs; {lists}"
    table = Table(title=title, title_justify="left")
    for name in ("source", f"{summary['measure']} before", "after", "calibration error"):
        table.add_column(name, justify="left" if name == "source" else "right")
    errors = summary["calibration_error"]
    for name, after in summary["after"].items():
        before = summary["before"].get(name)
        table.add_row(name, "" if before is None else f"{before:.3f}", f"{after:.3f}", percent(errors.get(name)))
    if "all" in errors:
        table.add_row("all pairs", "", "", percent(errors["all"]))
    console.print(table if table.row_count else title)
    if summary["steps"] < summary["planned_steps"]:
        console.print(f"ended early: the best validation was at step {summary['best_step']:,}")
    if summary["best_step"] == 0:
        say(
            console,
            "no validation was better than that before the training, so the model has the weights of its base. Lists "
            "that were mined with the base are in its order from the start: for them, set validation.keep to 'last'",
            "note: ",
            "yellow",
        )
    say(console, output.model, "the model: ", "green")


def percent(value: float | None) -> str:
    """A share in percent; an empty text for None."""
    return "" if value is None else f"{value:.1%}"
