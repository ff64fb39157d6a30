"""What workers do for `--group-by`: cut a piece of INPUT into cells, and make lists of the cells of a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.errors import StoppedError, UnreadableFileError
from jobs.input.cutting import UNIT_BYTES
from jobs.input.reading import read_columns
from jobs.input.selection import Selection, filtered
from jobs.joins.cells import read_cell, write_cells
from jobs.joins.groups.grouping import GROUP_BYTES, grouped, numbered_pairs, oversize_groups, without_oversize
from jobs.joins.groups.pair_columns import PairColumns
from jobs.records import Unit

BUCKET_BYTES = GROUP_BYTES
"""Decoded: what is grouped at once."""
ROW_GROUP_BYTES = 16 * UNIT_BYTES
"""Decoded, of a list file: units of it read little beside their rows."""


@dataclass(frozen=True, slots=True)
class ListFile:
    """The groups of one share of a bucket."""

    bucket: int
    share: int
    shares: int
    bytes: int
    """Decoded, of the whole bucket."""

    @property
    def name(self) -> str:
        return f"lists-{self.bucket:05d}-{self.share:03d}.parquet"


@dataclass(frozen=True, slots=True)
class Grouping:
    """What the workers have to know that cut pieces and group buckets."""

    directory: str
    pieces: tuple[Unit, ...]
    buckets: int
    columns: PairColumns
    selection: Selection

    @property
    def paths(self) -> list[str]:
        """The input files, sorted."""
        return sorted({piece.path for piece in self.pieces})

    def cells(self, piece: Unit) -> str:
        return os.path.join(self.directory, "pairs", piece.name)

    def lists(self, file: ListFile) -> str:
        return os.path.join(self.directory, "lists", file.name)


class CuttingStage:
    """Brings pieces of INPUT into cells."""

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping

    def __call__(self, item: dict[str, Any]) -> None:
        cut_piece(self.grouping, Unit(**item))


class GroupingStage:
    """Brings the cells of buckets into list files."""

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping

    def __call__(self, item: dict[str, Any]) -> None:
        group_bucket(self.grouping, ListFile(**item))


def cut_piece(grouping: Grouping, piece: Unit) -> None:
    """Writes the cells of a piece; raises StoppedError when the piece cannot be read."""
    try:
        with storage.faults_of_file(piece.path):
            table, rows = numbered_rows(piece, grouping.selection)
            pairs = numbered_pairs(table, grouping.paths.index(piece.path), rows, grouping.columns)
    except UnreadableFileError as error:
        raise StoppedError(f"{piece.path} cannot be read ({error.why}), and groups would lack its pairs") from None
    hashed = pairs.column("hash").to_numpy()
    shard = grouping.selection.shard
    if shard is not None:  # by group, so that each is whole in one share
        mine = (hashed >> np.uint64(40)) % np.uint64(shard.count) == shard.number - 1
        pairs, hashed = pairs.filter(pa.array(mine)), hashed[mine]
    write_cells(grouping.cells(piece), pairs, (hashed % np.uint64(grouping.buckets)).astype(np.int64))


def numbered_rows(piece: Unit, selection: Selection) -> tuple[pa.Table, np.ndarray]:
    """The rows of a piece that pass the conditions, with the columns of the path, and their row numbers in the file."""
    table = storage.read_as_planned(piece.path, piece.file_state, lambda file: read_columns(file, piece))
    rows = np.arange(piece.start, piece.start + piece.rows)
    if selection.checked_columns(table.schema):
        passing = selection.passing(table)
        table, rows = filtered(table, passing), rows[passing.to_numpy()]
    return selection.with_partitions(table, piece.path), rows


def group_bucket(grouping: Grouping, file: ListFile) -> None:
    """Writes a list file; in memory are its pairs, and one cell beside them."""
    may_be_oversize = file.bytes > GROUP_BYTES
    oversize = oversize_groups(lambda: cells_of(grouping, file)) if may_be_oversize else {}
    cells = without_oversize(cells_of(grouping, file), oversize)
    lists = (
        grouped(pa.concat_tables(cells), grouping.columns, grouping.paths, oversize)
        if cells
        else grouping.columns.lists.empty_table()
    )
    per_row = max(1.0, lists.nbytes / max(1, lists.num_rows))
    if not storage.exists(grouping.lists(file)):  # a worker of a killed driver may be as late as this one
        storage.write_table(grouping.lists(file), lists, max(1, int(ROW_GROUP_BYTES / per_row)))


def cells_of(grouping: Grouping, file: ListFile) -> Iterator[pa.Table]:
    """The pairs of a list file, in the order of INPUT."""
    for piece in grouping.pieces:
        cell = read_cell(grouping.cells(piece), file.bucket)
        if cell is not None:
            turns = cell.column("hash").to_numpy() // np.uint64(grouping.buckets)
            yield cell.filter(pa.array(turns % np.uint64(file.shares) == file.share))
