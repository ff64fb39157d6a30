"""The output file of a unit: its rows, and its counts in the footer."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

from jobs.errors import StoppedError
from jobs.records import Counts, Unit
from jobs.scorer import Answered
from jobs.storage import write_table

METADATA_KEY = b"crossray"
"""Key of a part's counts in its Parquet metadata."""


def write_part(output: str, fingerprint: str, unit: Unit, rows: int, answered: Answered) -> Counts:
    """Writes the part of a unit; a second time it is the same file again.

    `rows` is how many were read; returns the counts with those that `--where` left out.
    Raises StoppedError when the answer does not have exactly these rows: nothing may be lost silently.
    """
    table = answered.table
    if not table.num_rows == answered.counts.rows == rows:
        raise StoppedError(
            f"{unit} came back with {table.num_rows} rows, counted {answered.counts.rows}, of {rows}: "
            "please report this bug"
        )
    counts = replace(answered.counts, rows_left_out=unit.rows - rows)
    summary = json.dumps({**counts.as_dict(), "fingerprint": fingerprint, "unit": asdict(unit)}, sort_keys=True)
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: summary.encode()}
    write_table(os.path.join(output, unit.name), table.replace_schema_metadata(metadata))
    return counts
