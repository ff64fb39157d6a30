"""The driver of `crossray compare`: two outputs -> the rows that both have -> what is alike, and what is not."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from jobs import storage
from jobs.agreement.findings import Findings
from jobs.agreement.lists import Unranked, lists_of
from jobs.agreement.matching import Matched, match
from jobs.agreement.report import report_of
from jobs.agreement.runs import Run, changed_settings, check_comparable, described, is_of_lists, read_run
from jobs.agreement.screen import print_comparison
from jobs.agreement.settings import CompareSettings
from jobs.agreement.texts import shown
from jobs.errors import RefusedError
from jobs.output.directory import check_no_job, make_output
from pipelines.errors import ConfigError, missing_packages

REPORT, RESULTS, LISTS = "report.html", "results.json", "lists.parquet"
VALUES = {"null": "have no", "twice": "share a"}
"""What is wrong with a value of the key, as a sentence says it."""


def compare(settings: CompareSettings, console: Console | None = None) -> dict[str, Any]:
    """Compares two runs, prints what is found, and returns what `results.json` holds.

    Raises ConfigError for runs that cannot be compared, RefusedError for an --output that holds something else,
    UnreadableFileError for a damaged part, OSError.
    """
    console = console or Console()
    check_scipy()
    first, second = read_run(settings.first, "RUN_A"), read_run(settings.second, "RUN_B")
    check_comparable(first, second, settings.key)
    output = None
    if settings.output is not None:
        output = storage.absolute(settings.output, "--output")
        check_no_job(output, "--output")
        check_own(output)
        make_output(output, "--output")
    matched = match(first, second, settings.key)
    if not matched.rows.num_rows:
        values = ", ".join(f"{rows:,} row(s) {VALUES[what]} value" for what, rows in matched.unusable.items())
        told = f" (of {settings.key}: {values})" if values else ""
        raise ConfigError(
            f"the runs have no row in common{told}; give --key COLUMN, a column that says which row it is"
        )
    unranked, findings = Unranked(), Findings(settings.movers, last_place(first, second))
    by_id = settings.key is not None
    for pair in lists_of(first, second, matched.rows, unranked, by_id=by_id, sample=settings.sample):
        findings.add(pair)
    results: dict[str, Any] = {
        "run_a": described(first),
        "run_b": described(second),
        "changed_settings": changed_settings(first, second),
        "careful": warnings(first, second, matched, unranked, settings),
        "rows": {"both": matched.rows.num_rows, "only_a": matched.only_first, "only_b": matched.only_second},
        "unranked": {"only_a": dict(unranked.first), "only_b": dict(unranked.second), "both": dict(unranked.both)},
        **findings.summary(),
    }
    print_comparison(console, results)
    if output is not None:
        storage.write_json(os.path.join(output, RESULTS), results)  # first: it says whose the other files are
        table = findings.table([unit.name for unit in first.units], [unit.name for unit in second.units])
        storage.write_table(os.path.join(output, LISTS), table)
        page = report_of(results, findings.scores, list(shown(first, second, findings.movers)))
        storage.write_text(os.path.join(output, REPORT), page)
        console.print(f"{os.path.join(output, REPORT)} shows it; all lists are in {LISTS}.", soft_wrap=True)
    return results


def check_own(output: str) -> None:
    """Raises RefusedError where the results would replace files that no comparison wrote."""
    try:
        before = storage.read_json(os.path.join(output, RESULTS))
    except (OSError, ValueError):
        before = None
    if isinstance(before, dict) and "run_a" in before:
        return
    for name in (REPORT, RESULTS, LISTS):
        if storage.exists(os.path.join(output, name)):
            raise RefusedError(f"--output {output} holds a {name} that no comparison wrote; give another directory")


def last_place(first: Run, second: Run) -> int | None:
    """The last place that the lists of both runs have by their --top-n; None where neither cuts them off."""
    cuts = [cut for run in (first, second) if (cut := run.manifest.options.top_n) is not None]
    return min(cuts) if cuts and is_of_lists(first) else None


def check_scipy() -> None:
    """Raises ConfigError where scipy is not installed, which computes Kendall's tau."""
    try:
        import scipy  # noqa: F401  # optional: the extra `evaluate`
    except ImportError:
        raise ConfigError(missing_packages("A comparison", "scipy", "the extra evaluate")) from None


def warnings(first: Run, second: Run, matched: Matched, unranked: Unranked, settings: CompareSettings) -> list[str]:
    """What whoever reads the figures has to know."""
    told = [
        f"{what} is not complete ({len(run.units):,} of {len(run.manifest.units()):,} parts)"
        for what, run in (("RUN_A", first), ("RUN_B", second))
        if not run.is_complete
    ]
    for what, rows in (("A", matched.only_first), ("B", matched.only_second)):
        if rows:
            told.append(f"{rows:,} row(s) are in {what} alone, and left out")
    told += [f"{rows:,} row(s) {VALUES[what]} value of {settings.key}" for what, rows in matched.unusable.items()]
    for what, errors in (("A", unranked.first), ("B", unranked.second), ("both", unranked.both)):
        if errors:
            reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in errors.most_common())
            told.append(f"{errors.total():,} row(s) have no ranking in {what}: {reasons}")
    if is_of_lists(first) and first.manifest.options.top_n != second.manifest.options.top_n:
        told.append(
            "the runs have different --top-n: documents that one cut off are in the other alone, and overlaps are "
            f"measured down to place {last_place(first, second)}"
        )
    if is_of_lists(first) and first.manifest.options.score_threshold != second.manifest.options.score_threshold:
        told.append(
            "the runs have different --score-threshold: documents that one left out are in the other alone, and count "
            "as moved"
        )
    if settings.sample is not None:
        told.append(f"at most {settings.sample:,} list(s) are looked at, drawn the same way each time")
    return told
