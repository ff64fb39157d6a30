"""The columns that a job reads and writes, and their names. `jobs.table.faults` tells whether a schema has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from pipelines.errors import ConfigError


class Layout(StrEnum):
    """What one row is."""

    LISTS = "lists"
    """A query with the list of its documents."""
    PAIRS = "pairs"
    """A query with one document, as logs and TREC runs come."""


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The names that the caller's columns have, and those that the new ones get."""

    query_id: str = "query_id"
    """Rides along; may be missing, unless the caller named it."""
    query: str = "query"
    documents: str = "documents"
    """List rows: a list of texts, or of structs with a text."""
    text_field: str = "text"
    """Field of a document struct that is scored."""
    id_field: str = "id"
    """Field of a document struct that rankings repeat; may be missing, unless the caller named it. Empty: no ids."""
    document_id: str = "document_id"
    """Pair rows: rides along; may be missing, unless the caller named it."""
    document: str = "document"
    """Pair rows: the text that is scored."""
    output_prefix: str = ""
    """Put before `ranking`, `relevance_score` and `error`."""
    drop: tuple[str, ...] = ()
    """Input columns that do not come out."""
    strict_documents: bool = False
    """A list with a null document has an error; else its other documents are ranked, and null ones come last."""
    by_id: bool = False
    """Documents are ids; their texts come from a corpus, in the column ATTACHED."""


@dataclass(frozen=True, slots=True)
class GroupBy:
    """How pair rows become lists."""

    column: str
    """Rows with the same value are one list."""
    rank_column: str | None = None
    """The column of numbers by which a list is ordered; None is `rank` if all files have it, else the rows' order."""


FLAG_OF_COLUMN = {
    "query_id": "--query-id-column",
    "query": "--query-column",
    "documents": "--documents-column",
    "text_field": "--text-field",
    "id_field": "--id-field",
    "document_id": "--document-id-column",
    "document": "--document-column",
    "output_prefix": "--output-prefix",
    "drop": "--drop",
    "strict_documents": "--strict-documents",
    "by_id": "--corpus",
}
"""The flag of each field of ColumnMapping; the messages below and the command line agree on it."""

RANKING_TYPE = pa.list_(pa.struct({"id": pa.string(), "index": pa.int32(), "relevance_score": pa.float32()}))
"""Type of the output column `ranking`: best first; `index` counts in the caller's list, from 0.

Null documents come after all others, in their order, with a null score."""

ATTACHED = "__crossray_attached__"
"""The column with a row's documents where the input has ids. It is added by reading and dropped by writing."""
ATTACHED_FIELDS = ColumnMapping(id_field="id", text_field="text")
"""The names of the fields of its documents, which do not depend on the caller's."""
ATTACHED_TYPE = pa.struct(
    {
        "documents": pa.large_list(
            pa.struct({ATTACHED_FIELDS.id_field: pa.large_string(), ATTACHED_FIELDS.text_field: pa.large_string()})
        ),
        "error": pa.string(),
    }
)
"""The documents with the texts that the corpus has, or why a row cannot have them. Texts need not be valid UTF-8."""

PROBLEM = "__crossray_problem__"
"""The column of grouped lists with the `error` of pairs that cannot be one list. Writing drops it."""


RESERVED = (ATTACHED, PROBLEM)
"""Names that a column of INPUT cannot have: such a column would be taken for ours."""


def check_output_names(schema: pa.Schema, mapping: ColumnMapping, layout: Layout) -> None:
    """Raises ConfigError when a column that comes out already has the name of one that is added."""
    name = twice_in_output(schema, mapping, layout)
    if name is not None:
        raise ConfigError(
            f"the input has a column `{name}` and the output adds one; "
            f"give {FLAG_OF_COLUMN['output_prefix']} PREFIX to rename the new one, or {FLAG_OF_COLUMN['drop']} {name}"
        )


def twice_in_output(schema: pa.Schema, mapping: ColumnMapping, layout: Layout) -> str | None:
    """The first name that a column which comes out shares with one that is added; None where there is none."""
    kept = {schema.names[position] for position in kept_columns(schema, mapping)}
    return next((name for name in output_names(mapping, layout) if name in kept), None)


def check_reserved_names(schema: pa.Schema) -> None:
    """Raises ConfigError when a column of INPUT has a name that only we give."""
    for name in RESERVED:
        if name in schema.names:
            raise ConfigError(f"the input has a column `{name}`, a name that is reserved; rename it")


def why_not_written(schema: pa.Schema, mapping: ColumnMapping, layout: Layout) -> str | None:
    """Why a file that comes when the names of the output are settled can have no part; None where it can."""
    for name in (twice_in_output(schema, mapping, layout), *RESERVED):
        if name in schema.names:
            return f"has a column `{name}`, and the output of this job has one of its own; rename it in the file"
    return None


def check_dropped_columns(schemas: Iterable[pa.Schema], mapping: ColumnMapping) -> None:
    """Raises ConfigError when a column to drop is in none of the schemas."""
    names = sorted({name for schema in schemas for name in schema.names})
    for dropped in mapping.drop:
        if dropped not in names:
            raise ConfigError(
                f"{FLAG_OF_COLUMN['drop']} is {dropped!r}, which is no column; the columns are {listed(names)}"
            )


def output_names(mapping: ColumnMapping, layout: Layout) -> tuple[str, str]:
    """Names of the two columns that are added: the answer, then the error."""
    answer = "ranking" if layout is Layout.LISTS else "relevance_score"
    return mapping.output_prefix + answer, mapping.output_prefix + "error"


def kept_columns(schema: pa.Schema, mapping: ColumnMapping) -> list[int]:
    """Positions of the input columns that come out."""
    return [position for position, name in enumerate(schema.names) if name not in (*mapping.drop, *RESERVED)]


def listed(names: Iterable[str]) -> str:
    """Names of columns, as messages have them."""
    return ", ".join(f"`{name}`" for name in names) or "none"
