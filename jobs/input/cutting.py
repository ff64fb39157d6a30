"""Work units: how an input file is cut into (file, row range). They depend on the input alone.

A unit is one block, one call of the scorer and one output file, whose name derives from the unit. So a retry rewrites
the same file, resuming is a listing, and replicas, budgets and threads may change between two runs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import pyarrow as pa

from jobs.errors import UnreadableFileError
from jobs.input.sampling import BytesBesides, TooLargeError, bytes_per_row, nothing_besides
from jobs.input.selection import EVERYTHING, Selection
from jobs.storage import faults_of_file, read_parquet

UNIT_BYTES = 128 << 10  # some 300 passages: seconds on one CPU core, so that a killed replica loses little
MIN_UNIT_BYTES, MAX_UNIT_BYTES = 16 << 10, 64 << 20
MIN_UNITS, MAX_UNITS = 64, 4096  # of a small corpus: work for every replica; of a large one: no million output files
MAX_UNITS_OF_FILE = 512  # where files come and come: 100 MB in units of 0.2 MB, 10 GB in units of 20 MB
UNITS_PER_ROW_GROUP = 64  # each may go to another replica, which decodes the row group up to there anew
SAMPLE_ROWS = 256
FILE_SAMPLE_BYTES = 16 << 20  # a row of 10,000 candidates is megabytes: fewer of them tell enough


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One file, as its footer and a sample of its rows describe it."""

    rows: int
    row_groups: tuple[int, ...]
    """Rows of each."""
    bytes_per_row: float
    """Decoded: compression and dictionaries hide the true size, so a sample of rows is read."""
    schema: pa.Schema
    """With the columns of its path."""
    excluded: frozenset[int] = frozenset()
    """Row groups without a row that `--where` lets through, by their statistics."""
    cut_timestamps: tuple[tuple[str, int], ...] = ()
    """Columns whose timestamps are cut to microseconds, and how many of the file's values that changes."""

    @property
    def kept(self) -> list[tuple[int, int]]:
        """The row groups that are not excluded, as (start, rows)."""
        starts = accumulate(self.row_groups, initial=0)
        groups = zip(starts, self.row_groups, strict=False)
        return [group for i, group in enumerate(groups) if i not in self.excluded]


def read_plan(path: str, selection: Selection = EVERYTHING, besides: BytesBesides = nothing_besides) -> FilePlan:
    """Describes a file by its footer and a sample of its rows.

    Raises UnreadableFileError when the footer cannot be read, or the sample takes too much memory; ConfigError when a
    condition does not fit the columns.
    """
    metadata, own, cut_timestamps = read_parquet(
        path, lambda file: (file.metadata, file.schema_arrow, file.cut_timestamps)
    )
    with faults_of_file(path):
        footers = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        excluded = selection.excluded_row_groups(path, own, metadata)
        schema = selection.schema(path, own)
    groups = tuple(footer.num_rows for footer in footers)
    kept = [i for i in range(len(groups)) if i not in excluded]
    stored_per_row = sum(footer.total_byte_size for footer in footers) / max(1, metadata.num_rows)
    sample_rows = max(1, min(SAMPLE_ROWS, int(FILE_SAMPLE_BYTES / max(1, stored_per_row))))
    try:
        size = bytes_per_row(path, metadata, sample_rows, kept, besides=besides)
    except TooLargeError:
        raise
    except UnreadableFileError:
        size = stored_per_row  # damaged here: that costs the units that read it, not the file
    return FilePlan(metadata.num_rows, groups, size, schema, excluded, cut_timestamps)


def unit_bytes(total_bytes: float) -> int:
    """Decoded bytes that a unit of a corpus of `total_bytes` should hold."""
    wanted = min(max(UNIT_BYTES, total_bytes / MAX_UNITS), total_bytes / MIN_UNITS)
    return int(min(max(wanted, MIN_UNIT_BYTES), MAX_UNIT_BYTES))


def unit_bytes_alone(plan: FilePlan) -> int:
    """Decoded bytes that a unit of this file should hold where no corpus is known: by the file alone."""
    return int(min(max(UNIT_BYTES, plan.rows * plan.bytes_per_row / MAX_UNITS_OF_FILE), MAX_UNIT_BYTES))


def cut(plan: FilePlan, target_bytes: int) -> list[tuple[int, int]]:
    """Cuts a file into row ranges (start, rows) of about `target_bytes`, which cover it in order.

    A large row group is cut evenly; small ones are joined; a range never holds parts of two row groups.
    """
    wanted = max(1, int(target_bytes / plan.bytes_per_row)) if plan.bytes_per_row else plan.rows
    ranges: list[tuple[int, int]] = []
    start = joined = 0
    for rows in plan.row_groups:
        if joined and joined + rows > wanted:
            ranges.append((start, joined))
            start, joined = start + joined, 0
        if rows > wanted:
            ranges += cut_evenly(start, rows, max(wanted, -(-rows // most_units(rows * plan.bytes_per_row))))
            start += rows
        else:
            joined += rows
    if joined:
        ranges.append((start, joined))
    return ranges


def most_units(group_bytes: float) -> int:
    """How many units a row group of so many decoded bytes is cut into at most."""
    return max(UNITS_PER_ROW_GROUP, ceil(group_bytes / MAX_UNIT_BYTES))


def planned_ranges(plan: FilePlan, target_bytes: int, start: int, end: int) -> list[tuple[int, int]]:
    """The ranges of `cut` within the rows from `start` to `end`, without those that `--where` excludes whole."""
    ends = list(accumulate(plan.row_groups))
    ranges = []
    for first, rows in cut(plan, target_bytes):
        begin, stop = max(first, start), min(first + rows, end)
        groups = range(bisect_right(ends, begin), bisect_left(ends, stop) + 1)
        if begin < stop and not plan.excluded.issuperset(groups):
            ranges.append((begin, stop - begin))
    return ranges


def cut_evenly(start: int, rows: int, most: int) -> Iterator[tuple[int, int]]:
    """`rows` rows from `start` in as few ranges of at most `most` as can be; their sizes differ by one at most."""
    parts = -(-rows // most)
    for i in range(parts):
        begin, end = start + rows * i // parts, start + rows * (i + 1) // parts
        yield begin, end - begin
