"""What `crossray calibrate` prints."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.calibration.fit import Fit
from jobs.calibration.labels import LabelledLists
from jobs.screen import say
from pipelines.evaluation.calibration import reliability

TENTHS = 10
FEW = 50
"""Pairs of one kind, below which two other numbers would fit about as well."""


def print_labels(console: Console, found: LabelledLists) -> None:
    """Says what there is to fit on, and what is left out."""
    pairs = sum(len(one.relevant) for one in found.lists)
    relevant = sum(sum(one.relevant) for one in found.lists)
    drawn = f", drawn of {len(found.seen):,}" if found.queries < len(found.seen) else ""
    share = relevant / pairs
    console.print(
        f"{pairs:,} labelled pairs of {found.queries:,} queries{drawn}; {share:.1%} are relevant", soft_wrap=True
    )
    if min(relevant, pairs - relevant) < FEW:
        few = "relevant" if relevant <= pairs - relevant else "not relevant"
        say(console, f"only {min(relevant, pairs - relevant):,} pairs are {few}: a fit on so few says little", "note: ")
    for reason, rows in found.bad.counts.items():
        say(console, f"{rows:,} row(s) are left out: {reason}", "note: ")
    for example in found.bad.examples[:3]:
        say(console, example, "  ")
    for path, why in found.unreadable.items():
        say(console, f"{path}: {why}", "cannot be read: ")


def print_fit(console: Console, fit: Fit, relevant: np.ndarray) -> None:
    """Prints how often scores came true before and after, tenth by tenth."""
    table = Table(title=Text("How many pairs of each score are relevant"), title_justify="left")
    table.add_column("score", no_wrap=True)
    for name in ("before", "after"):
        table.add_column(f"pairs {name}", justify="right")
        table.add_column(f"relevant {name}", justify="right")
    before, after = (by_tenth(one, relevant) for one in (fit.before, fit.after))
    for tenth in sorted(before.keys() | after.keys()):
        cells = [cell for one in (before, after) for cell in one.get(tenth, ("", ""))]
        table.add_row(f"{tenth / TENTHS:.1f}–{(tenth + 1) / TENTHS:.1f}", *cells)
    console.print(table)
    error_before, error_after = fit.errors(relevant)
    say(
        console,
        f"{error_before:.3f} before, {error_after:.3f} after; each half of the queries is measured with what the other "
        "half gives",
        "expected calibration error: ",
    )
    if error_after >= error_before:
        say(console, "the fit makes scores no truer than they were; they may be right as they are", "note: ")


def by_tenth(said: np.ndarray, relevant: np.ndarray) -> dict[int, tuple[str, str]]:
    """For each tenth of 0..1 how many pairs there are, and which share of them is relevant."""
    bins = reliability(said, relevant, TENTHS)
    tenths = np.unique(np.clip(np.ceil(said * TENTHS).astype(int) - 1, 0, TENTHS - 1))
    return {int(tenth): (f"{one.count:,}", f"{one.relevant:.3f}") for tenth, one in zip(tenths, bins, strict=True)}
