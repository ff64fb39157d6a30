"""An open Parquet file whose INT96 timestamps are right, whoever reads it.

INT96 is Spark's default for timestamps: a day and the nanoseconds of that day, in UTC. pyarrow reads it as nanoseconds,
in which a year before 1678 or after 2261 becomes another year without an error. Here a column of INT96 is read in
microseconds, as `timestamp[us, UTC]`. A column with digits below a microsecond is `timestamp[ns, UTC]` where all of its
values fit into nanoseconds; where they do not, the digits are cut and counted.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import islice
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipelines.stores import parse_uri

COARSE, FINE = "us", "ns"
LONGEST_FINE = (1 << 63) // 1000 - 1
"""Microseconds before and after 1970 that nanoseconds can hold."""
SCANNED_ROWS = 1 << 16
"""Rows of INT96 columns that are looked at together."""
FILES_KNOWN = 1_000
"""Files whose INT96 columns this process remembers."""


class Precision(NamedTuple):
    """What the values of a column need."""

    is_fine: bool
    """Read as nanoseconds."""
    cut: int
    """Values that lose digits below a microsecond."""

    @property
    def unit(self) -> str:
        return FINE if self.is_fine else COARSE


class OpenParquet(pq.ParquetFile):  # type: ignore[misc]
    """A ParquetFile; `source` gives what it is opened from, `version` tells the file from others of its location."""

    def __init__(self, source: Callable[[], Any], version: Hashable, **options: Any) -> None:
        super().__init__(source(), coerce_int96_timestamp_unit=COARSE, **options)
        self._source, self._options = source, options
        self._version = version
        self._known: Mapping[str, Precision] | None = None
        leaves = range(self.metadata.num_columns)
        self._is_int96 = [self.metadata.schema.column(leaf).physical_type == "INT96" for leaf in leaves]

    @property
    def schema_arrow(self) -> pa.Schema:
        """The columns as they are read."""
        schema = super().schema_arrow
        if not any(self._is_int96):
            return schema
        precisions = self._precisions()
        leaves = iter(self._is_int96)
        fields = [
            one.with_type(in_utc(one.type, leaves, precisions[one.name].unit if one.name in precisions else COARSE))
            for one in schema
        ]
        return pa.schema(fields, schema.metadata)

    @property
    def cut_timestamps(self) -> tuple[tuple[str, int], ...]:
        """The columns with values that lose digits below a microsecond, and how many values do in the whole file."""
        if not any(self._is_int96):
            return ()
        return tuple((name, one.cut) for name, one in self._precisions().items() if one.cut)

    def read(self, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        table = super().read(columns, **options)
        return self._mended(table, lambda file, names: file.read(names, **options))

    def read_row_group(self, i: int, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        table = super().read_row_group(i, columns, **options)
        return self._mended(table, lambda file, names: file.read_row_group(i, names, **options))

    def read_row_groups(self, row_groups: Sequence[int], columns: Sequence[str] | None = None, **options: Any) -> Any:
        table = super().read_row_groups(row_groups, columns, **options)
        return self._mended(table, lambda file, names: file.read_row_groups(row_groups, names, **options))

    def iter_batches(
        self, batch_size: int = 65536, row_groups: Sequence[int] | None = None, columns: Any = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        """Yields batches as a ParquetFile does, with INT96 timestamps mended."""
        batches = super().iter_batches(batch_size, row_groups, columns, **options)
        if not any(self._is_int96):
            yield from batches
            return
        names = super().schema_arrow.names if columns is None else columns
        fine = [name for name in dict.fromkeys(names) if self._is_fine(name)]
        with self._open_fine() as file:
            others = in_step(file.iter_batches(batch_size, row_groups, fine, **options) if fine else iter(()))
            for batch in batches:
                yield self._in_utc(batch, others(batch.num_rows) if fine else [])

    def _mended(self, rows: pa.Table, read_fine: Callable[[Any, list[str]], Any]) -> pa.Table:
        if not any(self._is_int96):
            return rows
        fine = [name for name in dict.fromkeys(rows.schema.names) if self._is_fine(name)]
        if not fine:
            return self._in_utc(rows, [])
        with self._open_fine() as file:
            return self._in_utc(rows, read_fine(file, fine).columns)

    def _in_utc(self, rows: Any, fine: Sequence[Any]) -> Any:
        """A table or batch with its INT96 columns as `schema_arrow` has them; `fine` are those read as nanoseconds."""
        fine_columns = iter(fine)
        raw, target = super().schema_arrow, self.schema_arrow
        columns, fields = [], []
        for field, column in zip(rows.schema, rows.columns, strict=True):
            position = raw.get_field_index(field.name)
            own = next(fine_columns) if self._is_fine(field.name) else column
            is_whole = position >= 0 and raw.field(position).type == field.type
            wanted = target.field(position).type if is_whole else own.type
            columns.append(own if own.type == wanted else own.cast(wanted))
            fields.append(field.with_type(wanted))
        return type(rows).from_arrays(columns, schema=pa.schema(fields, rows.schema.metadata))

    def _open_fine(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._source(), metadata=self.metadata, coerce_int96_timestamp_unit=FINE, **self._options)

    def _is_fine(self, name: str) -> bool:
        return name in self._precisions() and self._precisions()[name].is_fine

    def _precisions(self) -> Mapping[str, Precision]:
        """What each column with INT96 needs; raises what pyarrow raises where such a column cannot be read."""
        if self._known is None:
            footer = io.BytesIO()
            self.metadata.write_metadata_file(footer)
            self._known = KNOWN.get((self._version, footer.getvalue()), self._scanned)
        return self._known

    def _scanned(self) -> dict[str, Precision]:
        precisions, leaves = {}, iter(range(self.metadata.num_columns))
        for field in super().schema_arrow:
            own = islice(leaves, count_leaves(field.type))
            paths = [self.metadata.schema.column(leaf).path for leaf in own if self._is_int96[leaf]]
            if paths:
                precisions[field.name] = self._precision(paths)
        return precisions

    def _precision(self, paths: list[str]) -> Precision:
        """Reads some leaves in both units. Nanoseconds out of range have wrapped around, their last digits have not."""
        below, fits = 0, True
        with self._open_fine() as file:
            fine = file.iter_batches(SCANNED_ROWS, columns=paths)
            for batch, other in zip(super().iter_batches(SCANNED_ROWS, columns=paths), fine, strict=True):
                pairs = zip(timestamps_of(batch.columns), timestamps_of(other.columns), strict=True)
                for micro, nano in pairs:
                    below += int(np.count_nonzero(nano - micro * 1000))
                    fits = fits and bool(np.all(np.abs(micro) <= LONGEST_FINE))
        return Precision(is_fine=below > 0 and fits, cut=0 if fits else below)


def parquet_in(filesystem: fs.FileSystem, location: str, check_pages: bool, dictionaries: Sequence[str]) -> OpenParquet:
    """An object as a Parquet file that pyarrow reads itself; pages that lie together come in one request."""
    path = parse_uri(location).path
    return OpenParquet(
        lambda: path,
        location,
        filesystem=filesystem,
        pre_buffer=True,
        page_checksum_verification=check_pages,
        read_dictionary=list(dictionaries),
    )


def in_step(batches: Iterator[pa.RecordBatch]) -> Callable[[int], list[pa.Array]]:
    """Returns a function that gives the columns of the next rows, as many as it is asked for, wherever batches end."""
    rest: list[pa.RecordBatch] = []

    def following(rows: int) -> list[pa.Array]:
        while sum(batch.num_rows for batch in rest) < rows:
            rest.append(next(batches))
        table = pa.Table.from_batches(rest)
        rest[:] = table[rows:].to_batches()
        return [column.combine_chunks() for column in table[:rows].columns]

    return following


class KnownFiles:
    """Remembers for the files that were opened last what their INT96 columns need, so that each is scanned once."""

    def __init__(self) -> None:
        self.found: OrderedDict[Hashable, Mapping[str, Precision]] = OrderedDict()
        self.lock = Lock()

    def get(self, key: Hashable, scan: Callable[[], Mapping[str, Precision]]) -> Mapping[str, Precision]:
        """What is known of a file, or what `scan` finds."""
        with self.lock:
            known = self.found.get(key)
        if known is None:
            known = scan()
            with self.lock:
                self.found[key] = known
                while len(self.found) > FILES_KNOWN:
                    self.found.popitem(last=False)
        return known


KNOWN = KnownFiles()


def in_utc(data_type: pa.DataType, is_int96: Iterator[bool], unit: str) -> pa.DataType:
    """A type whose INT96 leaves are timestamps in UTC; `is_int96` tells of each leaf, in order, whether it is one."""
    types = pa.types
    if isinstance(data_type, pa.BaseExtensionType):
        in_utc(data_type.storage_type, is_int96, unit)
        return data_type
    if types.is_struct(data_type):
        return pa.struct([field.with_type(in_utc(field.type, is_int96, unit)) for field in data_type])
    if types.is_map(data_type):
        key, item = (
            field.with_type(in_utc(field.type, is_int96, unit)) for field in (data_type.key_field, data_type.item_field)
        )
        return pa.map_(key, item, data_type.keys_sorted)
    if not types.is_nested(data_type):
        return pa.timestamp(unit, "UTC") if next(is_int96) else data_type
    value = data_type.value_field.with_type(in_utc(data_type.value_type, is_int96, unit))
    if types.is_fixed_size_list(data_type):
        return pa.list_(value, data_type.list_size)
    makers = {types.is_large_list: pa.large_list, types.is_list: pa.list_, types.is_list_view: pa.list_view}
    return next((make for is_kind, make in makers.items() if is_kind(data_type)), pa.large_list_view)(value)


def count_leaves(data_type: pa.DataType) -> int:
    """The Parquet columns that a column of this type has."""
    if isinstance(data_type, pa.BaseExtensionType):
        return count_leaves(data_type.storage_type)
    if not pa.types.is_nested(data_type):
        return 1
    return sum(count_leaves(data_type.field(i).type) for i in range(data_type.num_fields))


def timestamps_of(arrays: Sequence[pa.Array]) -> Iterator[np.ndarray]:
    """The timestamps in arrays, at any depth, as int64; nulls are 0."""
    for array in arrays:
        if pa.types.is_struct(array.type):
            yield from timestamps_of(array.flatten())
        elif pa.types.is_nested(array.type):
            yield from timestamps_of([array.flatten()])
        else:
            yield array.cast(pa.int64()).fill_null(0).to_numpy()
