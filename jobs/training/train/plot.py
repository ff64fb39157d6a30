"""Draws the learning curve, where matplotlib is installed."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from jobs import storage
from jobs.screen import say
from jobs.training.train.paths import RunFiles
from pipelines.errors import missing_packages


def write_plot(output: RunFiles, result: dict[str, Any], console: Console) -> None:
    """Writes curve.png: the loss, and what the validations measured, over the steps."""
    try:
        import matplotlib  # optional: the extra `train`
    except ImportError:
        why = missing_packages("curve.png", "matplotlib")
        say(console, f"{why}; the figures are in curve.csv", "no plot: ", "yellow")
        return
    matplotlib.use("agg")
    from matplotlib.figure import Figure

    history = result["history"]
    figure = Figure(figsize=(8, 4), layout="constrained")
    loss = figure.subplots()
    lines = history["lines"]
    loss.plot([int(line[0]) for line in lines], [float(line[1]) for line in lines], color="C0", marker=".")
    loss.set_xlabel("step")
    loss.set_ylabel("loss", color="C0")
    order = loss.twinx()
    validations = history["validations"]
    order.plot([one["step"] for one in validations], [one["value"] for one in validations], color="C1", marker="o")
    order.set_ylabel(f"validation {result['measure']}", color="C1")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    storage.store_of(output.plot).write(output.plot, content.getvalue())
