"""The sections on scores: how those of relevant and other pairs lie, and whether they are probabilities."""

from __future__ import annotations

from typing import Any

from jobs.evaluation.report.words import Results, three
from jobs.report.charts import Bin, even_axis, histogram, reliability
from jobs.report.html import Html, Inside, element, joined, paragraphs
from jobs.report.tables import Cell, Column, table


def distributions(results: Results) -> Html | None:
    """A histogram for each model; None without one."""
    models = scored_models(results)
    if not models:
        return None
    told = paragraphs(
        "The further apart the two kinds lie, the better a single threshold can tell them. Each kind is drawn in "
        "shares of its own, since relevant pairs are few. Pairs that nobody graded count as not relevant, so some of "
        "the downward bars on the right are documents that would be right.",
        "A logit is what a model says before the sigmoid: 0 is a relevance_score of 0.5, 2 is 0.88, -2 is 0.12, unless "
        "the model has a calibration.json that shifts them.",
    )
    charts = element("div", *(score_histogram(row, one) for row, one in models.items()), class_="charts")
    return joined([told, charts])


def scored_models(results: Results) -> dict[str, Any]:
    """What is known of the scores of each model that gave some."""
    found = {row: one["scores"] for row, one in results["systems"].items() if "scores" in one}
    return {row: one for row, one in found.items() if one["pairs"]}


def score_histogram(row: str, one: Results) -> Html:
    """The histogram of one model, with its numbers in a table."""
    bars = one["histogram"]
    edges = bars["edges"]
    relevant, others = (shares(bars[name]) for name in ("relevant", "others"))
    unit = "logit" if "calibration" in one else "score"
    irrelevant = one["pairs"] - one["relevant"]
    chart = histogram(
        row,
        f"Shares of {one['relevant']:,} relevant and {irrelevant:,} other pairs by {unit}, from {edges[0]:.2f} to "
        f"{edges[-1]:.2f}. The table below has the numbers.",
        even_axis(unit, edges[0], edges[-1]),
        edges,
        (f"relevant ({one['relevant']:,})", relevant),
        (f"not relevant ({irrelevant:,})", others),
    )
    rows: list[list[Cell | Inside]] = [
        [f"{low:.2f}", f"{high:.2f}", f"{hits:,}", f"{misses:,}"]
        for low, high, hits, misses in zip(edges[:-1], edges[1:], bars["relevant"], bars["others"], strict=True)
        if hits or misses
    ]
    columns = [Column(name, number=True, sortable=False) for name in ("from", "to", "relevant", "not relevant")]
    numbers = element("details", element("summary", "The numbers"), table(f"{row}: pairs by {unit}", columns, rows))
    return element("div", chart, numbers)


def shares(counts: list[int]) -> list[float]:
    """Counts as shares of their sum."""
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def probabilities(results: Results) -> Html | None:
    """A reliability diagram for each model whose scores are meant as probabilities; None without one."""
    models = {row: one["calibration"] for row, one in scored_models(results).items() if "calibration" in one}
    if not models:
        return None
    told = paragraphs(
        "If a model says 0.8 of many pairs, 8 of 10 of them should be relevant. Each dot is a bin of pairs with about "
        "the same relevance_score: where its share of relevant pairs lies below the dashed line, the model promises "
        "too much, above it too little. Larger dots have more pairs; whiskers are 95% intervals (Wilson 1927).",
        "The expected calibration error (ECE) is the mean distance of the dots from the line, each weighted by its "
        "pairs: the sum over bins of n_bin / n · |share relevant - mean relevance_score|, with 15 bins of equal width "
        "(Naeini et al. 2015; Guo et al. 2017, “On Calibration of Modern Neural Networks”).",
        "All candidates count, and those that nobody graded as not relevant: so this is how far scores can be believed "
        "among such candidates, with as many relevant ones as here.",
    )
    charts = element("div", *(diagram(row, one) for row, one in models.items()), class_="charts")
    return joined([told, charts, errors_by_set(results, models) if len(results["sets"]) > 1 else None])


def diagram(row: str, one: Results) -> Html:
    """The reliability diagram of one model, with its numbers in a table."""
    error = one["expected_calibration_error"]
    bins = [
        Bin(each["probability"], each["relevant"], each["count"], each["low"], each["high"]) for each in one["bins"]
    ]
    chart = reliability(
        row,
        f"Expected calibration error {three(error)}. The table below has the numbers.",
        even_axis("relevance_score", 0.0, 1.0),
        even_axis("share relevant", 0.0, 1.0),
        bins,
    )
    rows: list[list[Cell | Inside]] = [
        [three(each.said), three(each.seen), f"{each.low:.3f}–{each.high:.3f}", f"{each.count:,}"] for each in bins
    ]
    columns = [
        Column(name, number=True, sortable=False)
        for name in ("relevance_score", "share relevant", "95% interval", "pairs")
    ]
    numbers = element("details", element("summary", "The numbers"), table(f"{row}: bins of pairs", columns, rows))
    return element("div", chart, element("p", "ECE ", element("strong", three(error))), numbers)


def errors_by_set(results: Results, models: Results) -> Html:
    """The calibration error of each model on each set."""
    sets = results["sets"]
    rows: list[list[Cell | Inside]] = []
    for row, over_all in models.items():
        errors = [one["systems"][row]["scores"].get("calibration") for one in sets.values()]
        cells = [Cell("–") if one is None else error_cell(one) for one in errors]
        rows.append([row, error_cell(over_all), *cells])
    columns = [Column("model", sortable=False), Column("all sets", number=True)]
    columns += [Column(name, number=True) for name in sets]
    return table("Expected calibration error by set", columns, rows)


def error_cell(one: Results) -> Cell:
    """A calibration error."""
    error = one["expected_calibration_error"]
    return Cell(three(error), error)
