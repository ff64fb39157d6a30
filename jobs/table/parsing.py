"""Turns the rows of an Arrow table into candidate lists. A bad row becomes an error and costs no other row.

The texts of a row are decoded (`_texts`) and judged (`_list_row`, `_pair_row`) here. The list is scored elsewhere, and
its ranking becomes two more columns in `jobs.table.answers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.table.column_types import is_uuid, plain_type
from jobs.table.columns import ATTACHED, ATTACHED_FIELDS, ATTACHED_TYPE, PROBLEM, ColumnMapping, Layout
from jobs.table.faults import why_unusable
from jobs.table.id_texts import id_texts, is_whole
from jobs.table.reasons import Reason
from pipelines.errors import InvalidInputError
from pipelines.records import CandidateList

Text = str | UnicodeDecodeError | None
"""A value of a text column: bytes that are not UTF-8 stay in place as the error that decoding them raises."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A row as the reranker takes it, or why it cannot be one: either `candidates` or `error` is None, never both."""

    candidates: CandidateList | None
    ids: list[str | None] | None
    """The documents' ids in the caller's order; None where they have none."""
    error: str | None
    """`reason: detail`; the reason is one of `jobs.table.reasons.Reason`."""
    null_documents: tuple[int, ...] = ()
    """Indexes in the caller's list of documents that are null; they are no candidates."""


def parse_rows(table: pa.Table, layout: Layout, mapping: ColumnMapping) -> list[ParsedRow]:
    """One ParsedRow per row of a table, which has list rows or pair rows."""
    return parse_lists(table, mapping) if layout is Layout.LISTS else parse_pairs(table, mapping)


def parse_lists(table: pa.Table, mapping: ColumnMapping) -> list[ParsedRow]:
    """One ParsedRow per row of a table of list rows; every row has the error if the table's schema is unusable."""
    unusable = why_unusable(table.schema, mapping, Layout.LISTS)
    if unusable:
        return [_failed(unusable)] * table.num_rows
    queries = column_texts(table.column(mapping.query))
    lists = _attached(table) if mapping.by_id else column_lists(table.column(mapping.documents), mapping)
    return [
        _list_row(query, documents, mapping) if problem is None else _failed(problem)
        for query, documents, problem in zip(queries, lists, _problems(table), strict=True)
    ]


def parse_pairs(table: pa.Table, mapping: ColumnMapping) -> list[ParsedRow]:
    """One ParsedRow, with a list of one document, per row of a table of pair rows; otherwise as `parse_lists`."""
    unusable = why_unusable(table.schema, mapping, Layout.PAIRS)
    if unusable:
        return [_failed(unusable)] * table.num_rows
    queries = column_texts(table.column(mapping.query))
    if mapping.by_id:
        documents = [None if row is None else row.texts[0] for row in _attached(table)]
    else:
        documents = column_texts(table.column(mapping.document))
    return [
        _pair_row(query, document, mapping) if problem is None else _failed(problem)
        for query, document, problem in zip(queries, documents, _problems(table), strict=True)
    ]


class Documents(NamedTuple):
    """The documents of one row, not judged yet."""

    texts: list[Text]
    ids: list[Text | float] | None
    """A float is one that is not whole."""


def _list_row(query: Text, documents: Documents | None, mapping: ColumnMapping) -> ParsedRow:
    try:
        checked_query = _checked_query(query, mapping)
        if documents is None:
            raise InvalidInputError(f"{Reason.NULL_DOCUMENTS}: {mapping.documents} is null")
        texts = _checked_texts(documents.texts, mapping)
        nulls = tuple(index for index, text in enumerate(documents.texts) if text is None)
        return ParsedRow(CandidateList(checked_query, texts), _checked_ids(documents.ids, mapping), None, nulls)
    except InvalidInputError as error:
        return _failed(str(error))


def _pair_row(query: Text, document: Text, mapping: ColumnMapping) -> ParsedRow:
    try:
        checked_query = _checked_query(query, mapping)
        if not isinstance(document, str):
            _refuse(document, Reason.NULL_DOCUMENT, mapping.document)
        return ParsedRow(CandidateList(checked_query, [document]), None, None)
    except InvalidInputError as error:
        return _failed(str(error))


def _failed(error: str) -> ParsedRow:
    return ParsedRow(candidates=None, ids=None, error=error)


def _checked_query(query: Text, mapping: ColumnMapping) -> str:
    if not isinstance(query, str):
        _refuse(query, Reason.NULL_QUERY, mapping.query)
    if not query.strip():
        raise InvalidInputError(f"{Reason.BLANK_QUERY}: {mapping.query} has nothing but white space")
    return query


def _checked_texts(texts: list[Text], mapping: ColumnMapping) -> list[str]:
    """The texts that are there; a null is left out, unless documents are strict."""
    return [
        text if isinstance(text, str) else _refuse(text, Reason.NULL_DOCUMENT, f"{mapping.documents}[{index}]")
        for index, text in enumerate(texts)
        if text is not None or mapping.strict_documents
    ]


