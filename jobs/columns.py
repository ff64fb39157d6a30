"""Which columns a job reads and writes, and whether a schema has them. What is in the rows lives in `jobs.rows`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from typing import Any

import pyarrow as pa

from jobs.column_types import may_be_id, may_be_ids, may_be_text, may_be_texts, plain_type, struct_of
from pipelines.errors import ConfigError


class Layout(StrEnum):
    """What one row is."""

    LISTS = "lists"
    """A query with the list of its documents."""
    PAIRS = "pairs"
    """A query with one document, as logs and TREC runs come."""


class Reason(StrEnum):
    """Why a row has no score: the word before the colon of its `error`, stable, for counting."""

    NULL_QUERY = "null_query"
    BLANK_QUERY = "blank_query"
    NULL_DOCUMENTS = "null_documents"
    NULL_DOCUMENT = "null_document"
    UNKNOWN_DOCUMENT = "unknown_document"
    """An id that the corpus does not have."""
    AMBIGUOUS_DOCUMENT = "ambiguous_document"
    """An id that the corpus has with more than one text."""
    INVALID_UTF8 = "invalid_utf8"
    MISSING_COLUMN = "missing_column"
    """The row's file lacks a column that is read."""
    UNUSABLE_TYPE = "unusable_type"
    """In the row's file a column that is read cannot hold texts."""
    NULL_GROUP = "null_group"
    """A pair that belongs to no group."""
    DIFFERENT_QUERIES = "different_queries"
    """A group whose pairs do not have the same query."""
    GROUP_TOO_LARGE = "group_too_large"
    NOT_RANKED = "not_ranked"
    """The reranker gave no scores, and its message has no reason of its own."""


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The caller's names for what a job reads and writes."""

    query_id: str = "query_id"
    """Rides along; may be missing, unless the caller named it."""
    query: str = "query"
    documents: str = "documents"
    """List rows: a list of texts, or of structs with a text."""
    text_field: str = "text"
    """Field of a document struct that is scored."""
    id_field: str = "id"
    """Field of a document struct that rankings repeat: text or integer; may be missing, unless the caller named it."""
    document_id: str = "document_id"
    """Pair rows: rides along; may be missing, unless the caller named it."""
    document: str = "document"
    """Pair rows: the text that is scored."""
    output_prefix: str = ""
    """Put before `ranking`, `relevance_score` and `error`."""
    drop: tuple[str, ...] = ()
    """Input columns that do not come out."""
    by_id: bool = False
    """Documents are ids; their texts come from a corpus, in the column ATTACHED."""


FLAGS = {
    "query_id": "--query-id-column",
    "query": "--query-column",
    "documents": "--documents-column",
    "text_field": "--text-field",
    "id_field": "--id-field",
    "document_id": "--document-id-column",
    "document": "--document-column",
    "output_prefix": "--output-prefix",
    "drop": "--drop",
    "by_id": "--corpus",
}
"""The flag of each field of ColumnMapping; the messages below and the command line agree on it."""

ID_RULE = "text or integer"
RANKING_TYPE = pa.list_(pa.struct({"id": pa.string(), "index": pa.int32(), "relevance_score": pa.float32()}))
"""Type of the output column `ranking`: best first; `index` counts in the caller's list, from 0."""

ATTACHED = "__crossray_attached__"
"""Column between reading and scoring where documents are ids: it comes out of no job."""
ATTACHED_TYPE = pa.struct(
    {
        "documents": pa.large_list(pa.struct({"id": pa.large_string(), "text": pa.large_string()})),
        "error": pa.string(),
    }
)
"""The documents with the texts that the corpus has, or why a row cannot have them. Texts need not be valid UTF-8."""

PROBLEM = "__crossray_problem__"
"""Column of lists that were grouped from pairs: the `error` of a row that cannot be one; it comes out of no job."""


def detect_layout(schema: pa.Schema, mapping: ColumnMapping, wanted: Layout | None = None) -> Layout:
    """The layout that `wanted` names, else the one whose columns the schema has; lists if it has both.

    Raises ConfigError when a column that is read is missing or cannot hold texts.
    """
    layout = wanted or _likely_layout(schema, mapping)
    fault = _fault(schema, mapping, layout)
    if fault:
        raise ConfigError(fault.message)
    return layout


def why_unusable(schema: pa.Schema, mapping: ColumnMapping, layout: Layout) -> str | None:
    """The `error` of every row of a file with this schema; None where the file can be read."""
    fault = _fault(schema, mapping, layout)
    return f"{fault.reason}: {fault.message}" if fault else None


def check_output_names(schema: pa.Schema, mapping: ColumnMapping, layout: Layout) -> None:
    """Raises ConfigError when a column that comes out already has the name of one that is added."""
    kept = {schema.names[position] for position in kept_columns(schema, mapping)}
    for name in output_names(mapping, layout):
        if name in kept:
            raise ConfigError(
                f"the input has a column `{name}` and the output adds one; "
                f"give {FLAGS['output_prefix']} PREFIX to rename the new one, or {FLAGS['drop']} {name}"
            )


def check_dropped_columns(schemas: Iterable[pa.Schema], mapping: ColumnMapping) -> None:
    """Raises ConfigError when a column to drop is in none of the schemas."""
    names = sorted({name for schema in schemas for name in schema.names})
    for dropped in mapping.drop:
        if dropped not in names:
            raise ConfigError(f"{FLAGS['drop']} is {dropped!r}, which is no column; the columns are {_listed(names)}")


