"""Tells whether a schema can be read; if not, which column is missing or has the wrong type, and the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields

import pyarrow as pa

from jobs.table.column_types import is_list, may_be_id, may_be_ids, may_be_text, may_be_texts, plain_type, struct_of
from jobs.table.columns import FLAG_OF_COLUMN, ColumnMapping, Layout, listed
from jobs.table.reasons import Reason
from pipelines.errors import ConfigError

ID_RULE = "text, integer, UUID, decimal without fraction or whole float"


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


def why_without_ids(schema: pa.Schema, mapping: ColumnMapping) -> str | None:
    """Why the rankings of usable list rows have no ids, although a field of their documents may hold some."""
    struct_type = struct_of(schema.field(mapping.documents).type)
    if struct_type is None or not mapping.id_field:
        return None
    names = [field.name for field in struct_type]
    if mapping.id_field in names:
        return None
    return (
        f"no field `{mapping.id_field}` in `{mapping.documents}` (there are {listed(names)}), so ids in rankings are "
        f"null; name another with {FLAG_OF_COLUMN['id_field']}; where there are none, {FLAG_OF_COLUMN['id_field']} ''"
    )


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
    wrong = _struct_of_lists(list_type, mapping) or (
        _wrong_type(list_type, mapping, "documents", may_be_ids, "a list of ids or of structs with an id")
        if mapping.by_id
        else _wrong_type(list_type, mapping, "documents", may_be_texts, "a list of texts or of structs with a text")
    )
    struct_type = struct_of(list_type)
    if wrong or struct_type is None:
        return wrong
    return _struct_fault(struct_type, mapping)


def _struct_of_lists(data_type: pa.DataType, mapping: ColumnMapping) -> _Fault | None:
    """The fault of one struct that has all texts in one list, all ids in another, and so on, as MS MARCO has them."""
    plain = plain_type(data_type)
    lists = [field.name for field in plain if is_list(plain_type(field.type))] if pa.types.is_struct(plain) else []
    if not lists:
        return None
    message = (
        f"`{mapping.documents}` is one struct with the lists {listed(lists)}, but it has to be a list; make a column "
        f"of one of them first, as in SELECT {mapping.documents}.{lists[-1]} AS documents"
    )
    return _Fault(Reason.UNUSABLE_TYPE, message)


def _struct_fault(struct_type: pa.StructType, mapping: ColumnMapping) -> _Fault | None:
    names = [field.name for field in struct_type]
    if mapping.by_id:
        return _missing(names, mapping, "id_field") or _id_fault(struct_type, mapping)
    missing = _missing(names, mapping, "text_field") or _missing_if_renamed(names, mapping, "id_field")
    if missing:
        return missing
    wrong_text = _wrong_type(struct_type.field(mapping.text_field).type, mapping, "text_field", may_be_text, "text")
    if wrong_text or mapping.id_field not in names or not mapping.id_field:
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
    return _Fault(Reason.MISSING_COLUMN, f"{place} {problem}; there are {listed(names)}; {_way_out(knob)}")


def _missing_if_renamed(names: list[str], mapping: ColumnMapping, knob: str) -> _Fault | None:
    """What may be missing under its default name must be there once the caller names it; twice is never right."""
    defaults = {field.name: field.default for field in dataclass_fields(ColumnMapping)}
    name = getattr(mapping, knob)
    if knob == "id_field" and not name:
        return None
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
        "documents": f"; for one document a row give --layout {Layout.PAIRS} and {FLAG_OF_COLUMN['document']}",
        "id_field": f"; where documents have no ids, give {FLAG_OF_COLUMN['id_field']} ''",
        "text_field": f"; where there are only ids, give {FLAG_OF_COLUMN['by_id']} and the table of their texts",
        "document": f"; for lists of documents give --layout {Layout.LISTS} and {FLAG_OF_COLUMN['documents']}",
    }
    return f"name another with {FLAG_OF_COLUMN[knob]}{or_else.get(knob, '')}"
