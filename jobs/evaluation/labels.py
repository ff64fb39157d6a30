"""Where a log has its labels, and what grades they are.

They are a list beside the documents, a field of each of them, or the ids of those that were right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.table.column_types import is_list, is_uuid, may_be_text, plain_type, struct_of
from jobs.table.columns import listed
from jobs.table.parsing import Text, column_texts
from pipelines.evaluation.sets import GRADE, LARGEST_GRADE

FLAG = "--label-column"


@dataclass(frozen=True, slots=True)
class LabelPlace:
    """The column with the labels of a file."""

    column: str
    field: str | None = None
    """Of the structs in the column, which are the documents; None where the column is a list of labels."""
    has_ids: bool = False
    """Whether the column has the ids of documents that were right, or one such id, in the place of labels."""

    def leaf(self, file: pq.ParquetFile) -> str:
        """The path of the values in a file: without it, texts of the documents would be read, too.

        A path does not tell where the name of its column ends, since a name may have dots in it. But the leaves of the
        columns stand in the order of the columns.
        """
        schema = file.schema_arrow
        place = schema.names.index(self.column)
        first = sum(number_of_leaves(field.type) for field in list(schema)[:place])
        its = range(first, first + number_of_leaves(schema.field(place).type))
        mine: list[str] = [file.metadata.schema.column(number).path for number in its]
        if self.field is not None:
            mine = [path for path in mine if path.endswith(f".{self.field}")]
        return min(mine, key=len)


def label_place(schema: pa.Schema, name: str, documents: str) -> LabelPlace | str:
    """Where the labels are that `name` means: a column, or DOCUMENTS.FIELD; or why there are none."""
    if schema.names.count(name) == 1:
        own_type = plain_type(schema.field(name).type)
        values = item_type(own_type)
        is_id = name != documents and may_be_right_id(own_type if values is None else values)
        place = LabelPlace(name, has_ids=is_id and not pa.types.is_null(own_type))
    elif name.startswith(f"{documents}.") and schema.names.count(documents) == 1:
        place = LabelPlace(documents, name.removeprefix(f"{documents}."))
        struct = struct_of(schema.field(documents).type)
        fields = [] if struct is None else [field.name for field in struct]
        if struct is None or fields.count(place.field) != 1:
            return f"{FLAG} is {name!r}, and the fields of `{documents}` are {listed(fields)}"
        values = plain_type(struct.field(place.field).type)
    else:
        others = f"; a field of the documents is {documents}.FIELD"
        return f"{FLAG} is {name!r}, and the columns are {listed(schema.names)}{others}"
    if not place.has_ids and (values is None or not is_number(values)):
        rule = (
            "it has to be a list of booleans or numbers, one for each document, or such a field of the documents, or "
            "the ids of those that were right, as texts"
        )
        return f"{FLAG} is {name!r}, which is {schema.field(place.column).type}; {rule}"
    return place


def number_of_leaves(data_type: pa.DataType) -> int:
    """How many columns of a Parquet file hold the values of a column."""
    data_type = plain_type(data_type)
    return sum(number_of_leaves(data_type.field(i).type) for i in range(data_type.num_fields)) or 1


def may_be_right_id(data_type: pa.DataType) -> bool:
    """Whether values of the type are ids in the place of labels: texts or UUIDs, since integers are grades."""
    return may_be_text(data_type) or is_uuid(data_type)


def item_type(data_type: pa.DataType) -> pa.DataType | None:
    """The type of what is in a list; None for what is no list."""
    data_type = plain_type(data_type)
    return plain_type(data_type.value_type) if is_list(data_type) else None


def is_number(data_type: pa.DataType) -> bool:
    """Whether values of the type are grades, as far as they are whole."""
    kinds: Sequence[Callable[[pa.DataType], bool]] = (
        pa.types.is_boolean,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_null,
    )
    return any(is_kind(data_type) for is_kind in kinds)


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of some rows."""

    ends: np.ndarray
    """Of row `i` are the values from `ends[i]` to `ends[i + 1]`."""
    values: np.ndarray
    """float64; NaN also for a null."""
    is_null: np.ndarray

    @classmethod
    def of(cls, column: pa.Array, place: LabelPlace) -> Labels:
        """Those of a column, whose rows are lists; a row that is null has none. An id counts as a label of 1."""
        column = plain(column)
        if pa.types.is_null(column.type):
            return cls(np.zeros(len(column) + 1, np.int64), np.empty(0), np.empty(0, bool))
        if is_list(column.type):
            lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
            values = plain(column.flatten())
        else:
            lengths, values = np.ones(len(column), np.int64), column
        if place.field is not None:
            values = plain(pc.struct_field(values, place.field))
        if place.has_ids:
            values = values.is_valid()
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        is_null = values.is_null().to_numpy(zero_copy_only=False)
        return cls(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), numbers, is_null)

    def rows_with(self, chosen: np.ndarray) -> np.ndarray:
        """For each row whether any of its values is chosen; `chosen` has a bool for each value."""
        before = np.concatenate([[0], np.cumsum(chosen)])
        return np.asarray(before[self.ends[1:]] > before[self.ends[:-1]])

    @property
    def is_fault(self) -> np.ndarray:
        """For each value whether it is there and is no grade."""
        with np.errstate(invalid="ignore"):
            is_grade = (self.values == np.floor(self.values)) & (np.abs(self.values) <= LARGEST_GRADE)
        return np.asarray(~self.is_null & ~is_grade)

    @property
    def is_positive(self) -> np.ndarray:
        """For each value whether it is above 0."""
        return np.asarray(~self.is_null & (self.values > 0))

    def grades(self, row: int) -> list[int | None]:
        """The grades of a row that has no fault; None where there is no label."""
        here = slice(self.ends[row], self.ends[row + 1])
        return [
            None if is_null else int(value)
            for value, is_null in zip(self.values[here], self.is_null[here], strict=True)
        ]

    def fault(self, row: int, name: str) -> str:
        """What is wrong with a row that has a fault."""
        here = slice(self.ends[row], self.ends[row + 1])
        place = int(np.flatnonzero(self.is_fault[here])[0])
        return f"{name} has {self.values[here][place]:g} for documents[{place}]; a grade is a {GRADE}"


def right_ids(column: pa.Array) -> list[list[Text]]:
    """The ids that each row of a column has, which are texts or lists of texts; a row that is null has none."""
    column = plain(column)
    if not is_list(column.type):
        return [[one] for one in column_texts(pa.chunked_array([column]))]
    ids = column_texts(pa.chunked_array([plain(column.flatten())]))
    ends = np.cumsum([0, *pc.list_value_length(column).fill_null(0).to_pylist()])
    return [ids[start:end] for start, end in pairwise(ends)]


def plain(array: pa.Array) -> pa.Array:
    """The array without extension types and dictionaries around its values; UUIDs stay."""
    if isinstance(array, pa.ExtensionArray) and not is_uuid(array.type):
        return plain(array.storage)
    if isinstance(array, pa.DictionaryArray):
        return plain(array.dictionary_decode())
    return array
