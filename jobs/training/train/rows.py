"""Reads Arrow rows as training rows: a query with its passages and their labels. A bad row costs no other row.

The columns tell which of three layouts a table has: lists (`documents` with `labels`, `teacher` or both), positives
(`positive`, perhaps with `negatives`, `negative` or `group`), or graded pairs (`document`, `label`). Neighbouring pairs
with the same query are one list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from functools import partial
from itertools import groupby

import pyarrow as pa

from jobs.table.column_types import has_texts, is_list, may_be_key, may_be_text, plain_type
from jobs.table.columns import ColumnMapping
from jobs.table.parsing import Documents, Text, column_lists, column_texts
from jobs.table.reasons import Reason
from jobs.training.bad_rows import BadRow, Fault, bad_text
from jobs.training.train.config import Columns

UNKNOWN = math.nan
LARGEST = 65504
"""The largest float16: labels and teacher scores are kept as such."""
RULE = f"a number from -{LARGEST} to {LARGEST} is needed"


class TrainingLayout(StrEnum):
    """How a table holds training rows."""

    LISTS = "lists"
    POSITIVES = "positives"
    PAIRS = "pairs"


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A query and its passages; labels and teacher scores are NaN where unknown."""

    query: str
    passages: list[str]
    labels: list[float]
    teacher: list[float]
    group: str = ""


def layout_of(schema: pa.Schema, columns: Columns) -> TrainingLayout:
    """The layout of a table; raises ValueError, which says what is missing or of the wrong type.

    A column that was given a name has to be there, also one that a table may lack.
    """

    def has(name: str) -> bool:
        if schema.names.count(name) > 1:
            raise ValueError(f"column {name!r} occurs more than once")
        return name in schema.names

    def expect(name: str, fits: Callable[[pa.DataType], bool], what: str) -> None:
        if has(name) and not fits(plain_type(schema.field(name).type)):
            raise ValueError(f"column {name!r} is {schema.field(name).type}, not {what}")

    if not has(columns.query):
        raise ValueError(f"there is no column {columns.query!r}; the table has {', '.join(schema.names)}")
    for one in fields(columns):
        name = getattr(columns, one.name)
        if one.name != "text_field" and name != one.default and not has(name):
            raise ValueError(f"there is no column {name!r} for {one.name}; the table has {', '.join(schema.names)}")
    expect(columns.query, may_be_text, "texts")
    texts = partial(has_texts, text_field=columns.text_field)
    rule = f"lists of texts or of structs with a text in {columns.text_field!r}"
    if has(columns.documents):
        expect(columns.documents, texts, rule)
        if not has(columns.labels) and not has(columns.teacher):
            raise ValueError(f"neither {columns.labels!r} nor {columns.teacher!r} says what is to be learnt")
        for name in (columns.labels, columns.teacher):
            expect(name, lambda kind: is_list(kind) or pa.types.is_null(kind), "lists of numbers")
        expect(columns.group, may_be_key, "texts")
        return TrainingLayout.LISTS
    if has(columns.positive):
        for name in (columns.positive, columns.negative, columns.group):
            expect(name, may_be_key, "texts")
        expect(columns.negatives, texts, rule)
        return TrainingLayout.POSITIVES
    if has(columns.document) and has(columns.label):
        expect(columns.document, may_be_text, "texts")
        return TrainingLayout.PAIRS
    raise ValueError(
        f"there is no column {columns.documents!r}, no {columns.positive!r}, and not both {columns.document!r} and "
        f"{columns.label!r}; the table has {', '.join(schema.names)}"
    )


def needed_columns(schema: pa.Schema, columns: Columns) -> list[str]:
    """The columns of the table that are read."""
    layout = layout_of(schema, columns)
    of_layout = {
        TrainingLayout.LISTS: (columns.query, columns.documents, columns.labels, columns.teacher, columns.group),
        TrainingLayout.POSITIVES: (columns.query, columns.positive, columns.negatives, columns.negative, columns.group),
        TrainingLayout.PAIRS: (columns.query, columns.document, columns.label),
    }
    return [name for name in of_layout[layout] if name in schema.names]


def training_rows(
    table: pa.Table, columns: Columns, *, positives_only: bool = True
) -> Iterator[tuple[int, TrainingRow | BadRow]]:
    """Yields (row number, what the row says); neighbouring pairs with the same query are one row.

    Nothing can be learnt from a row without a positive; without `positives_only` it counts all the same, as it does
    where scores are calibrated.
    """
    layout = layout_of(table.schema, columns)
    queries = column_texts(table.column(columns.query))
    if layout is TrainingLayout.LISTS:
        yield from enumerate(list_rows(table, queries, columns, positives_only=positives_only))
    elif layout is TrainingLayout.POSITIVES:
        yield from enumerate(positive_rows(table, queries, columns))
    else:
        yield from pair_rows(table, queries, columns, positives_only=positives_only)


def list_rows(
    table: pa.Table, queries: Sequence[Text], columns: Columns, *, positives_only: bool = True
) -> Iterator[TrainingRow | BadRow]:
    """Reads the layout LISTS; a null document is left out, with its label."""
    documents = lists_of_texts(table, columns.documents, columns)
    labels, teacher = (
        table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
        for name in (columns.labels, columns.teacher)
    )
    for query, found, grades, scores, group in zip(
        queries, documents, labels, teacher, groups_of(table, columns), strict=True
    ):
        if bad := bad_text(query, Reason.NULL_QUERY, columns.query):
            yield bad
        elif found is None or not found.texts:
            yield BadRow(Reason.NULL_DOCUMENTS, f"{columns.documents} is {'null' if found is None else 'empty'}")
        else:
            row = list_row(str(query), found.texts, grades, scores, group, columns)
            why = "" if isinstance(row, BadRow) or not positives_only else nothing_to_learn(row, columns)
            yield BadRow(Fault.NOTHING_TO_LEARN, why) if why else row


