"""Lets the sides of a comparison take turns, and reports their figures on the screen and as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.runtime.machine import processor

console = Console()
CORES = os.cpu_count() or 1
Model = Annotated[str, typer.Option(help="`embedded` or a directory.")]
Threads = Annotated[int, typer.Option(help="CPU threads of each side.")]
Rounds = Annotated[int, typer.Option(help="Sides take turns; medians are reported.")]
Output = Annotated[Path | None, typer.Option(help="Where to put the figures as JSON.")]


def interleave(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, A B C A B C ..., after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, side in sides.items():
            took = seconds_of(side)
            if i:
                seconds[name].append(took)
    return seconds


def seconds_of(work: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(title: str, rows: dict[str, dict[str, float]], details: dict[str, Any], output: Path | None) -> None:
    """Prints the table; writes it with its details as JSON."""
    columns = list(next(iter(rows.values())))
    table = Table(title=title, title_justify="left")
    for column in ("", *columns):
        table.add_column(column.replace("_", " "), justify="right" if column else "left")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[column]:,.2f}" for column in columns))
    console.print(table)
    if output is not None:
        machine = {"processor": processor(), "cpus": CORES, "python": platform.python_version()}
        output.write_text(json.dumps({"title": title, "machine": machine, "rows": rows, **details}, indent=2) + "\n")
