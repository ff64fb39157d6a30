"""Writes and reads parts: the output file of a unit, with its rows, and its counts in the footer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import StoppedError, StoreError, UnreadableFileError, UnwritablePartError
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.records import Counts, Unit
from jobs.runtime.threads import in_threads
from jobs.storage import write_table

METADATA_KEY = b"crossray"
"""Key of a part's counts in its Parquet metadata."""
WHOLE_SCHEMA = re.compile(rb"row\.metadata$|schema$|descriptor$|\.class$|model\.name$", re.IGNORECASE)
"""Keys under which other writers describe a file's whole schema.

`org.apache.spark.sql.parquet.row.metadata` of Spark; `parquet.avro.schema`, `parquet.proto.descriptor`, `thrift.class`,
`writer.model.name` and their like of parquet-java; `iceberg.schema`. What pandas and huggingface write stays: both
read columns that it does not name by their own types.
"""


def write_part(output: str, fingerprint: str, unit: Unit, rows: int, table: pa.Table, counts: Counts) -> Counts:
    """Writes the part of a unit, its answered rows and their counts; a second time it is the same file again.

    `rows` is how many were read; returns the counts with those that `--where` left out.
    Raises OSError and UnwritablePartError when it cannot be written.
    Raises StoppedError when the answer does not have exactly these rows: nothing may be lost silently.
    """
    if not table.num_rows == counts.rows == rows:
        raise StoppedError(
            f"{unit} came back with {table.num_rows} rows, counted {counts.rows}, of {rows}: please report this bug"
        )
    counts = replace(counts, rows_left_out=unit.rows - rows)
    summary = json.dumps({**counts.as_dict(), "fingerprint": fingerprint, "unit": asdict(unit)}, sort_keys=True)
    metadata = {**still_true(table.schema.metadata or {}), METADATA_KEY: summary.encode()}
    write_under_its_name(output, unit.name, table.replace_schema_metadata(metadata))
    return counts


def write_under_its_name(output: str, name: str, table: pa.Table) -> None:
    """Writes a part; when that fails, finds out whether it fails under another name too, and tries once more.

    Raises OSError where nothing can be written, UnwritablePartError where it is this part alone.
    """
    path = os.path.join(output, name)
    try:
        write_table(path, table)
        return
    except StoreError:
        raise
    except OSError:
        other = storage.temporary_name(path)
        write_table(other, table)
        storage.remove(other)
    try:
        write_table(path, table)
    except OSError as error:
        raise UnwritablePartError(f"its part {name} cannot be written: {type(error).__name__}: {error}") from None


def still_true(metadata: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The metadata of a schema without what lists all columns of the input: its readers would not see the new ones."""
    return {key: value for key, value in metadata.items() if WHOLE_SCHEMA.search(key) is None}


def read_counts(output: OutputDirectory, unit: Unit, fingerprint: str) -> Counts:
    """The counts in a part's footer; raises StoppedError when the part is not what this job would have written."""
    path = os.path.join(output.path, unit.name)
    try:
        raw, in_file = storage.read_parquet(path, lambda file: (footer_of(file), file.metadata.num_rows))
    except UnreadableFileError as error:
        raise StoppedError(f"{path} cannot be read ({error.why}); remove it and run the same command again") from None
    rows = in_file + raw.get("rows_left_out", 0)
    if rows != unit.rows or raw.get("fingerprint") != fingerprint or not is_of(unit, raw.get("unit", {})):
        raise StoppedError(f"{path} is not a part of this job; remove it and run the same command again")
    return Counts.from_dict(raw)


def footer_of(file: pq.ParquetFile) -> dict[str, Any]:
    """What this project wrote into the footer of a part; raises ValueError when it is something else."""
    written = storage.parse_json((file.metadata.metadata or {}).get(METADATA_KEY, b"{}"))
    if not isinstance(written, dict):
        raise ValueError("its footer has no counts")
    return written


def is_of(unit: Unit, written: Mapping[str, Any]) -> bool:
    """Whether a footer names this unit; a part of an earlier version says less of it."""
    expected = asdict(unit)
    return dict(written) == (expected if unit.id else {name: expected[name] for name in written if name in expected})


def counts_of(output: OutputDirectory, manifest: Manifest, units: Sequence[Unit]) -> list[Counts]:
    """The counts in the footers of these units' parts; raises StoppedError as `read_counts` does."""
    return in_threads(lambda unit: read_counts(output, unit, manifest.fingerprint["hash"]), units)


def missing_units(output: OutputDirectory, manifest: Manifest) -> list[Unit]:
    """Units without a part, in the order of the plan."""
    finished = output.finished()
    return [unit for unit in manifest.units() if unit.name not in finished]
