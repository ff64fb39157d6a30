"""The lists that are shown, with their texts, as far as the parts of the runs have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.agreement.findings import Mover
from jobs.agreement.lists import Ranked
from jobs.agreement.runs import Run, is_of_lists

SHOWN = 10
"""Documents of each order."""
CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class ShownDocument:
    """A document of an order, as people read it."""

    rank: int
    """From 1."""
    other_rank: int | None
    """In the other run's order; None where that one does not have it."""
    score: float
    id: str | None
    text: str | None
    """Its beginning; None where the run's output has no texts."""


@dataclass(frozen=True, slots=True)
class ShownList:
    """A list of which the order changed much."""

    query: str | None
    place: str
    """Part and row in the first run."""
    rbo: float
    shift: float
    first: tuple[ShownDocument, ...]
    second: tuple[ShownDocument, ...]


def shown(first: Run, second: Run, movers: list[Mover]) -> Iterator[ShownList]:
    """What is shown of each mover."""
    for mover in movers:
        pair = mover.pair
        sides = []
        for run, columns, ranked, other in (
            (first, (0, 1), pair.first, pair.second),
            (second, (2, 3), pair.second, pair.first),
        ):
            sides.append(tuple(shown_documents(run, pair.rows[:, columns], ranked, other)))
        part, row = pair.rows[0, :2]
        mapping = first.manifest.options.mapping
        query = value_of(row_of(first, int(part), int(row)), mapping.query)
        place = f"row {row} of {first.units[part].name}"
        yield ShownList(None if query is None else cut(query), place, mover.rbo, mover.shift, *sides)


def shown_documents(run: Run, rows: np.ndarray, ranked: Ranked, other: Ranked) -> Iterator[ShownDocument]:
    """The first documents of an order; `rows` are part and row of the list, or of each of its pairs."""
    ranks = {document: rank for rank, document in enumerate(other.documents.tolist(), 1)}
    numbers = zip(ranked.documents.tolist(), ranked.places.tolist(), ranked.scores.tolist(), strict=True)
    for rank, (document, place, score) in enumerate(numbers, 1):
        if rank > SHOWN:
            return
        one, text = document_of(run, rows, place)
        yield ShownDocument(rank, ranks.get(document), score, one, None if text is None else cut(text))


def document_of(run: Run, rows: np.ndarray, place: int) -> tuple[str | None, str | None]:
    """Id and text of a document, as far as the output has them."""
    mapping = run.manifest.options.mapping
    if not is_of_lists(run):
        row = row_of(run, *map(int, rows[place]))
        return value_of(row, mapping.document_id), value_of(row, mapping.document)
    row = row_of(run, *map(int, rows[0]))
    documents = row.get(mapping.documents)
    document = documents[place] if isinstance(documents, list) and place < len(documents) else None
    if isinstance(document, Mapping):
        return value_of(document, mapping.id_field), value_of(document, mapping.text_field)
    if run.manifest.options.corpus is not None:
        return as_text(document), None
    return None, as_text(document)


def row_of(run: Run, part: int, row: int) -> Mapping[str, object]:
    """The row of a part with the columns that say what was ranked."""
    mapping = run.manifest.options.mapping
    names = (mapping.query, mapping.documents, mapping.document_id, mapping.document)
    table: pa.Table = run.columns(part, names).slice(row, 1)
    return table.to_pylist()[0] if table.num_columns else {}


def value_of(row: Mapping[str, object], name: str) -> str | None:
    """A value as a text; None where there is none."""
    return as_text(row.get(name))


def as_text(value: object) -> str | None:
    """A value as a text; bytes that are no UTF-8 as far as they are."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


def cut(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}..."
