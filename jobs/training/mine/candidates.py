"""What a worker of `crossray mine` does with one source: it searches the passages for candidates of each good row.

A candidate file has the positive first, then the row's own negatives (`given` of them), then what was found. Files are
cut by their size; the report, which is written last, names them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import UnreadableFileError
from jobs.records import Unit
from jobs.training.bad_rows import BadRow, BadRows
from jobs.training.encoders import EncoderSettings
from jobs.training.mine.passages import Passages, PassageTable
from jobs.training.mine.pool import Known, Pool, write_known
from jobs.training.mine.rows import SourceRow, needed_columns, source_rows, texts_of, why_no_source
from jobs.training.mine.settings import MiningColumns
from jobs.training.ranked import LISTS
from pipelines.evaluation.bm25 import best

FILE_BYTES = 64 << 20
"""Texts of a candidate file: what selection holds at once."""
FILE_ROWS = 5000
CANDIDATES = LISTS.append(pa.field("given", pa.int32())).append(pa.field("group", pa.string()))


@dataclass(frozen=True, slots=True)
class Mining:
    """All that workers are told to find candidates."""

    room: str
    """Where candidate files and reports come to lie."""
    columns: MiningColumns
    depth: int
    encoder: EncoderSettings | None
    corpus: PassageTable | None
    known: str | None = None
    """Where the rows of several sources say what they know of passages; None for a single source."""

    def report(self, path: str) -> str:
        """Where the report of a source comes to lie."""
        return os.path.join(self.room, report_name(path))


def report_name(path: str) -> str:
    """Name of the report of a source, hidden from the job that scores the candidates beside it.

    Sources with different paths have different names.
    """
    return "_" + Unit(path, 0, 0).name.removesuffix(".parquet") + ".json"


@dataclass(slots=True)
class SourceReport:
    """How many rows and passages a source has, what is wrong with it, and where its candidates are."""

    path: str
    rows: int = 0
    passages: int = 0
    """Passages that were searched."""
    errors: dict[str, int] = field(default_factory=dict)
    """Bad rows by reason."""
    examples: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Names of its candidate files."""
    unreadable: str | None = None


class KnownStage:
    """Writes what the rows of a source say of passages, before any source is searched."""

    def __init__(self, mining: Mining) -> None:
        self.mining = mining

    def __call__(self, item: dict[str, Any]) -> None:
        try:
            table = read_source(item["path"], self.mining.columns)
        except UnreadableFileError:  # as its search says
            return
        rows = source_rows(table, self.mining.columns)
        write_known(item["location"], (row for row in rows if isinstance(row, SourceRow)))


class CandidateStage:
    """Writes the candidate files and the report of a source."""

    def __init__(self, mining: Mining) -> None:
        self.mining = mining
        self.encoder = mining.encoder.load() if mining.encoder is not None else None

    @cached_property
    def corpus(self) -> Passages | None:
        """The passages of --corpus, which a worker indexes once for all of its sources."""
        table = self.mining.corpus
        return None if table is None else Passages(table.texts(), self.encoder)

    @cached_property
    def shared(self) -> Known:
        """What the rows of all sources say of the queries and groups that several have."""
        return Known() if self.mining.known is None else Known.read(self.mining.known)

    def __call__(self, item: dict[str, Any]) -> None:
        path = item["path"]
        report = SourceReport(path)
        try:
            table = read_source(path, self.mining.columns)
        except UnreadableFileError as error:
            report.unreadable = error.why.splitlines()[0]
        else:
            self.find(table, report)
        storage.write_json(self.mining.report(path), asdict(report))

    def find(self, table: pa.Table, report: SourceReport) -> None:
        """Writes the candidate files of a source."""
        bad = BadRows()
        good: list[tuple[int, SourceRow]] = []
        for number, row in enumerate(source_rows(table, self.mining.columns)):
            if isinstance(row, BadRow):
                bad.add(number, row)
            else:
                good.append((number, row))
        rows = [row for _, row in good]
        pool = Pool(self.corpus or Passages(texts_of(rows), self.encoder), rows, self.shared)
        report.rows, report.passages = table.num_rows, len(pool.passages.texts)
        report.errors, report.examples = bad.counts, bad.examples
        found = self.candidates(rows, pool)
        for name, lists in in_files(report.path, zip(good, found, strict=True)):
            storage.write_table(os.path.join(self.mining.room, name), lists)
            report.files.append(name)

    def candidates(self, rows: Sequence[SourceRow], pool: Pool) -> Iterator[tuple[list[str], int]]:
        """Yields for each row the documents of its candidate list, and how many of them are the row's own negatives."""
        rankings = pool.passages.rankings([row.query for row in rows])
        for row, scores_of_kinds in zip(rows, rankings, strict=True):
            barred = pool.barred(row)
            found: dict[int, None] = {}
            for scores, least in scores_of_kinds:
                scores[barred] = -np.inf
                found |= dict.fromkeys(place for place in best(scores, self.mining.depth) if scores[place] > least)
            given = pool.given(row)
            yield [row.positive, *given, *(pool.passages.texts[place] for place in found)], len(given)


def read_source(path: str, columns: MiningColumns) -> pa.Table:
    """The needed columns of a source; raises UnreadableFileError, also for a table that is no source."""

    def read(file: pq.ParquetFile) -> pa.Table:
        why = why_no_source(file.schema_arrow, columns)
        if why is not None:
            raise ValueError(why)
        return file.read(needed_columns(file.schema_arrow, columns))

    return storage.read_parquet(path, read)


RowCandidates = tuple[tuple[int, SourceRow], tuple[list[str], int]]


def in_files(path: str, lists: Iterator[RowCandidates]) -> Iterator[tuple[str, pa.Table]]:
    """Yields name and table of each candidate file; the name says which rows of the source are in it."""
    some: list[RowCandidates] = []
    size = 0
    for one in lists:
        some.append(one)
        size += sum(map(len, one[1][0]))
        if size > FILE_BYTES or len(some) == FILE_ROWS:
            yield candidate_file(path, some)
            some, size = [], 0
    if some:
        yield candidate_file(path, some)


def candidate_file(path: str, lists: Sequence[RowCandidates]) -> tuple[str, pa.Table]:
    """Name and table of one candidate file."""
    first, last = lists[0][0][0], lists[-1][0][0]
    columns = {
        "row": [number for (number, _), _ in lists],
        "query": [row.query for (_, row), _ in lists],
        "documents": [documents for _, (documents, _) in lists],
        "given": [given for _, (_, given) in lists],
        "group": [row.group or None for (_, row), _ in lists],
    }
    return Unit(path, first, last - first + 1).name, pa.table(columns, schema=CANDIDATES)


def read_report(location: str) -> SourceReport:
    """The report at a location; raises FileNotFoundError where there is none."""
    return SourceReport(**storage.read_json(location))
