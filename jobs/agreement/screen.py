"""What `crossray compare` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.screen import say

TITLES = {"kendall_tau": "Kendall's tau", "rbo": "rank-biased overlap"}
"""What people call measures; overlaps are called as they are."""


def print_comparison(console: Console, results: Mapping[str, Any]) -> None:
    """Prints how much the runs agree, and how scores moved."""
    for told in results["changed_settings"]:
        say(console, told, "differs: ", "cyan")
    for told in results["careful"]:
        say(console, told, "careful: ", "yellow")
    table = Table(title=Text(f"{results['lists']:,} lists"), title_justify="left")
    for name in ("", "mean", "5%", "median", "95%"):
        table.add_column(name, justify="left" if not name else "right")
    for name, spread in results["measures"].items():
        if spread["lists"]:
            values = (f"{spread[one]:.3f}" for one in ("mean", "q05", "median", "q95"))
            table.add_row(TITLES.get(name, name), *values)
    console.print(table)
    scores = results["scores"]
    if not scores["documents"]:
        return
    shift, low, high = (scores["shift_quantiles"][share] for share in ("0.5", "0.05", "0.95"))
    told = f"{scores['documents']:,} documents: {scores['mean_a']:.3f} -> {scores['mean_b']:.3f} in the mean; B - A is "
    told += f"{shift:+.3f} in the middle, and in 90% from {low:+.3f} to {high:+.3f}"
    say(console, told, "scores: ", "")
    shown = Table(title=Text("Documents that reach a threshold"), title_justify="left")
    for name in ("threshold", "in A", "in B", "only in A", "only in B", "as many in B at"):
        shown.add_column(name, justify="right")
    for one in scores["thresholds"]:
        shares = (f"{one[name]:.1%}" for name in ("share_a", "share_b", "only_a", "only_b"))
        shown.add_row(f"{one['threshold']:g}", *shares, f"{one['same_share_in_b']:.3f}")
    console.print(shown)
