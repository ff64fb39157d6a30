"""The tables that `crossray evaluate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.evaluation.comparison import CEILING, FIRST_STAGE
from jobs.screen import say
from pipelines.evaluation.chance import SURE, shown

WIDE = 110
"""Columns of a terminal on which all measures are shown, and not the first one alone."""


def print_set(console: Console, name: str, results: Mapping[str, Any], measures: Sequence[str]) -> None:
    """Prints the measures of a set, and how sure the difference to the first stage is."""
    told = f"{name}: {results['queries']:,} queries"
    if results["queries"] < results["queries_in_all"]:
        told += f", drawn of {results['queries_in_all']:,}"
    shown = measures if console.width >= WIDE else measures[:1]
    table = Table(title=Text(told), title_justify="left")
    table.add_column("order", overflow="fold")
    table.add_column(shown[0], justify="right")
    table.add_column("95% interval", no_wrap=True)
    table.add_column(f"against {FIRST_STAGE}", no_wrap=True)
    for measure in shown[1:]:
        table.add_column(measure, justify="right")
    head = {row: by_measure[shown[0]] for row, by_measure in results["rows"].items()}
    best = max(one["mean"] for row, one in head.items() if row != CEILING)
    for row, one in head.items():
        style = "bold" if one["mean"] == best and row != CEILING else "dim" if row == CEILING else ""
        interval = "no spread" if one["low"] == one["high"] else f"{one['low']:.3f} to {one['high']:.3f}"
        called = results["first_stage"]["name"] if row == FIRST_STAGE else row
        cells = [called, f"{one['mean']:.3f}", interval, against(results, row, shown[0])]
        cells += [f"{results['rows'][row][measure]['mean']:.3f}" for measure in shown[1:]]
        table.add_row(*map(Text, cells), style=style)
    console.print(table)
    print_found(console, results)
    if results["unlabelled"]:
        say(console, f"{results['unlabelled']:,} row(s) have no positive label, and are not measured", f"{name}: ", "")
    if results["without_list"]:
        told = f"{results['without_list']:,} of {results['queries']:,} queries have no candidates; they count 0"
        say(console, told, f"{name}: ", "yellow")
    for system, rows in results["unanswered"].items():
        if rows:
            say(console, f"{rows:,} list(s) of {name} have no scores; they count 0", f"{system}: ", "yellow")
    if results["problems"]:
        told = f"{results['problems']:,} line(s) of {name} are left out, such as {results['first_problems'][0]}"
        say(console, told, "careful: ", "yellow")


def print_found(console: Console, results: Mapping[str, Any]) -> None:
    """Says how much of what is relevant is among the candidates, unless it is all."""
    found = results["first_stage"]["found"]
    if results["judged_by"] == "answers":
        count, of = results["queries"] - found["queries_without"], results["queries"]
        told = f"{count:,} of {of:,} questions have an answer among the candidates; no order finds the others"
    else:
        count, of = found["relevant_found"], found["relevant"]
        told = (
            f"has {count:,} of the {of:,} relevant documents (recall {found['recall']:.3f}); no order finds the others"
        )
    if count < of:
        say(console, told, f"{results['first_stage']['name']}: ", "")


def against(results: Mapping[str, Any], row: str, measure: str) -> str:
    """The difference of a row to the first stage, with its p-value."""
    for one in results["differences"]:
        if (one["measure"], one["from"], one["to"]) == (measure, FIRST_STAGE, row):
            sure = " *" if one["p_holm"] < SURE else ""
            return f"{one['difference']:+.3f}, p {shown(one['p_holm'])}{sure}"
    return ""
