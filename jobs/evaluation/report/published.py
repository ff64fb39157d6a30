"""Figures that others published, from `published.json`, and whether they stand beside ours.

Beside ours they stand only for the same queries, the same candidates and the same measure: where a set's `meta.json`
says of which public benchmark it is the whole (`benchmark`), and whose candidates it has (`published_candidates`). All
others, of benchmarks that the sets are like, have a table of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from jobs.evaluation.report.words import Results
from jobs.report.html import Html, Inside, joined, paragraphs
from jobs.report.tables import Cell, Column, table


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure."""

    benchmark: str
    measure: str
    system: str
    value: float
    candidates: str
    """What was ranked, in the words that a `meta.json` may have."""
    top_k: int | None
    source: str
    like: tuple[str, ...]
    """Patterns of names of sets that are like the benchmark."""


@cache
def published_figures() -> tuple[Figure, ...]:
    """All figures that we know."""
    raw = json.loads(files("jobs.evaluation.report").joinpath("published.json").read_text(encoding="utf-8"))
    return tuple(
        Figure(
            one["benchmark"],
            one["measure"],
            system,
            value,
            one["candidates"],
            one.get("top_k"),
            one["source"],
            tuple(one["like"]),
        )
        for one in raw
        for system, value in one["figures"].items()
    )


def comparable_figures(name: str, one: Results, top_k: int) -> list[Figure]:
    """Those that stand beside ours for a set."""
    if one["queries"] < one["queries_in_all"]:
        return []
    return [figure for figure in like(name) if is_same(figure, one, top_k)]


def is_same(figure: Figure, one: Results, top_k: int) -> bool:
    """Whether a figure is of the set's benchmark, candidates and measure."""
    told = (one.get("benchmark"), one.get("published_candidates"), one["measure"], top_k)
    return told == (figure.benchmark, figure.candidates, figure.measure, figure.top_k)


def like(name: str) -> list[Figure]:
    """The figures of the benchmarks that a set of this name is like."""
    return [one for one in published_figures() if any(fnmatchcase(name.lower(), pattern) for pattern in one.like)]


def published(results: Results) -> Html | None:
    """The table of the figures that are of other queries, candidates or measures; None where there are none."""
    beside = {
        figure for name, one in results["sets"].items() for figure in comparable_figures(name, one, results["top_k"])
    }
    found = [figure for name in results["sets"] for figure in like(name) if figure not in beside]
    if not found:
        return None
    told = paragraphs(
        "What others say of other models on benchmarks that these sets are like, or are drawn from. They had other "
        "queries, candidates or measures: no figure here can be compared with one above."
    )
    sources = dict.fromkeys(figure.source for figure in found)
    return joined([told, *(figures_of(source, [one for one in found if one.source == source]) for source in sources)])


def figures_of(source: str, figures: Sequence[Figure]) -> Html:
    """The figures of one source: a row for each benchmark, a column for each system."""
    systems = list(dict.fromkeys(one.system for one in figures))
    values = {(one.benchmark, one.measure, one.system): one.value for one in figures}
    columns = [Column("benchmark", sortable=False), Column("measure", sortable=False)]
    columns += [Column(system, number=True, sortable=False) for system in systems]
    rows: list[list[Cell | Inside]] = [
        [benchmark, measure, *(figure_cell(values.get((benchmark, measure, system))) for system in systems)]
        for benchmark, measure in dict.fromkeys((one.benchmark, one.measure) for one in figures)
    ]
    return table(f"Source: {source}", columns, rows)


def figure_cell(value: float | None) -> Cell:
    """A figure as it was published."""
    return Cell("–") if value is None else Cell(f"{value:.4f}", value)
