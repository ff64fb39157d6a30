"""The sections that say which order is better: over all sets, and on each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.evaluation.comparison import CEILING, FIRST_STAGE
from jobs.evaluation.report.published import comparable_figures
from jobs.evaluation.report.words import (
    Results,
    against_first_stage,
    best_of,
    difference_cell,
    interval,
    is_sure,
    mark,
    queries_of,
    signed,
    three,
)
from jobs.report.charts import interval_bar
from jobs.report.html import Html, Inside, element, joined
from jobs.report.tables import Cell, Column, table
from pipelines.evaluation.chance import RESAMPLES, SURE, shown

NAMED = 3
"""Models of which the first sentences say how sure they are; the leaderboard has all."""


def summary(results: Results) -> Html:
    """The sentences that stand first: who is best, by how much, and how sure that is."""
    sets, means = results["sets"], results["means"]
    best = max((row for row in means if row != CEILING), key=lambda row: means[row]["mean"])
    total = sum(one["queries"] for one in sets.values())
    over = f"{len(sets)} sets with {total:,} queries" if len(sets) > 1 else f"{total:,} queries of {next(iter(sets))}"
    what = "on average over the sets" if len(sets) > 1 else next(iter(sets.values()))["measure"]
    first = "" if best == FIRST_STAGE else f"; the {FIRST_STAGE}, the order in which they came, has "
    told: list[Inside] = [
        f"Over {over}, ",
        element("strong", best),
        f" has the candidates in the best order: {three(means[best]['mean'])} {what}, with a 95% interval of "
        f"{interval(means[best])}{first}{three(means[FIRST_STAGE]['mean']) if first else ''}. The best order that "
        f"these candidates allow has {three(means[CEILING]['mean'])}.",
    ]
    models = [row for row, system in results["systems"].items() if system["speed"] is not None]
    named = sorted(models, key=lambda row: -means[row]["mean"])[:NAMED]
    sure = element("ul", *(element("li", element("strong", row), sureness(results, row)) for row in named))
    sampled = any(one["queries"] < one["queries_in_all"] for one in sets.values())
    return joined(
        [
            element("p", joined(told)),
            sure if models else None,
            element("p", "Queries were drawn of each set, so the intervals are wider than those of all of them.")
            if sampled
            else None,
        ]
    )


def sureness(results: Results, row: str) -> str:
    """How a row differs from the first stage, and on how many sets that is sure."""
    sets: Mapping[str, Any] = results["sets"]
    [over_all] = [one for one in results["differences"] if one["to"] == row]
    if len(sets) == 1:
        [one] = sets.values()
        difference = against_first_stage(one, one["measure"], row) or over_all
        chance = "chance alone hardly makes that" if is_sure(difference) else "chance may have made that"
        told = f"{signed(difference['difference'])} against the {FIRST_STAGE}"
        return f": {told} (p {shown(difference['p_holm'])}, corrected by Holm): {chance}."
    found = [against_first_stage(one, one["measure"], row) for one in sets.values()]
    sure = [one["difference"] > 0 for one in found if one is not None and is_sure(one)]
    return (
        f": {signed(over_all['difference'])} against the {FIRST_STAGE} (p {shown(over_all['p_holm'])}); surely better "
        f"on {sure.count(True)} of {len(found)} sets, surely worse on {sure.count(False)}."
    )


def leaderboard(results: Results) -> Html:
    """A row for each order, and a column for each set with the measure that counts there."""
    sets: Mapping[str, Any] = results["sets"]
    several = len(sets) > 1
    over_all = {one["to"]: one for one in results["differences"]}
    columns = [Column("order", sortable=False)]
    columns += [Column("mean", number=True, explained="of the sets")] if several else []
    columns += [Column(name, number=True, explained=one["measure"]) for name, one in sets.items()]
    rows: list[list[Cell | Inside]] = []
    for row, mean in results["means"].items():
        css = "quiet" if row == CEILING else None
        cells: list[Cell | Inside] = [Cell(row, css=css)]
        if several:
            cells.append(measured(mean, mean["mean"] == best_of(results["means"]), over_all.get(row), css))
        for one in sets.values():
            head = {name: values[one["measure"]] for name, values in one["rows"].items()}
            difference = against_first_stage(one, one["measure"], row)
            cells.append(measured(head[row], head[row]["mean"] == best_of(head), difference, css))
        rows.append(cells)
    told = (
        f"Means over queries with their 95% intervals; bold is the best. ▲ is surely better than the {FIRST_STAGE}, ▼ "
        f"surely worse: p below {SURE} in a paired permutation test, corrected by Holm for the rows here."
    )
    mixed = len({one["measure"] for one in sets.values()}) > 1
    return joined(
        [
            table(told, columns, rows),
            element(
                "p",
                "The sets have different measures, each the one that is usual for it: the mean of these compares the "
                "rows, and is no number of its own.",
                class_="quiet",
            )
            if several and mixed
            else None,
        ]
    )


def measured(one: Mapping[str, float], best: bool, difference: Mapping[str, float] | None, css: str | None) -> Cell:
    """A mean with its interval and what is sure."""
    sign = mark(difference)
    content = joined([three(one["mean"]), " " if sign else None, sign, element("small", interval(one))])
    return Cell(content, one["mean"], css if css else "best" if best and one["mean"] > 0 else None)


def set_by_set(results: Results) -> Html:
    """Bars with whiskers for each set; its other measures, and the differences of any two rows, behind a title."""
    told = (
        "Bars are means, whiskers their 95% intervals. A dashed line is the best order that the candidates allow: what "
        f"the {FIRST_STAGE} did not find stays missed."
    )
    return joined([element("p", told), *(one_set(name, one, results) for name, one in results["sets"].items())])


def one_set(name: str, one: Results, results: Results) -> Html:
    """A set."""
    measure = one["measure"]
    head = {row: values[measure] for row, values in one["rows"].items()}
    ceiling = head[CEILING]["mean"]
    columns = [
        Column("order", sortable=False),
        Column(measure, number=True, sortable=False, explained="95% interval"),
        Column("", sortable=False),
        Column("against", number=True, sortable=False, explained=FIRST_STAGE),
    ]
    rows: list[list[Cell | Inside]] = []
    for row, value in head.items():
        if row == CEILING:
            continue
        bar = interval_bar(value["mean"], value["low"], value["high"], f"{row}: {three(value['mean'])}", most=ceiling)
        best = value["mean"] == best_of(head)
        difference = against_first_stage(one, measure, row)
        rows.append([row, measured(value, best, None, None), Cell(bar, css="chart"), difference_cell(difference)])
    more = element("summary", "All measures, and any two rows")
    return joined(
        [
            element("h3", name),
            element("p", f"{queries_of(one)}{found_of(one)}; best possible {three(ceiling)}", class_="quiet"),
            *(unanswered(system, count) for system, count in one["unanswered"].items() if count),
            table(None, columns, rows),
            published_beside(name, one, results),
            element("details", more, all_measures(one), any_two(one, measure)),
        ]
    )


def found_of(one: Results) -> str:
    """What is not measured, and how much of what is relevant is among the candidates, where the results say it."""
    found = one.get("first_stage", {}).get("found")
    left = f"; {one['unlabelled']:,} rows have no positive label" if one.get("unlabelled") else ""
    if one.get("without_list"):
        left += f"; {one['without_list']:,} queries have no candidates, and count 0"
    if found is None:
        return left
    if one.get("judged_by") == "answers":
        answered = one["queries"] - found["queries_without"]
        return f"{left}; {answered:,} of {one['queries']:,} questions have an answer among the candidates"
    return f"{left}; {found['relevant_found']:,} of {found['relevant']:,} relevant documents are among the candidates"


def unanswered(system: str, count: int) -> Html:
    """Says what counts 0 since there is no answer."""
    return element("p", element("strong", system), f": {count:,} list(s) have no scores; they count 0.")


def all_measures(one: Results) -> Html:
    """All measures of all rows."""
    measures = list(next(iter(one["rows"].values())))
    rows: list[list[Cell | Inside]] = [
        [row, *(measured(values[measure], False, None, None) for measure in measures)]
        for row, values in one["rows"].items()
    ]
    return table(
        "Means with 95% intervals", [Column("order", sortable=False), *(Column(m, number=True) for m in measures)], rows
    )


def any_two(one: Results, measure: str) -> Html:
    """The differences of any two rows."""
    columns = [Column("from"), Column("to"), Column("difference", number=True), Column("p", number=True)]
    columns.append(Column("p by Holm", number=True))
    rows: list[list[Cell | Inside]] = [
        [
            difference["from"],
            difference["to"],
            Cell(signed(difference["difference"]), difference["difference"]),
            Cell(shown(difference["p"]), difference["p"]),
            Cell(shown(difference["p_holm"]), difference["p_holm"], "best" if is_sure(difference) else None),
        ]
        for difference in one["differences"]
        if difference["measure"] == measure
    ]
    told = (
        f"Differences of mean {measure}: two-sided paired permutation tests, with all changes of sides up to 13 "
        f"queries, else {RESAMPLES:,} random ones; corrected by Holm for the rows that are compared with the "
        f"{FIRST_STAGE}, and apart from these for the other pairs"
    )
    return table(told, columns, rows)


def published_beside(name: str, one: Results, results: Results) -> Html | None:
    """Published figures of the same queries, candidates and measure."""
    found = comparable_figures(name, one, results["top_k"])
    if not found:
        return None
    rows: list[list[Cell | Inside]] = [
        [figure.system, Cell(f"{figure.value:.4g}", figure.value), figure.source] for figure in found
    ]
    told = "Published for the same queries and candidates, by the same measure"
    return table(told, [Column("system"), Column(one["measure"], number=True), Column("source")], rows)
