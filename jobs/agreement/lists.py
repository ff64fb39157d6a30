"""The lists that both runs have, with what each run says of their documents: read part by part, whatever their number.

Pairs become the lists of their queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.agreement.runs import Run, is_of_lists
from jobs.table.columns import ColumnMapping
from jobs.table.reasons import reason_of

SEED = 0
PARTS_KEPT = 64
"""Parts of the second run whose rankings are held at a time."""
PLACES = ("part_a", "row_a", "part_b", "row_b")


class LogitScale(NamedTuple):
    """How logits become scores: sigmoid(scale * logit + bias)."""

    scale: float = 1.0
    bias: float = 0.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """What one run says of a list: its documents, best first, but for those without a score."""

    documents: np.ndarray
    """int64: a number that stands for the same document in both runs."""
    places: np.ndarray
    """int64: where it is in this run's own list, from 0; of pairs, which of the list's rows it is."""
    scores: np.ndarray
    """float64, 0..1: the sigmoid of the logit."""


@dataclass(frozen=True, slots=True)
class ListPair:
    """A list as both runs have it."""

    rows: np.ndarray
    """int64 [rows, 4], as PLACES: the row of a list, or those of its pairs."""
    first: Ranked
    second: Ranked


@dataclass(slots=True)
class Unranked:
    """Rows that one run or both could not rank, by reason."""

    first: Counter[str] = field(default_factory=Counter)
    second: Counter[str] = field(default_factory=Counter)
    both: Counter[str] = field(default_factory=Counter)

    def note(self, first: pa.ChunkedArray, second: pa.ChunkedArray) -> None:
        """Counts the errors of the same rows."""
        for one, other in zip(first.to_pylist(), second.to_pylist(), strict=True):
            if one is not None and other is not None:
                self.both[reason_of(one)] += 1
            elif one is not None:
                self.first[reason_of(one)] += 1
            elif other is not None:
                self.second[reason_of(other)] += 1


def lists_of(
    first: Run, second: Run, rows: pa.Table, unranked: Unranked, *, by_id: bool = False, sample: int | None = None
) -> Iterator[ListPair]:
    """The lists of the rows that both runs have (`Matched.rows`), or so many of them, each time the same.

    `by_id` matches documents by their ids, where each of a list has one of its own; else by their places. Rows that a
    run could not rank are counted in `unranked`.
    """
    if not is_of_lists(first):
        yield from lists_of_pairs(first, second, rows, unranked, sample)
        return
    for places, one, other in in_step(first, second, rows.take(drawn(rows.num_rows, sample)), []):
        unranked.note(one[first.error], other[second.error])
        rankings = Rankings(one[first.answer], logits_of(first)), Rankings(other[second.answer], logits_of(second))
        for number, place in enumerate(places):
            found, also = (each.ranked(number) for each in rankings)
            if found is not None and also is not None:
                if by_id:
                    found, also = numbered(found, also, *(each.ids(number) for each in rankings))
                yield ListPair(place[None], found, also)


def lists_of_pairs(
    first: Run, second: Run, rows: pa.Table, unranked: Unranked, sample: int | None
) -> Iterator[ListPair]:
    """The pairs of the same query id, or of the same query where they have no id, are a list."""
    mapping = first.manifest.options.mapping
    codes: dict[tuple[str, object], int] = {}
    parts = []
    for places, one, other in in_step(first, second, rows, [mapping.query_id, mapping.query]):
        unranked.note(one[first.error], other[second.error])
        named = [codes.setdefault(name, len(codes)) for name in names_of_lists(one, mapping)]
        code = np.array(named, dtype=np.int64)
        scores = scores_of(one[first.answer], logits_of(first)), scores_of(other[second.answer], logits_of(second))
        parts.append((code, places, *scores))
    if not parts:
        return
    code, places, one_scores, other_scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(code, kind="stable")
    lists = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    for number in drawn(len(lists), sample):
        chosen = lists[number]
        yield ListPair(places[chosen], by_score(one_scores[chosen]), by_score(other_scores[chosen]))


def names_of_lists(pairs: pa.Table, mapping: ColumnMapping) -> Iterator[tuple[str, object]]:
    """By what each pair belongs to a list: its query id, or its query where it has no id."""
    ids, queries = (
        pairs[name].to_pylist() if name in pairs.column_names else [None] * pairs.num_rows
        for name in (mapping.query_id, mapping.query)
    )
    for one, query in zip(ids, queries, strict=True):
        yield ("query", query) if one is None else ("id", one)


def in_step(
    first: Run, second: Run, rows: pa.Table, more: Sequence[str]
) -> Iterator[tuple[np.ndarray, pa.Table, pa.Table]]:
    """For each part of the first run its matched rows: their PLACES, and both runs' columns, row by row the same.

    The columns are answer and error, and `more` of the first run.
    """
    read_second = lru_cache(PARTS_KEPT)(second.answers)
    places = np.stack([rows[name].to_numpy() for name in PLACES], axis=1)
    for some in np.split(places, np.flatnonzero(np.diff(places[:, 0])) + 1):
        if not len(some):
            continue
        one = first.answers(int(some[0, 0]), more).take(some[:, 1])
        found, order = [], []
        for part in np.unique(some[:, 2]):
            at = np.flatnonzero(some[:, 2] == part)
            found.append(read_second(int(part)).take(some[at, 3]))
            order.append(at)
        yield some, one, pa.concat_tables(found).take(np.argsort(np.concatenate(order)))


class Rankings:
    """A column `ranking`, list by list."""

    def __init__(self, column: pa.ChunkedArray, logits: LogitScale | None) -> None:
        array = column.combine_chunks()
        self.is_valid = np.asarray(array.is_valid())
        self.offsets = np.asarray(array.offsets)
        self.documents = array.values
        self.places = np.asarray(pc.struct_field(array.values, "index").cast(pa.int64()))
        self.scores = scores_of(pc.struct_field(array.values, "relevance_score"), logits)

    def ranked(self, number: int) -> Ranked | None:
        """A list; None where there is no ranking."""
        if not self.is_valid[number]:
            return None
        chosen = self._scored(number)
        return Ranked(self.places[chosen], self.places[chosen], self.scores[chosen])

    def ids(self, number: int) -> list[str] | None:
        """The ids of a list's documents as `ranked` has them; None unless each has one of its own."""
        ids = pc.struct_field(self.documents.take(self._scored(number)), "id").to_pylist()
        return None if None in ids or len(set(ids)) < len(ids) else ids

    def _scored(self, number: int) -> np.ndarray:
        start, end = self.offsets[number], self.offsets[number + 1]
        scored: np.ndarray = start + np.flatnonzero(~np.isnan(self.scores[start:end]))
        return scored


