"""Finds examples of rows with errors; reads few columns of the parts, and no more parts than it needs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.audit.facts import Snapshot
from jobs.errors import StoppedError, UnreadableFileError
from jobs.output.parts import read_counts
from jobs.records import Unit
from jobs.runtime.threads import in_threads
from jobs.storage import read_parquet
from jobs.table.columns import ColumnMapping, output_names
from jobs.table.reasons import reason_of

PARTS_AT_A_TIME = 256
BATCH_ROWS = 4096
QUERY_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that could not be ranked."""

    reason: str
    message: str
    """The whole `error`, with its reason."""
    part: str
    """Name of the output file."""
    row: int
    """In the part, from 0."""
    file: str
    """The input file."""
    file_rows: tuple[int, int]
    """Those that the part is of: the first, and the one after the last."""
    query_id: str | None
    query: str | None
    """Its beginning."""


def find_errors(snapshot: Snapshot, expected: Mapping[str, int], per_reason: int) -> list[RowError]:
    """Finds up to `per_reason` rows for each reason, in the order of the plan; `expected` has all rows by reason."""
    wanted = {reason: min(rows, per_reason) for reason, rows in expected.items()}
    taken: Counter[str] = Counter()
    found: list[RowError] = []
    units = snapshot.units_done
    for first in range(0, len(units), PARTS_AT_A_TIME):
        if all(taken[reason] >= rows for reason, rows in wanted.items()):
            break
        some = units[first : first + PARTS_AT_A_TIME]
        for one in chain.from_iterable(in_threads(lambda unit: errors_of(snapshot, unit, per_reason), some)):
            if taken[one.reason] < per_reason:
                taken[one.reason] += 1
                found.append(one)
    return found


def errors_of(snapshot: Snapshot, unit: Unit, per_reason: int) -> list[RowError]:
    """Up to `per_reason` rows for each reason in one part; none where the part cannot be read, as `facts` counts it."""
    options = snapshot.manifest.options
    _, error_name = output_names(options.mapping, options.layout)
    try:
        if not read_counts(snapshot.output, unit, snapshot.manifest.fingerprint["hash"]).errors:
            return []
        return read_parquet(
            os.path.join(snapshot.output.path, unit.name),
            lambda file: list(_errors_in(file, unit, error_name, options.mapping, per_reason)),
        )
    except (StoppedError, UnreadableFileError):
        return []


def _errors_in(
    file: pq.ParquetFile, unit: Unit, error_name: str, mapping: ColumnMapping, per_reason: int
) -> Iterator[RowError]:
    taken: Counter[str] = Counter()
    rows_before = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=[error_name, mapping.query_id, mapping.query]):
        errors = batch.column(error_name)
        for i in pc.indices_nonzero(errors.is_valid()).to_pylist():
            message = errors[i].as_py()
            reason = reason_of(message)
            taken[reason] += 1
            if taken[reason] <= per_reason:
                query = _shown(batch, mapping.query, i)
                yield RowError(
                    reason=reason,
                    message=message,
                    part=unit.name,
                    row=rows_before + i,
                    file=unit.path,
                    file_rows=(unit.start, unit.start + unit.rows),
                    query_id=_shown(batch, mapping.query_id, i),
                    query=query and query[:QUERY_CHARACTERS],
                )
        rows_before += batch.num_rows


def _shown(batch: pa.RecordBatch, name: str, row: int) -> str | None:
    """A value of any type as a text; None where there is no such column, or two."""
    position = batch.schema.get_field_index(name)
    if position < 0:
        return None
    try:
        value = batch.column(position)[row].as_py()
    except UnicodeDecodeError as error:
        value = error.object
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return None if text is None else str(text)
