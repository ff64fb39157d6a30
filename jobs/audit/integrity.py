"""Checks that an output directory holds what its manifest promises: every row once, whole, counted right."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from jobs.audit.facts import Snapshot, State
from jobs.errors import UnreadableFileError
from jobs.output.parts import footer_of, is_of
from jobs.output.summary import totals
from jobs.records import UNWRITTEN_COUNTS, Counts, Unit
from jobs.runtime.threads import in_threads
from jobs.storage import read_parquet
from jobs.table.columns import output_names
from jobs.table.reasons import reason_of

DECODING_THREADS = 4
"""Each holds a batch of rows with all their columns."""
BATCH_ROWS = 256
ANEW = "remove it and run the same command again"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    path: str
    problem: str
    way_out: str


def verify(snapshot: Snapshot) -> list[Finding]:
    """Finds what is wrong with the output; reads all parts from end to end, a batch of rows at a time.

    A job that is not complete is a finding too, whoever reads its output would miss rows; its missing parts are not.
    """
    parts = check_parts(snapshot)
    findings = [*foreign_parts(snapshot), *(one for one in parts if isinstance(one, Finding))]
    if snapshot.state is not State.COMPLETE:
        return [*findings, not_complete(snapshot)]
    findings += missing_parts(snapshot)
    return findings or wrong_sums(snapshot, [one for one in parts if isinstance(one, Counts)])


def foreign_parts(snapshot: Snapshot) -> list[Finding]:
    """Parts that no unit of the plan has: whoever reads the directory reads their rows too."""
    planned = {unit.name for unit in snapshot.manifest.units()}
    return [
        Finding(path_of(snapshot, name), "is not in the plan: its rows are others' or there twice", "remove it")
        for name in sorted(snapshot.finished - planned)
    ]


def missing_parts(snapshot: Snapshot) -> list[Finding]:
    """Units of a complete job without a part, unless their file is known to be unreadable."""
    return [
        Finding(
            path_of(snapshot, unit.name),
            f"is missing: rows {unit.start} to {unit.start + unit.rows - 1} of {unit.path}",
            "run the same command again",
        )
        for unit in snapshot.manifest.units()
        if unit.name not in snapshot.finished and unit.path not in snapshot.unreadable
    ]


def not_complete(snapshot: Snapshot) -> Finding:
    """The finding that rows are missing because the job has not come to its end."""
    done, units = len(snapshot.units_done), len(snapshot.manifest.units())
    way_out = "wait for its driver" if snapshot.state is State.RUNNING else "run the same command again"
    return Finding(snapshot.output.path, f"is not complete: {done} of {units} units have their part", way_out)


def check_parts(snapshot: Snapshot) -> list[Counts | Finding]:
    """For each planned part that is there its counts, or what is wrong with it."""
    return in_threads(lambda unit: check_part(snapshot, unit), snapshot.units_done, DECODING_THREADS)


def check_part(snapshot: Snapshot, unit: Unit) -> Counts | Finding:
    """Decodes every column of every row, and compares rows, errors and footer."""
    path = path_of(snapshot, unit.name)
    options = snapshot.manifest.options
    _, error_name = output_names(options.mapping, options.layout)
    try:
        footer, rows, errors = read_parquet(
            path, lambda file: (footer_of(file), file.metadata.num_rows, errors_in(file, error_name)), check_pages=True
        )
    except UnreadableFileError as error:
        if error.is_gone:
            return Finding(path, "was removed while it was looked at", "look again")
        return Finding(path, f"cannot be read: {error.why}", ANEW)
    problem = why_wrong(footer, unit, snapshot.manifest.fingerprint["hash"], rows, errors)
    return Finding(path, problem, ANEW) if problem else Counts.from_dict(footer)


def errors_in(file: pq.ParquetFile, name: str) -> Counter[str]:
    """Rows by the reason of their error, in the column of this name; decodes the other columns too.

    Raises ValueError when there is not one such column.
    """
    if file.schema_arrow.names.count(name) != 1:
        raise ValueError(f"has {file.schema_arrow.names.count(name)} columns `{name}`, where a part has one")
    reasons: Counter[str] = Counter()
    for batch in file.iter_batches(BATCH_ROWS):
        reasons.update(map(reason_of, batch.column(name).drop_null().to_pylist()))
    return reasons


def why_wrong(
    footer: Mapping[str, Any], unit: Unit, fingerprint: str, rows: int, errors: Mapping[str, int]
) -> str | None:
    """What a part's footer says that is not so; `rows` and `errors` are those that the part holds."""
    footer = {**UNWRITTEN_COUNTS, **footer}
    fields = {*Counts().as_dict(), "fingerprint", "unit"}
    if not fields <= footer.keys():
        return f"has no {sorted(fields - footer.keys())[0]} in its footer, so no job of ours wrote it"
    if footer["fingerprint"] != fingerprint:
        return f"has scores of fingerprint {footer['fingerprint']}, the job's is {fingerprint}"
    if not is_of(unit, footer["unit"]):
        return f"holds another unit, {footer['unit']}"
    if rows != footer["rows"] or rows + footer["rows_left_out"] != unit.rows:
        left_out = f" and {footer['rows_left_out']} left out" if footer["rows_left_out"] else ""
        return f"has {rows} rows, its footer counts {footer['rows']}{left_out}, its unit has {unit.rows}"
    if footer["errors"] != errors:
        return f"has rows with errors {dict(sorted(errors.items()))}, its footer counts {footer['errors']}"
    return None


def wrong_sums(snapshot: Snapshot, counts: Sequence[Counts]) -> list[Finding]:
    """What the summary says that is not the sum of the parts, all of which are right."""
    path, summary = snapshot.output.summary, snapshot.summary
    if summary is None:
        return [Finding(path, "cannot be read", ANEW)]
    told = {**UNWRITTEN_COUNTS, **summary}
    expected = totals(snapshot.manifest, counts) | {"fingerprint": snapshot.manifest.fingerprint}
    wrong = [
        f"{name} is {told.get(name)}, the parts say {value}"
        for name, value in expected.items()
        if told.get(name) != value
    ]
    return [Finding(path, "; ".join(wrong), ANEW)] if wrong else []


def path_of(snapshot: Snapshot, name: str) -> str:
    """Where the part of this name is."""
    return os.path.join(snapshot.output.path, name)
