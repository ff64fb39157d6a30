"""How a unit travels to a replica and its report travels back: as JSON strings. The rows themselves never do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

import pyarrow as pa

from jobs.records import Counts, Scored, Unit, UnitReport

REPORTS = pa.schema([("report", pa.string())])


def as_json(unit: Unit) -> str:
    """A unit as the JSON string that goes into the pool."""
    return json.dumps(asdict(unit))


def to_batch(reports: Sequence[UnitReport]) -> pa.Table:
    """Reports as a table of REPORTS, a row for each."""
    rows = [json.dumps({**asdict(report), "counts": report.counts.as_dict()}) for report in reports]
    return pa.table([rows], schema=REPORTS)


def reports_of(batches: Iterable[pa.Table]) -> Iterator[UnitReport]:
    """The reports of many tables: the inverse of `to_batch`."""
    for batch in batches:
        for row in batch["report"].to_pylist():
            raw = json.loads(row)
            scored = None if raw["scored"] is None else Scored(**raw["scored"])
            yield UnitReport(
                **{**raw, "unit": Unit(**raw["unit"]), "counts": Counts.from_dict(raw["counts"]), "scored": scored}
            )
