"""The sections that take the means apart: by language, and by the length of what answers a query."""

from __future__ import annotations

from jobs.evaluation.comparison import CEILING
from jobs.evaluation.report.words import Results
from jobs.report.html import Html, Inside, element, joined, paragraphs
from jobs.report.tables import Cell, Column, heat, table

FEW = 30
"""Queries below which a mean says little."""


def by_language(results: Results) -> Html | None:
    """A heat map for each set with several languages; None where there is none."""
    sets = {name: one for name, one in results["sets"].items() if one["languages"]}
    if not sets:
        return None
    return joined(
        [
            paragraphs(
                "The darker a cell, the higher its mean among those of the table. Below a language stands how many "
                f"queries it has: with fewer than {FEW}, a mean says little."
            ),
            *(
                joined([element("h3", name), heat_map(one["measure"], one["languages"], "language")])
                for name, one in sets.items()
            ),
        ]
    )


def by_length(results: Results) -> Html | None:
    """A table for each set whose answers have different lengths; None where there is none."""
    sets = {name: one for name, one in results["sets"].items() if len(one["lengths"]) > 1}
    if not sets:
        return None
    told = [
        "Queries in four groups of about the same size, by how long the documents are that answer them: the mean "
        "length of the relevant candidates, in characters. Queries without a relevant candidate are in no group."
    ]
    maps = []
    for name, one in sets.items():
        groups = {f"{group['from']:,.0f}–{group['to']:,.0f}": group for group in one["lengths"]}
        maps.append(element("div", element("h3", name), heat_map(one["measure"], groups, "length in characters")))
    return joined([paragraphs(*told), element("div", *maps, class_="charts")])


def heat_map(measure: str, groups: Results, what: str) -> Html:
    """Means by group and row, tinted by where they lie among all of the table but the best possible."""
    means = {name: {row: mean_of(value, measure) for row, value in one["rows"].items()} for name, one in groups.items()}
    inner = [value for rows in means.values() for row, value in rows.items() if row != CEILING]
    lowest, highest = min(inner), max(inner)
    columns = [Column("order", sortable=False)]
    columns += [
        Column(name, number=True, sortable=False, explained=f"{one['queries']:,}") for name, one in groups.items()
    ]
    rows: list[list[Cell | Inside]] = [
        [
            Cell(row, css="quiet" if row == CEILING else None),
            *(
                Cell(f"{rows[row]:.2f}", rows[row], "quiet" if row == CEILING else heat(rows[row], lowest, highest))
                for rows in means.values()
            ),
        ]
        for row in next(iter(means.values()))
    ]
    return table(f"{measure} by {what}, with the number of queries", columns, rows, css="heat")


def mean_of(value: float | dict[str, float], measure: str) -> float:
    """The mean of a row in a group: results have one measure of lengths, and all of languages."""
    return value[measure] if isinstance(value, dict) else value
