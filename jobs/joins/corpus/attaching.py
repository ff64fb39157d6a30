"""Attaches texts to rows whose documents are ids: in the column ATTACHED, which scoring reads.

The rows themselves stay as they are, so that what comes out has ids where what went in had ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.input.corpus import Corpus
from jobs.input.reading import read_rows
from jobs.input.row_groups import RowGroups
from jobs.input.sampling import BytesBesides, nothing_besides
from jobs.input.selection import Selection
from jobs.joins.keys import as_bytes, column_as_bytes, without_wrapping
from jobs.records import Unit
from jobs.storage import faults_of_file
from jobs.table.column_types import is_list, plain_type
from jobs.table.columns import ATTACHED, ATTACHED_TYPE, ColumnMapping, Layout
from jobs.table.faults import why_unusable
from jobs.table.reasons import Reason

Label = Callable[[int], str]
"""How an error names the document at an index of its row."""


class Found(NamedTuple):
    """What a corpus has for a number of ids."""

    texts: pa.Array
    """large_binary; null where `problems` says why."""
    problems: dict[int, tuple[Reason, str]]
    """Reason and explanation by the position of the id."""


class TextSource(Protocol):
    """A corpus that can be asked for texts."""

    def look_up(self, ids: pa.Array, unit: Unit) -> Found:
        """The texts of ids (large_binary, with nulls): all those of the rows of a unit, in their order."""


@dataclass(frozen=True, slots=True)
class TextsById:
    """How documents that are ids get their texts."""

    mapping: ColumnMapping
    bytes_per_text: float
    """Expected: a row counts with its texts when units are cut."""
    layout: Layout = Layout.LISTS
    """Known once the input is planned."""
    source: TextSource | None = None
    """None while there is only a plan."""

    def expected_bytes(self, rows: pa.RecordBatch) -> float:
        """Bytes that all texts of some rows are expected to have, each as often as it is named."""
        position = rows.schema.get_field_index(self.mapping.documents)
        named = rows.num_rows
        if position >= 0 and is_list(plain_type(rows.schema.field(position).type)):
            named = pc.sum(pc.list_value_length(without_wrapping(rows.column(position)))).as_py() or 0
        return float(named * self.bytes_per_text)

    def attach(self, table: pa.Table, unit: Unit) -> pa.Table:
        """The rows with the column ATTACHED, which is null where a file cannot be used."""
        if self.source is None:
            return table
        if why_unusable(table.schema, self.mapping, self.layout):
            return table.append_column(ATTACHED, pa.nulls(table.num_rows, ATTACHED_TYPE))
        named = self.named_documents(table)
        found = self.source.look_up(named.ids, unit)
        problems = {at: problem for at, problem in found.problems.items() if self.costs_its_row(problem[0])}
        return table.append_column(ATTACHED, attached_column(named, Found(found.texts, problems), self.label))

    def costs_its_row(self, reason: Reason) -> bool:
        """Whether a row is an error for it: a null document of a list is none, unless documents are strict."""
        return reason != Reason.NULL_DOCUMENT or self.layout is Layout.PAIRS or self.mapping.strict_documents

    def named_documents(self, table: pa.Table) -> NamedDocuments:
        """The ids in the rows of a usable table."""
        if self.layout is Layout.PAIRS:
            ids = column_as_bytes(table.column(self.mapping.document_id))
            return NamedDocuments(ids, np.ones(len(ids), np.int64), np.zeros(len(ids), bool))
        chunks = [documents_of_lists(chunk, self.mapping) for chunk in table.column(self.mapping.documents).chunks]
        return NamedDocuments(
            pa.concat_arrays([pa.nulls(0, pa.large_binary()), *(one.ids for one in chunks)]),
            np.concatenate([np.empty(0, np.int64), *(one.lengths for one in chunks)]),
            np.concatenate([np.empty(0, bool), *(one.is_null for one in chunks)]),
        )

    def label(self, index: int) -> str:
        """How an error names a document of a row."""
        return self.mapping.document_id if self.layout is Layout.PAIRS else f"{self.mapping.documents}[{index}]"


def bytes_of_texts(corpus: Corpus | None, mapping: ColumnMapping) -> BytesBesides:
    """How many bytes of text a row is expected to get from a corpus, as a function of rows."""
    return nothing_besides if corpus is None else TextsById(mapping, corpus.found.bytes_per_row).expected_bytes


def read_with_texts(
    unit: Unit, selection: Selection, texts: TextsById | None, groups: RowGroups | None = None
) -> pa.Table:
    """The rows of a unit as `read_rows` has them, with the texts of their ids where these come from elsewhere.

    Raises UnreadableFileError for the unit's file; StoppedError or StoreError where the texts cannot be had.
    """
    table = read_rows(unit, selection, groups)
    with faults_of_file(unit.path):
        return table if texts is None else texts.attach(table, unit)


class NamedDocuments(NamedTuple):
    """The ids of all rows, one row after the other."""

    ids: pa.Array
    lengths: np.ndarray
    """How many of them each row has."""
    is_null: np.ndarray
    """Rows without a list."""


def documents_of_lists(lists: pa.Array, mapping: ColumnMapping) -> NamedDocuments:
    """The ids that some lists hold, which are lists of ids or of structs with an id."""
    lists = without_wrapping(lists)
    if pa.types.is_null(lists.type):
        nothing = np.zeros(len(lists), np.int64)
        return NamedDocuments(pa.nulls(0, pa.large_binary()), nothing, np.ones(len(lists), bool))
    documents = without_wrapping(lists.flatten())
    if pa.types.is_struct(documents.type):
        documents = pc.struct_field(documents, [documents.type.get_field_index(mapping.id_field)])
    lengths = pc.list_value_length(lists)
    is_null = np.asarray(lengths.is_null().to_numpy(zero_copy_only=False))
    return NamedDocuments(as_bytes(documents), lengths.cast(pa.int64()).fill_null(0).to_numpy(), is_null)


def attached_column(named: NamedDocuments, found: Found, label: Label) -> pa.Array:
    """The column ATTACHED: for each row its documents, or the error of the first one that has no text."""
    ends = np.cumsum(named.lengths)
    fields = list(ATTACHED_TYPE.field("documents").type.value_type)
    documents = pa.StructArray.from_arrays(
        [named.ids.view(pa.large_string()), found.texts.view(pa.large_string())], fields=fields
    )
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64(), mask=np.append(named.is_null, False))
    lists = pa.LargeListArray.from_arrays(offsets, documents, type=ATTACHED_TYPE.field("documents").type)
    errors = pa.array(row_errors(ends, found.problems, label), pa.string())
    return pa.StructArray.from_arrays([lists, errors], fields=list(ATTACHED_TYPE))


def row_errors(ends: np.ndarray, problems: dict[int, tuple[Reason, str]], label: Label) -> list[str | None]:
    """The error of each row that ends before `ends`; the first problem counts."""
    errors: list[str | None] = [None] * len(ends)
    for position in sorted(problems, reverse=True):
        row = int(np.searchsorted(ends, position, side="right"))
        reason, why = problems[position]
        start = int(ends[row - 1]) if row else 0
        errors[row] = f"{reason}: {label(position - start)} {why}"
    return errors
