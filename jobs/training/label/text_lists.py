"""Reads Arrow rows as lists of texts, in which a null document is None, and makes a column of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.table.columns import ColumnMapping, Layout
from jobs.table.faults import why_unusable
from jobs.table.parsing import Text, column_lists, column_texts
from jobs.table.reasons import Reason
from jobs.training.bad_rows import BadRow, bad_text

SCORES_TYPE = pa.list_(pa.float32())


@dataclass(frozen=True, slots=True)
class TextList:
    """A query and its documents; a null document is None."""

    query: str
    documents: list[str | None]

    @property
    def places(self) -> list[int]:
        """Places of the documents that are not null."""
        return [place for place, document in enumerate(self.documents) if document is not None]

    @property
    def texts(self) -> list[str]:
        """The documents that are not null."""
        return [document for document in self.documents if document is not None]


def text_lists(table: pa.Table, mapping: ColumnMapping) -> list[TextList | BadRow]:
    """A list for each row, or why the row is bad; all rows are bad where the table lacks a column that is needed."""
    unusable = why_unusable(table.schema, mapping, Layout.LISTS)
    if unusable is not None:
        reason, _, detail = unusable.partition(": ")
        return [BadRow(reason, detail)] * table.num_rows
    queries = column_texts(table.column(mapping.query))
    documents = column_lists(table.column(mapping.documents), mapping)
    return [
        text_list(query, None if found is None else found.texts, mapping)
        for query, found in zip(queries, documents, strict=True)
    ]


def text_list(query: Text, documents: list[Text] | None, mapping: ColumnMapping) -> TextList | BadRow:
    """The list of one row, or why the row is bad."""
    bad = bad_text(query, Reason.NULL_QUERY, mapping.query)
    if bad is not None:
        return bad
    if documents is None:
        return BadRow(Reason.NULL_DOCUMENTS, f"{mapping.documents} is null")
    texts: list[str | None] = []
    for place, document in enumerate(documents):
        if isinstance(document, UnicodeDecodeError):
            detail = f"{mapping.documents}[{place}] is not valid UTF-8 at byte {document.start}"
            return BadRow(Reason.INVALID_UTF8, detail)
        texts.append(document)
    return TextList(str(query), texts)


def scores_array(scores: Sequence[np.ndarray | None]) -> pa.Array:
    """The column with a list of scores for each row; NaN becomes null."""
    rows = [None if row is None else [None if np.isnan(x) else float(x) for x in row] for row in scores]
    return pa.array(rows, SCORES_TYPE)
