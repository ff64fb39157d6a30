"""How the report writes numbers, rows and what is sure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.evaluation.comparison import CEILING, FIRST_STAGE
from jobs.report.html import Html, element, joined
from jobs.report.tables import Cell
from pipelines.evaluation.chance import SURE, shown

Results = Mapping[str, Any]
"""What `results.json` holds, or a part of it."""


def three(value: float) -> str:
    """A measure."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """A difference, with a minus sign as wide as the plus."""
    return f"{value:+.3f}".replace("-", "−")


def interval(one: Mapping[str, float]) -> str:
    """An interval in numbers; in words where one query, or many that are all alike, say nothing of chance."""
    return "no spread" if one["low"] == one["high"] else f"{one['low']:.3f}–{one['high']:.3f}"


def is_sure(difference: Mapping[str, float] | None) -> bool:
    """Whether chance alone hardly makes such a difference."""
    return difference is not None and difference["p_holm"] < SURE


def mark(difference: Mapping[str, float] | None) -> Html | None:
    """The sign of a difference that is sure, with words for those who hear it."""
    if difference is None or not is_sure(difference):
        return None
    better = difference["difference"] > 0
    told = f"surely {'better' if better else 'worse'} than the {FIRST_STAGE}"
    sign = element("span", "▲" if better else "▼", aria_hidden="true")
    return element(
        "span", sign, element("span", f" {told}", class_="unseen"), class_="good" if better else "bad", title=told
    )


def against_first_stage(results: Results, measure: str, row: str) -> Mapping[str, float] | None:
    """The difference of a row to the first stage on a set; None for those that have none."""
    for one in results["differences"]:
        if (one["measure"], one["from"], one["to"]) == (measure, FIRST_STAGE, row):
            return dict(one)
    return None


def difference_cell(difference: Mapping[str, float] | None) -> Cell:
    """A difference with its p-value."""
    if difference is None:
        return Cell("", 0.0)
    told = f"{signed(difference['difference'])} "
    p = element("small", f"p {shown(difference['p_holm'])}")
    return Cell(joined([told, mark(difference), p]), difference["difference"])


def best_of(results: Mapping[str, Mapping[str, float]]) -> float:
    """The highest mean of the rows that are orders of something, and not the best possible."""
    return max(one["mean"] for row, one in results.items() if row != CEILING)


def queries_of(results: Results) -> str:
    """How many queries, and of how many they are drawn."""
    told = f"{results['queries']:,} queries"
    drawn = results["queries"] < results["queries_in_all"]
    return f"{told}, drawn of {results['queries_in_all']:,}" if drawn else told


def gigabytes(count: int) -> str:
    """Bytes, as people say them."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
