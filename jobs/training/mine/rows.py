"""Rows of a source (query, positive, negatives, group)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from jobs.table.column_types import has_texts, may_be_key, may_be_text, plain_type
from jobs.table.columns import ColumnMapping
from jobs.table.parsing import Text, column_lists, column_texts
from jobs.table.reasons import Reason
from jobs.training.bad_rows import BadRow, Fault, bad_text
from jobs.training.mine.settings import MiningColumns

TEXTS = ColumnMapping()
"""Says which field of structs has the text."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A query with the passage that is right for it."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    """Different ones, none of them blank or the positive."""
    group: str = ""
    """Page or document that the positive was taken from; empty: none."""


def why_no_source(schema: pa.Schema, columns: MiningColumns) -> str | None:
    """Why a table cannot be a source; None where it can. Only an optional column of its usual name may be missing."""
    usual = MiningColumns()
    expected = (
        (columns.query, "--query-column", may_be_text, "text", True),
        (columns.positive, "--positive-column", may_be_text, "text", True),
        (
            columns.negatives,
            "--negatives-column",
            partial(has_texts, text_field=TEXTS.text_field),
            f"a list of texts or of structs with a text in `{TEXTS.text_field}`",
            columns.negatives != usual.negatives,
        ),
        (columns.group, "--group-column", may_be_key, "text or integer", columns.group != usual.group),
    )
    for name, flag, fits, rule, is_needed in expected:
        if schema.names.count(name) > 1:
            return f"column `{name}` occurs more than once; name another with {flag}"
        if name not in schema.names:
            if is_needed:
                listed = ", ".join(f"`{one}`" for one in schema.names)
                return f"column `{name}` is missing; there are {listed}; name another with {flag}"
        elif not fits(plain_type(schema.field(name).type)):
            return f"`{name}` is {schema.field(name).type}, but it has to be {rule}; name another with {flag}"
    return None


def needed_columns(schema: pa.Schema, columns: MiningColumns) -> list[str]:
    """The columns of the table that are read."""
    wanted = (columns.query, columns.positive, columns.negatives, columns.group)
    return [name for name in wanted if name in schema.names]


def source_rows(table: pa.Table, columns: MiningColumns) -> list[SourceRow | BadRow]:
    """What each row says, or why it is bad."""
    nothing: list[None] = [None] * table.num_rows
    names = table.column_names
    groups = column_texts(table.column(columns.group)) if columns.group in names else nothing
    lists = column_lists(table.column(columns.negatives), TEXTS) if columns.negatives in names else nothing
    queries, positives = column_texts(table.column(columns.query)), column_texts(table.column(columns.positive))
    return [
        source_row(query, positive, negatives.texts if negatives is not None else [], group, columns)
        for query, positive, negatives, group in zip(queries, positives, lists, groups, strict=True)
    ]


def source_row(
    query: Text, positive: Text, negatives: Sequence[Text], group: Text, columns: MiningColumns
) -> SourceRow | BadRow:
    """What one row says, or why it is bad; a negative that is null, blank or not valid UTF-8 is left out."""
    bad = bad_text(query, Reason.NULL_QUERY, columns.query) or bad_text(positive, Fault.NO_POSITIVE, columns.positive)
    if bad is not None:
        return bad
    given = dict.fromkeys(text for text in negatives if isinstance(text, str) and text.strip() and text != positive)
    return SourceRow(str(query), str(positive), tuple(given), group if isinstance(group, str) else "")


def texts_of(rows: Sequence[SourceRow]) -> Iterator[str]:
    """Yields the passages of all rows, with repetitions."""
    return (text for row in rows for text in (row.positive, *row.negatives))
