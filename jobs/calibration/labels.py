"""Reads labelled rows, in the layouts that `crossray train` reads, as lists whose passages all have a label.

A row that cannot be used is left out, counted and named. Rows without a positive count: they say what scores mean too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.calibration.settings import CalibrateSettings
from jobs.errors import UnreadableFileError
from jobs.evaluation.labels import LabelPlace, Labels, label_place
from jobs.records import InputFile
from jobs.training.bad_rows import BadRow, BadRows
from jobs.training.train.config import Columns
from jobs.training.train.rows import layout_of, needed_columns, training_rows
from pipelines.errors import ConfigError

ROWS_AT_ONCE = 1024
"""Of which texts are in memory twice."""


class LabelledList(NamedTuple):
    """A query with passages that somebody has judged."""

    digest: bytes
    """Of the query: by it queries are drawn and halved, whatever order they come in."""
    query: str
    passages: list[str]
    relevant: list[bool]
    """Whether the label is above 0."""

    @property
    def is_in_second_half(self) -> bool:
        """In which of two halves the query is, with all its lists."""
        return self.digest[-1] % 2 == 1


@dataclass(slots=True)
class LabelledLists:
    """The lists of the queries that were drawn, and what was left out."""

    most: int
    """How many queries are drawn."""
    lists: list[LabelledList] = field(default_factory=list)
    room: int = 0
    """More lists than these, and it is drawn again: twice what the last drawing left, so that drawings are few."""
    seen: set[bytes] = field(default_factory=set)
    """The digests of all queries."""
    bad: BadRows = field(default_factory=BadRows)
    unreadable: dict[str, str] = field(default_factory=dict)
    """By file, why it cannot be read."""

    def add(self, one: LabelledList) -> None:
        """Takes a list, for as long as its query is one of those whose digests are the lowest."""
        self.seen.add(one.digest)
        self.lists.append(one)
        if len(self.lists) > max(self.room, 4 * self.most):
            self.draw()

    def draw(self) -> None:
        """Leaves out the lists of all queries but those that are drawn."""
        kept = set(sorted({one.digest for one in self.lists})[: self.most])
        self.lists = [one for one in self.lists if one.digest in kept]
        self.room = 2 * len(self.lists)

    def take(self, path: str, other: LabelledLists) -> None:
        """Takes what was found in a file, whose bad rows are named with its path."""
        for one in other.lists:
            self.add(one)
        self.seen |= other.seen
        self.bad.counts |= {reason: self.bad.counts.get(reason, 0) + rows for reason, rows in other.bad.counts.items()}
        self.bad.examples += [f"{path}: {example}" for example in other.bad.examples]

    @property
    def queries(self) -> int:
        """How many queries are drawn."""
        return len({one.digest for one in self.lists})


def read_labels(settings: CalibrateSettings) -> LabelledLists:
    """The labelled lists; raises ConfigError where there are none."""
    found = LabelledLists(settings.queries)
    location = storage.absolute(settings.labels, "LABELS")
    for file in storage.list_input(location, "LABELS"):
        try:
            if file.fault is not None:
                raise UnreadableFileError(file.path, file.fault)
            found.take(file.path, read_file(file, settings))
        except UnreadableFileError as error:
            found.unreadable[file.path] = error.why
    found.draw()
    if not found.lists:
        examples = [*found.unreadable.values(), *found.bad.examples]
        raise ConfigError(f"{settings.labels} has no row with a label; {examples[0] if examples else 'it is empty'}")
    return found


def read_file(file: InputFile, settings: CalibrateSettings) -> LabelledLists:
    """What a file has; raises UnreadableFileError, also where it has not the columns that are needed."""

    def read(opened: pq.ParquetFile) -> LabelledLists:
        found = LabelledLists(settings.queries)  # for each attempt, which reads the file from its beginning
        for row, one in lists_of(opened, settings):
            if isinstance(one, BadRow):
                found.bad.add(row, one)
            else:
                found.add(one)
        return found

    return storage.read_as_planned(file.path, file.state, read)


def lists_of(opened: pq.ParquetFile, settings: CalibrateSettings) -> Iterator[tuple[int, LabelledList | BadRow]]:
    """Yields (row number, its list or why there is none) of a file; raises ValueError for columns that do not fit."""
    mapping, label = settings.mapping, settings.label_column
    columns = Columns(
        query=mapping.query,
        documents=mapping.documents,
        text_field=mapping.text_field,
        document=mapping.document,
        **({} if label is None else {"labels": label, "label": label}),
    )
    schema = opened.schema_arrow
    place: LabelPlace | None = None
    if label is not None and label not in schema.names and label.startswith(f"{mapping.documents}."):
        found = label_place(schema, label, mapping.documents)
        if isinstance(found, str):
            raise ValueError(found)
        place = found
    given = schema if place is None else schema.append(pa.field(label, pa.list_(pa.float64())))
    layout_of(given, columns)
    names = [name for name in needed_columns(given, columns) if name in schema.names]
    first = 0
    for batch in opened.iter_batches(ROWS_AT_ONCE, columns=names):
        table = pa.Table.from_batches([batch])
        if place is not None and label is not None:
            labels = Labels.of(batch.column(place.column), place)
            values = pa.array(labels.values, pa.float64(), mask=labels.is_null)
            table = table.append_column(label, pa.LargeListArray.from_arrays(labels.ends, values))
        for row, one in training_rows(table, columns, positives_only=False):
            if isinstance(one, BadRow):
                yield first + row, one
                continue
            judged = [number for number, grade in enumerate(one.labels) if not math.isnan(grade)]
            if not judged:
                yield first + row, BadRow("no_label", "no document of the row has a label")
                continue
            digest = hashlib.sha256(one.query.encode()).digest()
            passages = [one.passages[number] for number in judged]
            yield first + row, LabelledList(digest, one.query, passages, [one.labels[number] > 0 for number in judged])
        first += batch.num_rows
