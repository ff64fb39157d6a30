"""What a job prints: messages; a bar on a terminal or a line every ten seconds in a log; the table at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jobs.output.accounting import AFTER_IT, BEFORE_IT, FORWARD, IDLE
from jobs.output.summary import NAMED_FILES, first_paths
from jobs.records import InputFile, PlannedFile

LOG_SECONDS = 10.0


class OnlyProgress(Console):
    """Prints nothing of a job that another command runs, but for how its scoring goes, which `shown` has."""

    def __init__(self, shown: Console) -> None:
        super().__init__(quiet=True)
        self.shown = shown


class ProgressView:
    """Shows how many of all rows are done, and the pairs per second since scoring began."""

    def __init__(self, console: Console, total_rows: int, rows_done: int, bar: Progress | None) -> None:
        self.console = console
        self.bar = bar
        self.total_rows = total_rows
        self.rows_before = self.rows_done = rows_done
        self.pairs = 0
        self.began = self.logged = time.perf_counter()
        self.task = bar.add_task("scoring", total=total_rows, completed=rows_done, speed="starting") if bar else None

    def begin(self, seconds_ago: float) -> None:
        """Measures the speed from when the first replica began to score, which was so many seconds ago."""
        self.began = time.perf_counter() - seconds_ago

    def advance(self, rows: int, pairs: int) -> None:
        """Counts the rows and pairs of a unit that has been written."""
        now = time.perf_counter()
        self.rows_done += rows
        self.pairs += pairs
        speed = f"{self.pairs / (now - self.began):,.0f} pairs/s"
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=self.rows_done, speed=speed)
        elif now - self.logged > LOG_SECONDS:
            self.logged = now
            left = (self.total_rows - self.rows_done) * (now - self.began) / (self.rows_done - self.rows_before)
            self.console.print(f"{self.rows_done:,} of {self.total_rows:,} rows, {speed}, {left:,.0f} s left")


@contextmanager
def show_progress(console: Console, total_rows: int, rows_done: int) -> Iterator[ProgressView]:
    """A view for the time of scoring; the caller tells it of each finished unit."""
    console = console.shown if isinstance(console, OnlyProgress) else console
    if not console.is_terminal:
        yield ProgressView(console, total_rows, rows_done, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"))
    times = (TextColumn("{task.fields[speed]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *times, console=console) as bar:
        yield ProgressView(console, total_rows, rows_done, bar)


def say(console: Console, message: str, label: str = "", style: str = "red") -> None:
    """Prints a message after a coloured label, on one line however long; brackets in it are no markup.

    Names of files and texts of rows are others' data: what would steer a terminal is printed as an escape sequence.
    """
    console.print(Text.assemble((printable(label), style), printable(message)), soft_wrap=True)


def printable(text: str) -> str:
    """The text with its line breaks, and with `\\x1b` and the like in the place of what cannot be printed."""
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def say_left_out(console: Console, place: str, left_out: Sequence[InputFile]) -> None:
    """Says how many files of a place are not read, since they are no Parquet, and names the first of them."""
    if left_out:
        told = f"{len(left_out):,} file(s) of {place} that are no Parquet: {', '.join(first_paths(left_out))}"
        say(console, told + (", ..." if len(left_out) > NAMED_FILES else ""), "left out: ", "yellow")


def say_cut_timestamps(console: Console, files: Iterable[PlannedFile]) -> None:
    """Says which columns of planned files are written without all the digits of their timestamps."""
    for file in files:
        for column, cut in file.cut_timestamps:
            told = f"`{column}` of {file.file.path} has {cut:,} timestamps with digits below a microsecond"
            say(console, f"{told}, and others that nanoseconds cannot hold", "cut to microseconds: ", "yellow")


def count_rows(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Lines of a table that say what was scored and what could not be."""
    if summary["rows_left_out"]:
        yield "rows left out", f"{summary['rows_left_out']:,}"
    for name in ("pairs", "chunks", "tokens", "cut_documents", "cut_queries", "rows_with_errors"):
        yield name.replace("_", " "), f"{summary[name]:,}"
    for reason, rows in summary["errors"].items():
        yield f"  {reason}", f"{rows:,}"
    if summary["null_documents"]:
        yield "null documents, ranked last", f"{summary['null_documents']:,}"
    if summary["documents_below_threshold"]:
        yield "documents below the threshold", f"{summary['documents_below_threshold']:,}"


def reuse_rows(attempts: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """The line of a table that says what did not go through the model; none where everything did."""
    chunks, reused = (sum(one.get(name, 0) for one in attempts) for name in ("chunks", "chunks_reused"))
    if reused:
        yield "chunks reused", f"{reused:,} of {chunks:,} ({reused / chunks:.0%})"


def time_rows(stages: Mapping[str, float], replica_seconds: float) -> Iterable[tuple[str, str]]:
    """Lines of a table that say where the time went; none before any replica has finished a unit."""
    if not replica_seconds:
        return
    yield "seconds of all replicas", f"{replica_seconds:,.1f}"
    for name in (FORWARD, IDLE):
        yield f"  {name}", f"{stages[name]:,.1f} ({stages[name] / replica_seconds:.0%})"
    yield "beside that", ", ".join(f"{name.replace('_', ' ')} {stages[name]:,.1f}" for name in (*BEFORE_IT, *AFTER_IT))


def print_summary(console: Console, summary: Mapping[str, Any], output: str) -> None:
    """Prints the table that a finished job ends with."""
    table = Table(title=Text(f"Reranked into {output}"), show_header=False, title_justify="left")
    table.add_row("rows", f"{summary['rows']:,} in {summary['parts']:,} part(s)")
    for name, value in count_rows(summary):
        table.add_row(name, value)
    last = summary["attempts"][-1] if summary["attempts"] else {"phases": {}}
    phases = ", ".join(f"{name} {seconds:,.1f}" for name, seconds in last["phases"].items())
    table.add_row("seconds", f"{summary['seconds']:,.1f} in {len(summary['attempts'])} attempt(s); last: {phases}")
    table.add_row("pairs/s while scoring", f"{summary['pairs_per_second']:,.1f}")
    if summary["left_out"]["files"]:
        table.add_row("files left out", f"{summary['left_out']['files']:,}")
    if summary["cut_timestamps"]:
        table.add_row("timestamps cut to microseconds", f"{summary['cut_timestamps']:,}")
    for name, value in reuse_rows(summary["attempts"]):
        table.add_row(name, value)
    for name, value in time_rows(summary["stages"], summary["replica_seconds"]):
        table.add_row(name, value)
    console.print(table)
    for path, error in summary["unreadable"].items():
        say(console, f"{path}: {error}", "could not be read: ")
