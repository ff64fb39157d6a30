"""The leaderboard as a Markdown table, for a model's card or a pull request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.evaluation.comparison import CEILING

ESCAPED = str.maketrans({"|": r"\|", "\n": " ", "\r": " "})


def leaderboard(results: Mapping[str, Any]) -> str:
    """A line for each set with its own measure, a column for each order; the best of a set is bold."""
    rows = [row for row in next(iter(results["sets"].values()))["rows"] if row != CEILING]
    lines = [["set", "measure", *rows, CEILING], ["---", "---", *["---:"] * (len(rows) + 1)]]
    for name, one in results["sets"].items():
        measure = one["measures"][0]
        means = {row: one["rows"][row][measure]["mean"] for row in [*rows, CEILING]}
        best = f"{max(means[row] for row in rows):.3f}"
        cells = [f"**{shown}**" if (shown := f"{means[row]:.3f}") == best else shown for row in rows]
        lines.append([f"{name} ({queries_of(one)})", measure, *cells, f"{means[CEILING]:.3f}"])
    return "".join(f"| {' | '.join(cell.translate(ESCAPED) for cell in line)} |\n" for line in lines)


def queries_of(one: Mapping[str, Any]) -> str:
    """How many queries were measured, and of how many."""
    drawn = one["queries"] < one["queries_in_all"]
    return f"{one['queries']:,} of {one['queries_in_all']:,}" if drawn else f"{one['queries']:,}"