def numbered(
    first: Ranked, second: Ranked, ids: list[str] | None, other_ids: list[str] | None
) -> tuple[Ranked, Ranked]:
    """Both with documents numbered by their ids; as they are where one has none."""
    if ids is None or other_ids is None:
        return first, second
    numbers = {one: number for number, one in enumerate(dict.fromkeys([*ids, *other_ids]))}

    def by_id(ranked: Ranked, of_run: list[str]) -> Ranked:
        return replace(ranked, documents=np.array([numbers[one] for one in of_run], dtype=np.int64))

    return by_id(first, ids), by_id(second, other_ids)


def by_score(scores: np.ndarray) -> Ranked:
    """The order of pairs by their scores, equal ones as they came; those without a score are left out."""
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    return Ranked(order, order, scores[order])


def scores_of(column: pa.Array | pa.ChunkedArray, logits: LogitScale | None) -> np.ndarray:
    """Scores on 0..1, float64; NaN for null. Where they are logits, `logits` says how they become scores."""
    scores = np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    if logits is not None:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-(logits.scale * scores + logits.bias)))
    return scores


def logits_of(run: Run) -> LogitScale | None:
    """By what its logits become scores, the calibration of its model; None where it has scores already."""
    if not run.manifest.options.raw_scores:
        return None
    return LogitScale(*(run.manifest.fingerprint.get("calibration") or ()))


def drawn(count: int, sample: int | None) -> np.ndarray:
    """The numbers of all that there are, or of so many, the same each time, in order."""
    if sample is None or sample >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, sample, replace=False))
