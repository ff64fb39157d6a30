"""The report of a comparison: one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.agreement.findings import BINS, Scores
from jobs.agreement.screen import TITLES
from jobs.agreement.texts import ShownDocument, ShownList
from jobs.report.charts import cloud, even_axis, histogram
from jobs.report.html import Html, element, joined, paragraphs
from jobs.report.page import Section, page
from jobs.report.tables import Cell, Column, table

SHOWN_BINS = 20
EXPLAINED = {
    "kendall_tau": "1: the same order; 0: no relation; -1: the reverse",
    "rbo": "0 to 1; the first places count most (persistence 0.9)",
    "overlap@1": "lists with the same document first",
    "overlap@3": "share of the first three that both have",
    "overlap@10": "share of the first ten that both have",
}


def report_of(results: Mapping[str, Any], scores: Scores, movers: Sequence[ShownList]) -> str:
    """The text of the file."""
    first = results["measures"]["overlap@1"]
    lede = paragraphs(
        f"A: {results['run_a']['path']}",
        f"B: {results['run_b']['path']}",
        f"Of {results['lists']:,} lists, {first['mean']:.1%} have the same document in the first place in both runs."
        if first["lists"]
        else "No list is ranked in both runs.",
    )
    sections = [Section("How much the orders agree", agreement(results))]
    if results["scores"]["documents"]:
        sections += [Section("How scores moved", moved(results, scores))]
        sections += [Section("Thresholds", thresholds(results["scores"]["thresholds"]))]
    if movers:
        sections.append(Section("Lists that changed most", joined(map(mover, movers))))
    sections.append(Section("How this was made", made(results)))
    return page("What changes between two runs", sections, lede)


def agreement(results: Mapping[str, Any]) -> Html:
    """The measures over all lists."""
    columns = [
        Column("measure", sortable=False),
        *(Column(name, number=True, sortable=False) for name in ("mean", "5%", "median", "95%", "lists")),
    ]
    rows = []
    for name, spread in results["measures"].items():
        title = joined([TITLES.get(name, name), element("small", EXPLAINED[name])])
        values = [f"{spread[one]:.3f}" if spread["lists"] else "" for one in ("mean", "q05", "median", "q95")]
        rows.append([title, *values, f"{spread['lists']:,}"])
    return table("Over lists; 5% of the lists lie below the value in the column 5%", columns, rows)


def moved(results: Mapping[str, Any], scores: Scores) -> Html:
    """Scores of one run against those of the other."""
    found = results["scores"]
    correlation = "" if found["correlation"] is None else f" Their correlation is {found['correlation']:.3f}."
    told = (
        f"The mean score of {found['documents']:,} documents goes from {found['mean_a']:.3f} to {found['mean_b']:.3f}; "
        f"a score moves by {found['mean_absolute_shift']:.3f} in the mean.{correlation}"
    )
    x, y = even_axis("score in A", 0, 1), even_axis("score in B", 0, 1)
    some = f"{len(scores.points):,} documents, drawn of {found['documents']:,}. On the line both runs say the same."
    charts = element(
        "div",
        cloud("Each document's score in both runs", some, scores.points, x, y),
        histogram(
            "Scores of all documents",
            "The share of the documents by their score: A upwards, B downwards.",
            even_axis("score", 0, 1),
            [number / SHOWN_BINS for number in range(SHOWN_BINS + 1)],
            ("A", shares(scores.histogram_a)),
            ("B", shares(scores.histogram_b)),
        ),
        class_="charts",
    )
    return joined([paragraphs(told), charts])


def shares(counts: Any) -> list[float]:
    """Shares by the bins that are shown."""
    sums = counts.reshape(SHOWN_BINS, BINS // SHOWN_BINS).sum(axis=1)
    return [float(one) for one in sums / max(1, sums.sum())]


def thresholds(found: Sequence[Mapping[str, Any]]) -> Html:
    """What a threshold on the score lets through in each run."""
    columns = [
        Column("threshold", sortable=False),
        *(Column(name, number=True, sortable=False) for name in ("in A", "in B", "only in A", "only in B")),
        Column("as many in B at", number=True, sortable=False),
    ]
    rows = [
        [
            f"{one['threshold']:g}",
            *(f"{one[name]:.1%}" for name in ("share_a", "share_b", "only_a", "only_b")),
            f"{one['same_share_in_b']:.3f}",
        ]
        for one in found
    ]
    told = (
        "Whoever keeps documents from a threshold on has to choose a new one with another model. The last column says "
        "which threshold on B keeps as many documents as this one does on A."
    )
    return joined([paragraphs(told), table("Share of the documents that reach a threshold", columns, rows)])


def mover(one: ShownList) -> Html:
    """A list with both orders side by side."""
    told = f"rank-biased overlap {one.rbo:.3f}, largest change of a score {one.shift:.3f}; {one.place} of A"
    return element(
        "details",
        element("summary", one.query or "(no query in the output)"),
        paragraphs(told),
        element("div", order("A", one.first), order("B", one.second), class_="pair"),
    )


def order(title: str, documents: Sequence[ShownDocument]) -> Html:
    """The first documents of one run."""
    items = [
        element(
            "li",
            element("small", joined([f"{one.score:.3f}", f" {one.id}" if one.id else None, f", {change(one)}"])),
            element("p", one.text) if one.text is not None else None,
        )
        for one in documents
    ]
    return element("div", element("h4", title), element("ol", *items, class_="ranks"))


def change(one: ShownDocument) -> str:
    """What the other run says of a document."""
    if one.other_rank is None:
        return "not in the other run"
    return "the same place" if one.other_rank == one.rank else f"place {one.other_rank} in the other run"


def made(results: Mapping[str, Any]) -> Html:
    """What was compared, and what has to be known about it."""
    columns = [Column("", sortable=False), Column("A", sortable=False), Column("B", sortable=False)]
    runs = results["run_a"], results["run_b"]
    rows: list[list[Cell | str | None]] = [
        [title, *(Cell(str(value(run)), css="text") for run in runs)]
        for title, value in (
            ("output", lambda run: run["path"]),
            ("begun", lambda run: run["created"]),
            ("fingerprint", lambda run: run["fingerprint"]["hash"]),
            ("parts", lambda run: f"{run['parts']:,} of {run['parts_planned']:,}"),
        )
    ]
    told = [*(f"Differs: {one}" for one in results["changed_settings"]), *results["careful"]]
    notes = element("ul", *(element("li", one) for one in told)) if told else None
    return joined([table("The two runs", columns, rows), notes])
