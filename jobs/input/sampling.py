"""How large the rows of a file are once they are decoded, by its first rows, in bounded memory whatever the file holds.

A file of a kilobyte may decode to gigabytes: one long text in a dictionary that all rows name, or a run of nulls. So
texts are read as what they are stored as, dictionaries and indices, and their lengths are added up. What may take a
lot of memory all the same is read in a process of its own (`python -m jobs.input.sampling`), which may die of it.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Semaphore
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.errors import AccessError, StoreError, UnreadableFileError
from jobs.storage import faults_of_file, read_parquet

ROOM_BYTES = 1 << 30
"""What samples may take at most at a time in this process; in fact they take a page of each column."""
MEMORY_APART = 2 << 30
"""What a process that reads a sample apart may take, beside what Python and Arrow have."""
SECONDS_APART = 300
VALUE_BYTES = 16
"""Of a value of any type but texts and fixed binaries, with its place in a list and its levels."""

BytesBesides = Callable[[pa.RecordBatch], float]
"""Decoded bytes that some rows will have on top of their own, such as texts from elsewhere."""


def nothing_besides(_rows: pa.RecordBatch) -> float:
    """How many bytes come to rows from elsewhere where they hold all texts themselves: none."""
    return 0.0


class TooLargeError(UnreadableFileError):
    """The first rows of a file take more memory than any reader should give."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows of some row groups."""

    path: str
    rows: int
    row_groups: tuple[int, ...]
    columns: tuple[str, ...] | None
    """Some columns alone; None is all."""
    besides: BytesBesides
    texts: tuple[str, ...]
    """The columns of values that are read as dictionaries and indices."""

    def bytes_per_row(self) -> float:
        """Decoded bytes of a row, read in this process. Raises what `read_parquet` does."""
        return read_parquet(self.path, self._measured, dictionaries=self.texts)

    def _measured(self, file: pq.ParquetFile) -> float:
        rows, size = 0, 0.0
        for number in self.row_groups:  # one by one: each has a dictionary of its own, and Arrow cannot join them
            left = self.rows - rows
            sample = next(file.iter_batches(batch_size=left, row_groups=[number], columns=self.columns), None)
            if sample is not None:
                rows += sample.num_rows
                size += self._size_of(sample, file.metadata.schema.to_arrow_schema())
        return size / rows if rows else 0.0

    def _size_of(self, sample: pa.RecordBatch, plain: pa.Schema) -> float:
        """The decoded bytes of some rows, whose columns have the types of `plain` for other readers."""
        names = range(len(plain)) if self.columns is None else sample.schema.names
        columns = zip(sample, names, strict=True)
        return self.besides(sample) + sum(decoded_bytes(column, plain.field(name).type) for column, name in columns)


def bytes_per_row(
    path: str,
    metadata: pq.FileMetaData,
    rows: int,
    row_groups: Sequence[int],
    columns: Sequence[str] | None = None,
    besides: BytesBesides = nothing_besides,
) -> float:
    """Decoded bytes of one row of these row groups, by the first `rows` of them, with what `besides` expects for it.

    Raises UnreadableFileError where they cannot be read, TooLargeError where they take too much memory for that, and
    StoreError.
    """
    touched = first_groups(metadata, row_groups, rows)
    with faults_of_file(path):
        texts = tuple(leaf.path for leaf in leaves(metadata) if is_kept_short(leaf))
        sample = Sample(path, rows, touched, None if columns is None else tuple(columns), besides, texts)
        most = most_bytes(metadata, sample)
    if most > ROOM_BYTES:
        return measured_apart(sample)
    with ROOM.taken(most):
        return sample.bytes_per_row()


def first_groups(metadata: pq.FileMetaData, row_groups: Sequence[int], rows: int) -> tuple[int, ...]:
    """As many of the row groups as have the first `rows` rows."""
    touched: list[int] = []
    for i in row_groups:
        if rows <= 0:
            break
        touched.append(i)
        rows -= metadata.row_group(i).num_rows
    return tuple(touched)


def leaves(metadata: pq.FileMetaData) -> Iterator[pq.ColumnSchema]:
    """The columns of values of a file: one for each, those of structs and lists among them."""
    return (metadata.schema.column(i) for i in range(metadata.num_columns))


def is_kept_short(leaf: pq.ColumnSchema) -> bool:
    """Whether a column of values can be read as a dictionary and indices."""
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type in ("STRING", "NONE")


