"""The section on quality against speed, with the memory that it took."""

from __future__ import annotations

from jobs.evaluation.comparison import FIRST_STAGE
from jobs.evaluation.report.words import Results, gigabytes, three
from jobs.report.charts import Point, even_axis, logarithmic_axis, scatter
from jobs.report.html import Html, Inside, element, joined, paragraphs
from jobs.report.tables import Cell, Column, table

MOMENT = 0.05
"""Seconds in which the announcement of jina-reranker-v2 counts documents."""


def speed(results: Results) -> Html | None:
    """A plot and a table; None without a model."""
    models = {row: one["speed"] for row, one in results["systems"].items() if one["speed"] is not None}
    if not models:
        return None
    known = {row: one for row, one in models.items() if one["sets"]}
    columns = [
        Column("model", sortable=False),
        Column("pairs/s", number=True),
        Column("in 50 ms", number=True, explained="documents"),
        Column("seconds", number=True),
        Column("pairs", number=True),
        Column("memory", number=True, explained="of a replica, at most"),
        Column("replicas"),
        Column("scored"),
    ]
    rows = [speed_row(row, one, len(results["sets"])) for row, one in models.items()]
    told = paragraphs(
        "Pairs of query and document per second while the replicas scored: reading, tokenizing and writing are in it, "
        "loading the model is not. Memory is the most that one process had at once, with its libraries.",
        "A model that was scored in several runs, or whose scores were there already, has no speed here. Speeds "
        "compare only where processor and replicas are the same, and nothing else ran beside.",
    )
    return joined([told, plot_of(results, known) if known else None, table("Speed and memory", columns, rows)])


def speed_row(row: str, one: Results, sets: int) -> list[Cell | Inside]:
    """What is known of one model."""
    if not one["sets"]:
        return [row, *[Cell("–", -1.0)] * 5, "", Cell(f"no speed: {one['why_not']}", css="quiet")]
    gpu = f" + {gigabytes(one['peak_gpu_memory'])} GPU" if one["peak_gpu_memory"] else ""
    tokens = one["tokens"] / one["pairs"]
    part = "" if one["sets"] == sets else f", {one['sets']} of {sets} sets; others: {one['why_not']}"
    return [
        row,
        Cell(f"{one['pairs_per_second']:,.1f}", one["pairs_per_second"]),
        Cell(f"{one['pairs_per_second'] * MOMENT:,.1f}", one["pairs_per_second"]),
        Cell(f"{one['seconds']:,.1f}", one["seconds"]),
        Cell(joined([f"{one['pairs']:,}", element("small", f"{tokens:,.0f} tokens each")]), one["pairs"]),
        Cell(gigabytes(one["peak_memory"]) + gpu if one["peak_memory"] else "–", one["peak_memory"]),
        replicas(one),
        joined([element("span", one["started"].partition("T")[0], class_="whole"), part]),
    ]


def replicas(one: Results) -> str:
    """What computed; small sets keep fewer replicas busy than there are."""
    cpus, gpus = (" or ".join(f"{count:g}" for count in one[name]) for name in ("cpus_each", "gpus_each"))
    each = f"{cpus} CPU" if gpus == "0" else f"{cpus} CPU, {gpus} GPU"
    count = " to ".join(dict.fromkeys([str(one["replicas"][0]), str(one["replicas"][-1])]))
    return f"{count} with {each} each, {' or '.join(filter(None, one['processor'])) or 'processor unknown'}"


def plot_of(results: Results, known: Results) -> Html:
    """Quality against speed."""
    means = results["means"]
    several = len(results["sets"]) > 1
    name = "mean of the sets" if several else next(iter(results["sets"].values()))["measure"]
    points = [
        Point(row, one["pairs_per_second"], means[row]["mean"], means[row]["low"], means[row]["high"])
        for row, one in known.items()
    ]
    first = means[FIRST_STAGE]["mean"]
    lowest, highest = (
        min(first, *(means[row]["low"] for row in known)),
        max(first, *(means[row]["high"] for row in known)),
    )
    speeds = [point.x for point in points]
    described = "; ".join(f"{point.label}: {point.x:,.1f} pairs/s, {three(point.y)}" for point in points)
    return scatter(
        "Quality against speed",
        f"{described}. The {FIRST_STAGE} has {three(first)}.",
        points,
        logarithmic_axis("pairs/s", min(speeds), max(speeds)),
        even_axis(name, max(0.0, lowest - 0.02), min(1.0, highest + 0.02)),
        level=(FIRST_STAGE, first),
    )