def _checked_ids(ids: list[Text | float] | None, mapping: ColumnMapping) -> list[str | None] | None:
    """Ids may be null; but what is not UTF-8, or has no one text, cannot be repeated in a ranking."""
    if ids is None:
        return None
    return [
        _refuse(value, Reason.INVALID_UTF8, f"{mapping.documents}[{index}].{mapping.id_field}")
        if isinstance(value, UnicodeDecodeError | float)
        else value
        for index, value in enumerate(ids)
    ]


def _refuse(value: UnicodeDecodeError | float | None, if_null: Reason, place: str) -> NoReturn:
    if isinstance(value, float):
        raise InvalidInputError(f"{Reason.UNUSABLE_ID}: {place} is {value!r}, a float that stands for no one integer")
    if value is None:
        raise InvalidInputError(f"{if_null}: {place} is null")
    raise InvalidInputError(f"{Reason.INVALID_UTF8}: {place} is not valid UTF-8 at byte {value.start}")


def _lists(lists: pa.Array, mapping: ColumnMapping) -> list[Documents | None]:
    """The documents of each row of one chunk; decoded all at once, then cut at the lists' ends."""
    lists = _decoded(lists)
    if pa.types.is_null(lists.type):
        return [None] * len(lists)
    texts, ids = _flat_documents(_decoded(lists.flatten()), mapping)
    rows: list[Documents | None] = []
    start = 0
    for length in pc.list_value_length(lists).to_pylist():
        end = start + (length or 0)
        cut = Documents(texts[start:end], None if ids is None else ids[start:end])
        rows.append(None if length is None else cut)
        start = end
    return rows


def _attached(table: pa.Table) -> list[Documents | None]:
    """The documents that `jobs.joins.corpus.attaching` gave each row."""
    chunks = [pc.struct_field(chunk, "documents") for chunk in table.column(ATTACHED).chunks]
    return column_lists(pa.chunked_array(chunks, ATTACHED_TYPE.field("documents").type), ATTACHED_FIELDS)


def _problems(table: pa.Table) -> list[str | None]:
    """Why rows cannot be ranked, as far as stages before have found out."""
    problems: list[str | None] = [None] * table.num_rows
    if PROBLEM in table.column_names:
        problems = table.column(PROBLEM).to_pylist()
    if ATTACHED not in table.column_names:
        return problems
    errors = chain.from_iterable(pc.struct_field(chunk, "error").to_pylist() for chunk in table.column(ATTACHED).chunks)
    return [problem or error for problem, error in zip(problems, errors, strict=True)]


def column_lists(column: pa.ChunkedArray, mapping: ColumnMapping) -> list[Documents | None]:
    """The documents of each row of a column of lists, not judged yet; None for a null."""
    return [row for chunk in column.chunks for row in _lists(chunk, mapping)]


def _flat_documents(documents: pa.Array, mapping: ColumnMapping) -> tuple[list[Text], list[Text | float] | None]:
    if not pa.types.is_struct(documents.type):
        return _texts(documents), None
    text_position, id_position = map(documents.type.get_field_index, (mapping.text_field, mapping.id_field))
    texts = _texts(pc.struct_field(documents, [text_position]))
    has_ids = id_position >= 0 and mapping.id_field != ""
    return texts, _ids(pc.struct_field(documents, [id_position])) if has_ids else None


def _ids(array: pa.Array) -> list[Text | float]:
    """The texts of ids; a float that has no one text stays one."""
    ids: list[Text | float] = [*_texts(array)]
    if pa.types.is_floating(array.type):
        for i in np.flatnonzero(~is_whole(array)).tolist():
            ids[i] = array[i].as_py()
    return ids


def _decoded(array: pa.Array) -> pa.Array:
    """The array as its `plain_type`. Texts are left encoded, `_texts` decodes each entry of a dictionary once."""
    if isinstance(array, pa.ExtensionArray):
        return _decoded(array.storage)
    if isinstance(array, pa.DictionaryArray) and pa.types.is_nested(plain_type(array.type)):
        return _decoded(array.dictionary_decode())
    return array


def column_texts(column: pa.ChunkedArray) -> list[Text]:
    """Each value of a column of texts."""
    return [text for chunk in column.chunks for text in _texts(chunk)]


def _texts(array: pa.Array) -> list[Text]:
    """Python strings of an array of texts or ids, all at once if all is UTF-8 and one by one if not."""
    if isinstance(array, pa.ExtensionArray) and not is_uuid(array.type):
        return _texts(array.storage)
    if isinstance(array, pa.DictionaryArray):
        entries = _texts(array.dictionary)
        return [None if entry is None else entries[entry] for entry in array.indices.to_pylist()]
    array = id_texts(array)
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        values = array.cast(pa.large_binary()).to_pylist()
    return [_from_utf8(value) if isinstance(value, bytes) else value for value in values]


def _from_utf8(value: bytes) -> Text:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        return error
