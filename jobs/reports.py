"""What the driver hears of a unit, and its way from a replica: one JSON string, in which no row travels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from jobs.accounting import Scored
from jobs.scorer import Counts
from jobs.units import Unit

REPORTS = pa.schema([("report", pa.string())])


@dataclass(frozen=True, slots=True)
class UnitReport:
    """How it went. A unit whose `error`, `failure` and `stop` are all None has its part."""

    unit: Unit
    counts: Counts = field(default_factory=Counts)
    error: str | None = None
    """Why its rows cannot be read: the file is at fault."""
    failure: str | None = None
    """Why its part could not be written although the rows were fine, such as a full disk."""
    stop: str | None = None
    """Why it would fail for all other units too."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: see `jobs.accounting`."""
    scored: Scored | None = None
    """By which replica and when; None where it was not."""
    chunks_reused: int = 0
    """Those that did not go through the model."""
    not_stored: str | None = None
    """Why its new logits are not in the score store."""


def to_batch(reports: Sequence[UnitReport]) -> pa.Table:
    """A row of REPORTS for each."""
    rows = [json.dumps({**asdict(report), "counts": report.counts.as_dict()}) for report in reports]
    return pa.table([rows], schema=REPORTS)


def reports_of(batches: Iterable[pa.Table]) -> Iterator[UnitReport]:
    """The inverse of `to_batch`."""
    for batch in batches:
        for row in batch["report"].to_pylist():
            raw = json.loads(row)
            scored = None if raw["scored"] is None else Scored(**raw["scored"])
            yield UnitReport(
                **{**raw, "unit": Unit(**raw["unit"]), "counts": Counts.from_dict(raw["counts"]), "scored": scored}
            )