def most_bytes(metadata: pq.FileMetaData, sample: Sample) -> int:
    """Memory that reading a sample may take, by the footer: as if each column of values were a single page."""
    paths = [leaf.path for leaf in leaves(metadata)]
    total = 0
    for group in (metadata.row_group(i) for i in sample.row_groups):
        for i, leaf in enumerate(leaves(metadata)):
            if sample.columns is not None and not leaf.path.startswith(sample.columns):
                continue
            chunk = group.column(i)
            values = chunk.num_values if leaf.max_repetition_level else min(sample.rows, group.num_rows)
            total += chunk.total_compressed_size + 2 * chunk.total_uncompressed_size
            total += values * most_bytes_of_value(leaf, chunk, paths.count(leaf.path) > 1)
    return total


def most_bytes_of_value(leaf: pq.ColumnSchema, chunk: pq.ColumnChunkMetaData, is_double: bool) -> int:
    """Memory that a value may take: as much as all of its column where values repeat one another."""
    if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return max(VALUE_BYTES, int(leaf.length))
    repeats = not is_kept_short(leaf) or is_double or "DELTA_BYTE_ARRAY" in chunk.encodings
    return int(chunk.total_uncompressed_size) if leaf.physical_type == "BYTE_ARRAY" and repeats else VALUE_BYTES


def decoded_bytes(array: pa.Array, own: pa.DataType) -> float:
    """The bytes of an array as it would be of its `own` type, where it has dictionaries in the place of texts."""
    types = pa.types
    if isinstance(own, pa.BaseExtensionType):
        return decoded_bytes(array, own.storage_type)
    if isinstance(array, pa.ExtensionArray):  # also where `own` is none: a footer's UUID or JSON without Arrow's schema
        return decoded_bytes(array.storage, own)
    if types.is_dictionary(array.type) and not types.is_dictionary(own):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64()).take(array.indices)
        return float((pc.sum(lengths).as_py() or 0) + array.indices.nbytes)
    if types.is_struct(own):
        return float(sum(decoded_bytes(array.field(i), own.field(i).type) for i in range(own.num_fields)))
    if types.is_map(own):
        inner = decoded_bytes(array.keys, own.key_type) + decoded_bytes(array.items, own.item_type)
        return inner + 4 * len(array)
    if types.is_nested(own) and own.num_fields == 1:  # any kind of list
        return decoded_bytes(array.flatten(), own.value_type) + 4 * len(array)
    return float(array.nbytes)


class Room:
    """Memory that threads share: one that wants more than is free waits for the others."""

    def __init__(self, size: int) -> None:
        self.free = size
        self.changed = Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Waits until so many bytes, which must not be more than all, are free, and has them for a block."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= size)
            self.free -= size
        try:
            yield
        finally:
            with self.changed:
                self.free += size
                self.changed.notify_all()


ROOM = Room(ROOM_BYTES)
ONE_APART = Semaphore()
"""One process at a time: each may take much memory."""


def measured_apart(sample: Sample) -> float:
    """The bytes of a row, read by another process; raises as `bytes_per_row` does, and TooLargeError when that dies."""
    command = [sys.executable, "-m", "jobs.input.sampling"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with ONE_APART:
        try:
            done = subprocess.run(
                command,
                input=pickle.dumps(sample),
                capture_output=True,
                env=environment,
                timeout=SECONDS_APART,
                check=False,
            )
        except subprocess.TimeoutExpired:
            done = None
    if done is None or done.returncode:
        raise TooLargeError(
            sample.path, f"its first {sample.rows} rows take more than {MEMORY_APART >> 30} GiB to decode"
        )
    answer = json.loads(done.stdout)  # and no pickle: that process has read what somebody else wrote
    if "unreadable" in answer:
        raise UnreadableFileError(sample.path, *answer["unreadable"])
    if "away" in answer:
        raise (AccessError if answer["is_access"] else StoreError)(answer["away"])
    return float(answer["bytes_per_row"])


def found_in(sample: Sample) -> dict[str, Any]:
    """The bytes of a row, or why there are none, as JSON types; ends the process where memory is short."""
    try:
        return {"bytes_per_row": sample.bytes_per_row()}
    except UnreadableFileError as error:
        if "ArrowMemoryError" in error.why:
            sys.exit(1)
        return {"unreadable": [error.why, error.is_gone]}
    except StoreError as error:
        return {"away": str(error), "is_access": isinstance(error, AccessError)}


def main() -> None:
    """Reads a pickled sample from stdin, and writes what it found as JSON to stdout; dies where memory is short."""
    sample: Sample = pickle.load(sys.stdin.buffer)
    pa.set_cpu_count(1)  # each thread takes address space
    pa.set_io_thread_count(1)
    with suppress(ValueError, OSError):  # not every system limits a process, or tells what it has
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_APART, resource.RLIM_INFINITY))
    print(json.dumps(found_in(sample)))


if __name__ == "__main__":
    main()