def list_row(
    query: str,
    texts: Sequence[Text],
    grades: list[object] | None,
    scores: list[object] | None,
    group: str,
    columns: Columns,
) -> TrainingRow | BadRow:
    """Reads one list whose query is a good text."""
    numbers: list[list[float]] = []
    for name, values, read in ((columns.labels, grades, grade_of), (columns.teacher, scores, number_of)):
        if values is not None and len(values) != len(texts):
            return BadRow(Fault.LABELS_DO_NOT_MATCH, f"{len(texts)} documents and {len(values)} {name}")
        found = [read(value) for value in values or [None] * len(texts)]
        if None in found:
            value = (values or [])[found.index(None)]
            return BadRow(Fault.LABEL_IS_NO_NUMBER, f"{name}[{found.index(None)}] is {value!r}; {RULE}")
        numbers.append([number for number in found if number is not None])
    for i, text in enumerate(texts):
        if isinstance(text, UnicodeDecodeError):
            return BadRow(Reason.INVALID_UTF8, f"{columns.documents}[{i}] is not valid UTF-8 at byte {text.start}")
    kept = [i for i, text in enumerate(texts) if text is not None]
    labels, teacher = ([values[i] for i in kept] for values in numbers)
    return TrainingRow(query, [str(texts[i]) for i in kept], labels, teacher, group)


def nothing_to_learn(row: TrainingRow, columns: Columns) -> str:
    """Why a list teaches nothing; empty where it does: by a passage that is right, or a teacher who compares some.

    A list that a teacher scored gets no passages of other rows, which have no scores.
    """
    if not all(math.isnan(score) for score in row.teacher):
        return "" if len(row.passages) > 1 else f"{columns.documents} has one document, and no other to compare it with"
    if any(label > 0 for label in row.labels):
        return ""
    return f"no label of {columns.labels} is above 0, and no teacher scored"


def positive_rows(table: pa.Table, queries: Sequence[Text], columns: Columns) -> Iterator[TrainingRow | BadRow]:
    """Reads the layout POSITIVES: the positive gets the label 1, negatives of the row get 0."""
    names = table.column_names
    nothing: list[None] = [None] * table.num_rows
    single = column_texts(table.column(columns.negative)) if columns.negative in names else nothing
    several = lists_of_texts(table, columns.negatives, columns) if columns.negatives in names else nothing
    positives = column_texts(table.column(columns.positive))
    for query, positive, one, more, group in zip(
        queries, positives, single, several, groups_of(table, columns), strict=True
    ):
        bad = bad_text(query, Reason.NULL_QUERY, columns.query) or bad_text(
            positive, Fault.NO_POSITIVE, columns.positive
        )
        if bad:
            yield bad
            continue
        negatives = dict.fromkeys(text for text in (one, *(more.texts if more else ())) if isinstance(text, str))
        passages = [str(positive), *(text for text in negatives if text.strip() and text != positive)]
        labels = [1.0] + [0.0] * (len(passages) - 1)
        yield TrainingRow(str(query), passages, labels, [UNKNOWN] * len(passages), group)


def lists_of_texts(table: pa.Table, name: str, columns: Columns) -> list[Documents | None]:
    """The texts of a column of lists."""
    return column_lists(table.column(name), ColumnMapping(text_field=columns.text_field))


def groups_of(table: pa.Table, columns: Columns) -> list[str]:
    """The group of each row; empty where it has none."""
    if columns.group not in table.column_names:
        return [""] * table.num_rows
    return [group if isinstance(group, str) else "" for group in column_texts(table.column(columns.group))]


def pair_rows(
    table: pa.Table, queries: Sequence[Text], columns: Columns, *, positives_only: bool = True
) -> Iterator[tuple[int, TrainingRow | BadRow]]:
    """Reads the layout PAIRS: neighbouring rows with the same query become one."""
    documents = column_texts(table.column(columns.document))
    labels = [grade_of(value) for value in table.column(columns.label).to_pylist()]
    values = table.column(columns.label)
    good: list[tuple[int, str, str, float]] = []
    for row, (query, document, label) in enumerate(zip(queries, documents, labels, strict=True)):
        bad = bad_text(query, Reason.NULL_QUERY, columns.query)
        if bad is None and not isinstance(document, str):
            bad = bad_text(document, Reason.NULL_DOCUMENT, columns.document)
        if bad is None and (label is None or math.isnan(label)):
            bad = BadRow(Fault.LABEL_IS_NO_NUMBER, f"{columns.label} is {values[row].as_py()!r}; {RULE}")
        if bad:
            yield row, bad
        elif label is not None:
            good.append((row, str(query), str(document), label))
    for query, run in groupby(good, key=lambda pair: pair[1]):
        pairs = list(run)
        texts, grades = [pair[2] for pair in pairs], [pair[3] for pair in pairs]
        if max(grades) > 0 or not positives_only:
            yield pairs[0][0], TrainingRow(query, texts, grades, [UNKNOWN] * len(texts))
        else:
            why = BadRow(Fault.NOTHING_TO_LEARN, f"no {columns.label} of its query's neighbouring rows is above 0")
            yield from ((pair[0], why) for pair in pairs)


def grade_of(value: object) -> float | None:
    """A label as `number_of` has it; one below 0 says the same as 0: wrong."""
    number = number_of(value)
    return 0.0 if number is not None and number < 0 else number


def number_of(value: object) -> float | None:
    """A label or score as a number: NaN for null, None for what is no number or too large; "3" is 3."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float | Decimal):
        number = float(value)
        return number if abs(number) <= LARGEST else None  # NaN is not
    return None