def output_names(mapping: ColumnMapping, layout: Layout) -> tuple[str, str]:
    """Names of the two columns that are added: the answer, then the error."""
    answer = "ranking" if layout is Layout.LISTS else "relevance_score"
    return mapping.output_prefix + answer, mapping.output_prefix + "error"


def mapping_of(options: Mapping[str, Any]) -> ColumnMapping:
    """The mapping among the options that a manifest keeps."""
    given = {field.name: options[field.name] for field in dataclass_fields(ColumnMapping) if field.name in options}
    return ColumnMapping(**given | {"drop": tuple(given["drop"])})


def kept_columns(schema: pa.Schema, mapping: ColumnMapping) -> list[int]:
    """Positions of the input columns that come out."""
    return [position for position, name in enumerate(schema.names) if name not in (*mapping.drop, ATTACHED, PROBLEM)]


@dataclass(frozen=True, slots=True)
class _Fault:
    reason: Reason
    message: str


def _likely_layout(schema: pa.Schema, mapping: ColumnMapping) -> Layout:
    for layout in Layout:
        if _fault(schema, mapping, layout) is None:
            return layout
    document = mapping.document_id if mapping.by_id else mapping.document
    looks_like_pairs = document in schema.names and mapping.documents not in schema.names
    return Layout.PAIRS if looks_like_pairs else Layout.LISTS


def _fault(schema: pa.Schema, mapping: ColumnMapping, layout: Layout) -> _Fault | None:
    if layout is Layout.LISTS:
        return _query_fault(schema, mapping) or _documents_fault(schema, mapping)
    if mapping.by_id:
        return (
            _query_fault(schema, mapping)
            or _missing(schema.names, mapping, "document_id")
            or _wrong_type(schema.field(mapping.document_id).type, mapping, "document_id", may_be_id, ID_RULE)
        )
    return (
        _query_fault(schema, mapping)
        or _missing(schema.names, mapping, "document")
        or _missing_if_renamed(schema.names, mapping, "document_id")
        or _wrong_type(schema.field(mapping.document).type, mapping, "document", may_be_text, "text")
    )


def _query_fault(schema: pa.Schema, mapping: ColumnMapping) -> _Fault | None:
    return (
        _missing(schema.names, mapping, "query")
        or _missing_if_renamed(schema.names, mapping, "query_id")
        or _wrong_type(schema.field(mapping.query).type, mapping, "query", may_be_text, "text")
    )


def _documents_fault(schema: pa.Schema, mapping: ColumnMapping) -> _Fault | None:
    missing = _missing(schema.names, mapping, "documents")
    if missing:
        return missing
    list_type = schema.field(mapping.documents).type
    wrong = (
        _wrong_type(list_type, mapping, "documents", may_be_ids, "a list of ids or of structs with an id")
        if mapping.by_id
        else _wrong_type(list_type, mapping, "documents", may_be_texts, "a list of texts or of structs with a text")
    )
    struct_type = struct_of(list_type)
    if wrong or struct_type is None:
        return wrong
    return _struct_fault(struct_type, mapping)


def _struct_fault(struct_type: pa.StructType, mapping: ColumnMapping) -> _Fault | None:
    names = [field.name for field in struct_type]
    if mapping.by_id:
        return _missing(names, mapping, "id_field") or _id_fault(struct_type, mapping)
    missing = _missing(names, mapping, "text_field") or _missing_if_renamed(names, mapping, "id_field")
    if missing:
        return missing
    wrong_text = _wrong_type(struct_type.field(mapping.text_field).type, mapping, "text_field", may_be_text, "text")
    if wrong_text or mapping.id_field not in names:
        return wrong_text
    return _id_fault(struct_type, mapping)


def _id_fault(struct_type: pa.StructType, mapping: ColumnMapping) -> _Fault | None:
    return _wrong_type(struct_type.field(mapping.id_field).type, mapping, "id_field", may_be_id, ID_RULE)


def _missing(names: list[str], mapping: ColumnMapping, knob: str) -> _Fault | None:
    name = getattr(mapping, knob)
    if names.count(name) == 1:
        return None
    problem = "occurs more than once" if name in names else "is missing"
    place = f"field `{name}` of `{mapping.documents}`" if knob.endswith("_field") else f"column `{name}`"
    return _Fault(Reason.MISSING_COLUMN, f"{place} {problem}; there are {_listed(names)}; {_way_out(knob)}")


def _missing_if_renamed(names: list[str], mapping: ColumnMapping, knob: str) -> _Fault | None:
    """What may be missing under its default name must be there once the caller names it; twice is never right."""
    defaults = {field.name: field.default for field in dataclass_fields(ColumnMapping)}
    name = getattr(mapping, knob)
    return None if name == defaults[knob] and name not in names else _missing(names, mapping, knob)


def _wrong_type(
    data_type: pa.DataType, mapping: ColumnMapping, knob: str, fits: Callable[[pa.DataType], bool], rule: str
) -> _Fault | None:
    if fits(plain_type(data_type)):
        return None
    message = f"`{getattr(mapping, knob)}` is {data_type}, but it has to be {rule}; {_way_out(knob)}"
    return _Fault(Reason.UNUSABLE_TYPE, message)


def _way_out(knob: str) -> str:
    or_else = {
        "documents": f"; for one document a row give --layout {Layout.PAIRS} and {FLAGS['document']}",
        "text_field": f"; where there are only ids, give {FLAGS['by_id']} and the table of their texts",
        "document": f"; for lists of documents give --layout {Layout.LISTS} and {FLAGS['documents']}",
    }
    return f"name another with {FLAGS[knob]}{or_else.get(knob, '')}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
