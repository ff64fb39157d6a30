"""Finds the texts of ids in segments of a corpus, which are sorted by the hash of the id; all ids of a unit at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import StoppedError, UnreadableFileError
from jobs.input.corpus import Corpus
from jobs.input.reading import read_columns
from jobs.joins.corpus.attaching import Found
from jobs.joins.keys import column_as_bytes, hashes, shown
from jobs.records import Unit
from jobs.storage import faults_of_file, is_unchanged, read_as_planned
from jobs.table.reasons import Reason


@dataclass(frozen=True, slots=True)
class Segment:
    """Some documents of one corpus file, in the order of `hashes`. Pickles without copying its arrays."""

    path: str
    hashes: np.ndarray
    """Of the ids, ascending."""
    rows: np.ndarray
    """Where in the file each of them is."""
    ids: pa.Array
    texts: pa.Array
    """Both large_binary."""

    @property
    def nbytes(self) -> int:
        return int(self.hashes.nbytes + self.rows.nbytes + self.ids.nbytes + self.texts.nbytes)


def segment_of(path: str, rows: np.ndarray, ids: pa.Array, texts: pa.Array) -> Segment:
    """Documents in any order, as a segment; those with the same hash stay in order."""
    hashed = hashes(ids)
    order = np.argsort(hashed, kind="stable")
    return Segment(path, hashed[order], rows[order], ids.take(pa.array(order)), texts.take(pa.array(order)))


def load_segment(unit: Unit, corpus: Corpus) -> Segment:
    """A row range of a corpus file; raises UnreadableFileError, and StoppedError when the file has changed."""
    planned = {file.path: file for file in corpus.found.files}
    if not is_unchanged(planned[unit.path]):
        raise StoppedError(f"corpus file {unit.path} has changed since this run began")
    columns = [corpus.id_column, corpus.text_column]
    table = read_as_planned(unit.path, planned[unit.path].state, lambda file: read_columns(file, unit, columns))
    with faults_of_file(unit.path):
        ids, texts = (column_as_bytes(table.column(name)) for name in columns)
        return segment_of(unit.path, np.arange(unit.start, unit.start + unit.rows), ids, texts)


class Matches(NamedTuple):
    """The documents that were found: for each the position of the id that was asked for, and where the document is."""

    asked: np.ndarray
    segment: np.ndarray
    row: np.ndarray
    texts: pa.Array


def look_up(segments: Sequence[Segment], ids: pa.Array) -> Found:
    """The text of each id (large_binary); the first one that is found counts, and all others must be the same."""
    matches = search_all(segments, ids)
    firsts = np.full(len(ids), -1, np.int64)
    firsts[matches.asked[::-1]] = np.arange(len(matches.asked))[::-1]
    is_found = firsts >= 0
    texts = matches.texts.take(pa.array(firsts, mask=~is_found))
    problems: dict[int, tuple[Reason, str]] = {}
    for i in np.flatnonzero(np.asarray(texts.is_null())).tolist():
        problems[i] = why_absent(ids[i], is_found=bool(is_found[i]))
    for i, first, other in contradictions(matches, firsts):
        places = " and ".join(f"row {matches.row[at]} of {segments[matches.segment[at]].path}" for at in (first, other))
        problems[i] = (Reason.AMBIGUOUS_DOCUMENT, f"is {shown(ids[i])}, which has different texts in {places}")
    return Found(texts, problems)


def search_all(segments: Sequence[Segment], ids: pa.Array) -> Matches:
    """All documents with one of the ids, ordered by id asked for, then by segment and row."""
    hashed = hashes(ids)
    found = [search(segment, ids, hashed) for segment in segments]
    asked = np.concatenate([np.empty(0, np.int64), *(one for one, _ in found)])
    which = np.repeat(np.arange(len(segments)), [len(one) for one, _ in found])
    rows = np.concatenate([np.empty(0, np.int64), *(p.rows[at] for p, (_, at) in zip(segments, found, strict=True))])
    texts = [segment.texts.take(pa.array(at)) for segment, (_, at) in zip(segments, found, strict=True) if len(at)]
    order = np.lexsort((rows, which, asked))
    everything = pa.concat_arrays([pa.nulls(0, pa.large_binary()), *texts])
    return Matches(asked[order], which[order], rows[order], everything.take(pa.array(order)))


def search(segment: Segment, ids: pa.Array, hashed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids that a segment has, as (positions of ids, positions in it); equal hashes alone do not count."""
    left = np.searchsorted(segment.hashes, hashed, "left")
    counts = np.searchsorted(segment.hashes, hashed, "right") - left
    asked = np.repeat(np.arange(len(ids)), counts)
    at = np.repeat(left - (np.cumsum(counts) - counts), counts) + np.arange(len(asked))
    equal = pc.equal(ids.take(pa.array(asked)), segment.ids.take(pa.array(at))).fill_null(False)
    is_equal = equal.to_numpy(zero_copy_only=False)
    return asked[is_equal], at[is_equal]


def contradictions(matches: Matches, firsts: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """Ids with several texts, each as (position of the id, its first match, another one with a different text)."""
    first = firsts[matches.asked]
    others = np.flatnonzero(first != np.arange(len(first)))
    if not len(others):
        return
    mine, theirs = matches.texts.take(pa.array(first[others])), matches.texts.take(pa.array(others))
    both_null = pc.and_(mine.is_null(), theirs.is_null())
    same = pc.or_(both_null, pc.equal(mine, theirs).fill_null(False)).to_numpy(zero_copy_only=False)
    for at in others[~same][::-1].tolist():  # the one nearest to the first comes last
        yield int(matches.asked[at]), int(first[at]), at


def why_absent(asked: pa.Scalar, *, is_found: bool) -> tuple[Reason, str]:
    """Why an id has no text."""
    if not asked.is_valid:
        return Reason.NULL_DOCUMENT, "is null"
    if is_found:
        return Reason.NULL_DOCUMENT, f"is {shown(asked)}, whose text in the corpus is null"
    return Reason.UNKNOWN_DOCUMENT, f"is {shown(asked)}, which is not in the corpus"


def loaded_here(unit: Unit, corpus: Corpus) -> Segment:
    """A segment of the corpus, read in this process.

    Raises StoppedError when it cannot be read: with a hole in the corpus, documents would be unknown that are in it.
    """
    try:
        return load_segment(unit, corpus)
    except UnreadableFileError as error:
        raise StoppedError(
            f"corpus file {unit.path} cannot be read (rows {unit.start} to {unit.start + unit.rows - 1}): {error.why}"
        ) from None
