"""Keeps decoded row groups: a large one is cut into many units, and each would fetch and decode all of it again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq


class RowGroups:
    """Reads row groups, and keeps the last `kept` of what it read; threads that want the same read it once."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.lock = Lock()
        self.reads: dict[tuple[Hashable, ...], Future[pa.Table]] = {}
        """By what was read; what was asked for last comes last."""

    def read(
        self,
        file: pq.ParquetFile,
        path: str,
        numbers: Sequence[int],
        columns: Sequence[str] | None = None,
        state: str = "",
    ) -> pa.Table:
        """Some row groups of the open file at `path`, as a table; raises what pyarrow raises when they are damaged.

        `state` is the file's, if it is known.
        """
        key = (path, state, footer_of(file, numbers), None if columns is None else tuple(columns))
        with self.lock:
            known = self.reads.pop(key, None)
            read = self.reads[key] = known or Future()
            while len(self.reads) > self.kept:
                del self.reads[next(iter(self.reads))]
        if known is None:
            try:
                read.set_result(file.read_row_groups(numbers, columns=columns))
            except BaseException as error:
                with self.lock:
                    self.reads.pop(key, None)  # so that a retry reads again
                read.set_exception(error)
        return read.result()

    def forget(self, path: str) -> None:
        """Keeps nothing of this file any more."""
        with self.lock:
            for key in [key for key in self.reads if key[0] == path]:
                del self.reads[key]


def footer_of(file: pq.ParquetFile, numbers: Sequence[int]) -> Hashable:
    """What tells row groups from those of another file that has taken the same path."""
    groups = [file.metadata.row_group(number) for number in numbers]
    return tuple((i, group.num_rows, group.total_byte_size) for i, group in zip(numbers, groups, strict=True))
