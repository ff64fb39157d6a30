"""The section that says how a report was made, so that another can make it again."""

from __future__ import annotations

from typing import Any

from jobs.evaluation.report.words import Results, queries_of
from jobs.report.html import Html, Inside, element, joined
from jobs.report.tables import Cell, Column, table


def how_it_was_made(results: Results) -> Html:
    """Command, versions, models and sets."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    drawn = results["queries_asked_for"]
    facts: dict[str, Inside] = {
        "Command": element("code", results["command"]),
        "Date": results["created"],
        "Queries": "all that have a relevant document"
        if drawn is None
        else f"at most {drawn:,} of each set, drawn by a fixed seed",
        "Candidates": f"the first {results['top_k']:,} of each query",
        "Measures": f"{', '.join(results['measures'])}, by ir_measures, whose numbers are trec_eval's",
        "Intervals": "95%, by the percentile bootstrap over queries, 10,000 draws with a fixed seed",
        "Versions": versions,
        "Processor": results["processor"] or "unknown",
    }
    told = element("dl", *(joined([element("dt", name), element("dd", fact)]) for name, fact in facts.items()))
    return joined([told, element("h3", "Models"), models(results), element("h3", "Sets"), sets(results)])


def models(results: Results) -> Html:
    """What identifies each model."""
    rows: list[list[Cell | Inside]] = []
    for row, system in results["systems"].items():
        found: dict[str, Any] = system["models"] or {"": {}}
        for name, one in found.items():
            what = row if len(found) < 2 else f"{row}: {name}"
            files = one.get("files")
            about = [
                one.get("layout"),
                one.get("dtype"),
                f"max_length {one['max_length']}" if one.get("max_length") else None,
                f"analyzer {system['analyzer']}" if "analyzer" in system else None,
            ]
            rows.append(
                [
                    what,
                    system["kind"],
                    element("code", files[:16]) if files else "–",
                    element("code", one["hash"][:16]) if one.get("hash") else "–",
                    ", ".join(part for part in about if part) or "–",
                ]
            )
    columns = [
        Column("row"),
        Column("kind"),
        Column("files", explained="SHA-256 begins"),
        Column("fingerprint", explained="begins"),
        Column("settings"),
    ]
    return table("The whole digests are in results.json", columns, rows)


def sets(results: Results) -> Html:
    """Queries of each set, and what is left out of it."""
    columns = [Column("set"), Column("queries"), Column("measure"), Column("candidates"), Column("judged by")]
    columns.append(Column("lines left out", number=True))
    rows: list[list[Cell | Inside]] = [
        [
            name,
            queries_of(one),
            one["measure"],
            candidates_of(one),
            one.get("judged_by", "qrels"),
            Cell(f"{one['problems']:,}", one["problems"]),
        ]
        for name, one in results["sets"].items()
    ]
    problems = [
        element(
            "details",
            element("summary", f"{name}: {one['problems']:,} line(s) left out"),
            element("ul", *(element("li", problem) for problem in one["first_problems"])),
            element("p", "The others are like these, and only counted.", class_="quiet")
            if one["problems"] > len(one["first_problems"])
            else None,
        )
        for name, one in results["sets"].items()
        if one["problems"]
    ]
    return joined([table(None, columns, rows), *problems])


def candidates_of(one: Results) -> str:
    """Where the candidates of a set come from."""
    stage = one.get("first_stage", {})
    words = f", analyzer {stage['analyzer']}" if "analyzer" in stage else ""
    return f"found here, by {stage['by']}{words}" if "by" in stage else "came with the set"
