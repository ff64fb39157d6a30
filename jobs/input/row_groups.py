"""Walks through row groups: a large one is cut into many units, and each would fetch and decode all of it again.

Rows come batch by batch, so that a row group of any size is read in bounded memory. (Arrow cannot read a row group with
more than 2 GiB of text inside lists as one table.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import open_parquet

WINDOW_BYTES = 256 << 20
"""Decoded rows that a walk keeps behind it: all of a usual row group, and some units of a large one."""
FEWEST_ROWS, MOST_ROWS = 8, 1 << 16
"""Of a batch: a unit of a single row must not walk row by row."""


class Walk:
    """Reads the rows of some row groups from first to last, so that nothing is decoded twice.

    Threads share a walk, one at a time. A thread that asks for rows that the walk has left behind makes it begin again.
    """

    def __init__(self, begin: Callable[[], Iterator[pa.RecordBatch]], schema: pa.Schema, window: int) -> None:
        self.begin = begin
        self.schema = schema
        self.window = window
        self.lock = Lock()
        self._restart()

    def rows(self, start: int, count: int) -> pa.Table:
        """`count` rows from `start` on, counted from the first of the row groups.

        Raises ValueError where there are fewer, and what pyarrow raises when they are damaged.
        """
        with self.lock:
            try:
                if start < self.first:
                    self._restart()
                while count and self.end < start + count:
                    self._step(start)
            except BaseException:
                self._restart()  # so that a retry reads again
                raise
            batches = list(self._cut(start, start + count))
            return pa.Table.from_batches(batches) if batches else self.schema.empty_table()

    def _restart(self) -> None:
        self.batches: Iterator[pa.RecordBatch] | None = None
        self.kept: deque[pa.RecordBatch] = deque()
        self.bytes = self.first = self.end = 0

    def _step(self, start: int) -> None:
        """Decodes one more batch, and drops the oldest ones before `start` as long as more is kept than the window."""
        if self.batches is None:
            self.batches = self.begin()
        batch = next(self.batches, None)
        if batch is None:
            raise ValueError(f"its row groups end after {self.end} rows, their footers say more")
        self.kept.append(batch)
        self.bytes += batch.nbytes
        self.end += batch.num_rows
        while self.bytes > self.window and self.first + self.kept[0].num_rows <= start:
            gone = self.kept.popleft()
            self.bytes -= gone.nbytes
            self.first += gone.num_rows

    def _cut(self, start: int, end: int) -> Iterator[pa.RecordBatch]:
        """Yields the slices of batches that hold the rows from `start` to `end`, of which all are kept."""
        row = self.first
        for batch in self.kept:
            begin, stop = max(start, row), min(end, row + batch.num_rows)
            if begin < stop:
                yield batch.slice(begin - row, stop - begin)
            row += batch.num_rows


class RowGroups:
    """Reads rows of row groups, and keeps the last `kept` walks; threads that want the same share one."""

    def __init__(self, kept: int, window: int = WINDOW_BYTES) -> None:
        self.kept = kept
        self.window = window
        self.lock = Lock()
        self.walks: dict[tuple[Hashable, ...], Walk] = {}
        """By what they read; what was asked for last comes last."""

    def walk(
        self,
        file: pq.ParquetFile,
        path: str,
        numbers: Sequence[int],
        columns: Sequence[str] | None,
        rows: int,
        state: str = "",
    ) -> Walk:
        """A walk through some row groups of the open file at `path`: one that an earlier unit began, or a new one.

        It is read for units of `rows`. `state` is the file's, if known: another state has another walk.
        """
        key = (path, state, marks_of(file, numbers), None if columns is None else tuple(columns))

        def begin() -> Iterator[pa.RecordBatch]:
            own = open_parquet(path)  # `file` is closed before the walk ends
            if not own.metadata.equals(file.metadata):
                raise ValueError(f"{path} was changed while it was read")
            return batches(own, numbers, columns, rows)

        with self.lock:
            walk = self.walks.pop(key, None) or Walk(begin, schema_of(file, columns), self.window)
            self.walks[key] = walk
            while len(self.walks) > self.kept:
                del self.walks[next(iter(self.walks))]
        return walk

    def forget(self, path: str) -> None:
        """Keeps nothing of this file any more."""
        with self.lock:
            for key in [key for key in self.walks if key[0] == path]:
                del self.walks[key]


def walk_once(file: pq.ParquetFile, numbers: Sequence[int], columns: Sequence[str] | None, rows: int) -> Walk:
    """A walk through row groups of an open file that only one unit needs, so that nothing of them is kept."""
    return Walk(lambda: batches(file, numbers, columns, rows), schema_of(file, columns), window=0)


def batches(
    file: pq.ParquetFile, numbers: Sequence[int], columns: Sequence[str] | None, rows: int
) -> Iterator[pa.RecordBatch]:
    """The row groups in batches of about `rows` rows: a unit has as many as its decoded bytes allow."""
    size = min(max(rows, FEWEST_ROWS), MOST_ROWS)
    return file.iter_batches(size, row_groups=list(numbers), columns=columns)  # type: ignore[no-any-return]


def schema_of(file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Schema:
    """The schema of these columns, in the order of the file."""
    own = file.schema_arrow
    return own if columns is None else pa.schema([one for one in own if one.name in columns], own.metadata)


def marks_of(file: pq.ParquetFile, numbers: Sequence[int]) -> Hashable:
    """What tells row groups from those of another file that has taken the same path."""
    groups = [file.metadata.row_group(number) for number in numbers]
    return tuple((i, group.num_rows, group.total_byte_size) for i, group in zip(numbers, groups, strict=True))
