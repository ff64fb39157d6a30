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
    three,
)
from jobs.report.charts import interval_bar
from jobs.report.html import Html, Inside, element, joined, paragraphs
from jobs.report.tables import Cell, Column, table


def summary(results: Results) -> Html:
    """The sentences that stand first: who is best, by how much, and how sure that is."""
    sets, means = results["sets"], results["means"]
    orders = {row: one for row, one in means.items() if row not in (FIRST_STAGE, CEILING)}
    best = max(orders, key=lambda row: orders[row]["mean"])
    total = sum(one["queries"] for one in sets.values())
    over = f"{len(sets)} sets with {total:,} queries" if len(sets) > 1 else f"{total:,} queries of {next(iter(sets))}"
    what = "on average" if len(sets) > 1 else next(iter(sets.values()))["measure"]
    sampled = any(one["queries"] < one["queries_in_all"] for one in sets.values())
    told: list[Inside] = [
        f"Over {over}, ",
        element("strong", best),
        f" orders the candidates best: {three(orders[best]['mean'])} {what}, with a 95% interval of "
        f"{interval(orders[best])}. ",
        f"The {FIRST_STAGE}, the order in which they came, has {three(means[FIRST_STAGE]['mean'])}; the best order "
        f"that these candidates allow has {three(means[CEILING]['mean'])}.",
    ]
    return paragraphs(
        joined(told),
        sure_sets(results, best) if len(sets) > 1 else sure_alone(results, best),
        "These are samples: queries were drawn of each set, so the intervals are wider than they have to be."
        if sampled
        else None,
    )


def sure_sets(results: Results, best: str) -> str:
    """On how many sets the best row differs from the first stage for sure."""
    found = [against_first_stage(one, one["measure"], best) for one in results["sets"].values()]
    sure = [one["difference"] > 0 for one in found if one is not None and is_sure(one)]
    return (
        f"On {sure.count(True)} of {len(found)} sets it is surely better than the {FIRST_STAGE}, on "
        f"{sure.count(False)} surely worse; on {len(found) - len(sure)} chance may have made the difference."
    )


def sure_alone(results: Results, best: str) -> str:
    """The same of the only set."""
    [one] = results["sets"].values()
    difference = against_first_stage(one, one["measure"], best)
    if difference is None:
        return ""
    sure = "chance alone hardly makes that" if is_sure(difference) else "chance may have made that"
    told = f"{difference['difference']:+.3f} has p = {difference['p_holm']:.3f}, corrected by Holm"
    return f"The difference of {told}: {sure}."


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
        "surely worse: p below 0.05 in a paired permutation test, corrected by Holm."
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
    """Bars with whiskers for each set, its other measures, and the differences of any two rows."""
    return joined([one_set(name, one, results) for name, one in results["sets"].items()])


def one_set(name: str, one: Results, results: Results) -> Html:
    """A set."""
    measure = one["measure"]
    head = {row: values[measure] for row, values in one["rows"].items()}
    ceiling = head[CEILING]["mean"]
    columns = [
        Column("order", sortable=False),
        Column(measure, number=True, explained="95% interval"),
        Column("", sortable=False),
        Column("against", explained=FIRST_STAGE, number=True),
    ]
    rows: list[list[Cell | Inside]] = []
    for row, value in head.items():
        if row == CEILING:
            continue
        bar = interval_bar(value["mean"], value["low"], value["high"], f"{row}: {three(value['mean'])}", most=ceiling)
        best = value["mean"] == best_of(head)
        difference = against_first_stage(one, measure, row)
        rows.append([row, measured(value, best, None, None), Cell(bar, css="chart"), difference_cell(difference)])
    missed = (
        f"The dashed line is the best order that the candidates allow, {three(ceiling)}: what the {FIRST_STAGE} "
        "did not find stays missed."
    )
    return joined(
        [
            element("h3", name),
            element("p", f"{queries_of(one).capitalize()}. {missed}", class_="quiet"),
            *(unanswered(system, count) for system, count in one["unanswered"].items() if count),
            table(None, columns, rows),
            published_beside(name, one, results),
            opened("All measures", all_measures(one)),
            opened("Any two rows", any_two(one, measure)),
        ]
    )


def unanswered(system: str, count: int) -> Html:
    """Says what counts 0 since there is no answer."""
    return element("p", element("strong", system), f": {count:,} list(s) have no scores; they count 0.")


def opened(title: str, inside: Html) -> Html:
    """What stands behind a title until it is opened."""
    return element("details", element("summary", title), inside)


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
            Cell(f"{difference['difference']:+.3f}", difference["difference"]),
            Cell(three(difference["p"]), difference["p"]),
            Cell(three(difference["p_holm"]), difference["p_holm"], "best" if is_sure(difference) else None),
        ]
        for difference in one["differences"]
        if difference["measure"] == measure
    ]
    told = f"Differences of mean {measure}: paired permutation tests with 10,000 random changes of sides, two-sided"
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
