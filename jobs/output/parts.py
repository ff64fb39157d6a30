"""Writes and reads parts: the output file of a unit, with its rows, and its counts in the footer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace

import pyarrow as pa

from jobs import storage
from jobs.errors import StoppedError, UnreadableFileError
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.records import Counts, Unit
from jobs.runtime.threads import in_threads
from jobs.storage import write_table

METADATA_KEY = b"crossray"
"""Key of a part's counts in its Parquet metadata."""


def write_part(output: str, fingerprint: str, unit: Unit, rows: int, table: pa.Table, counts: Counts) -> Counts:
    """Writes the part of a unit, its answered rows and their counts; a second time it is the same file again.

    `rows` is how many were read; returns the counts with those that `--where` left out.
    Raises StoppedError when the answer does not have exactly these rows: nothing may be lost silently.
    """
    if not table.num_rows == counts.rows == rows:
        raise StoppedError(
            f"{unit} came back with {table.num_rows} rows, counted {counts.rows}, of {rows}: please report this bug"
        )
    counts = replace(counts, rows_left_out=unit.rows - rows)
    summary = json.dumps({**counts.as_dict(), "fingerprint": fingerprint, "unit": asdict(unit)}, sort_keys=True)
    metadata = {**(table.schema.metadata or {}), METADATA_KEY: summary.encode()}
    write_table(os.path.join(output, unit.name), table.replace_schema_metadata(metadata))
    return counts


def read_counts(output: OutputDirectory, unit: Unit, fingerprint: str) -> Counts:
    """The counts in a part's footer; raises StoppedError when the part is not what this job would have written."""
    path = os.path.join(output.path, unit.name)
    try:
        metadata = storage.read_parquet(path, lambda file: file.metadata)
    except UnreadableFileError as error:
        raise StoppedError(f"{path} cannot be read ({error.why}); remove it and run the same command again") from None
    raw = json.loads((metadata.metadata or {}).get(METADATA_KEY, b"{}"))
    rows = metadata.num_rows + raw.get("rows_left_out", 0)
    if rows != unit.rows or raw.get("fingerprint") != fingerprint:
        raise StoppedError(f"{path} is not a part of this job; remove it and run the same command again")
    return Counts.from_dict(raw)


def counts_of(output: OutputDirectory, manifest: Manifest, units: Sequence[Unit]) -> list[Counts]:
    """The counts in the footers of these units' parts; raises StoppedError as `read_counts` does."""
    return in_threads(lambda unit: read_counts(output, unit, manifest.fingerprint["hash"]), units)


def missing_units(output: OutputDirectory, manifest: Manifest) -> list[Unit]:
    """Units without a part, in the order of the plan."""
    finished = output.finished()
    return [unit for unit in manifest.units() if unit.name not in finished]
