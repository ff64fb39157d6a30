"""What a comparison finds: measures of each list, how scores moved, and the lists that changed most."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.agreement.lists import ListPair
from pipelines.evaluation.agreement import kendall_tau, overlap_at, rank_biased_overlap

DEPTHS = (1, 3, 10)
"""Of the overlaps."""
COUNTS = ("documents", "only_a", "only_b")
THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))
BINS = 1000
"""Of the histograms of scores and of their differences."""
FLUSH = 1 << 16
"""Documents whose scores are looked at together."""
SHOWN_POINTS = 2000
"""Documents drawn for the plot of scores against scores."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Mover:
    """A list that changed much."""

    rbo: float
    shift: float
    """The largest change of a score."""
    pair: ListPair


@dataclass(slots=True)
class Scores:
    """How the scores of the same documents moved, over any number of documents."""

    waiting: list[np.ndarray] = field(default_factory=list)
    """float64 [2, documents] each."""
    waiting_documents: int = 0
    documents: int = 0
    sums: np.ndarray = field(default_factory=lambda: np.zeros(6))
    """Of a, b, a^2, b^2, ab and |b - a|."""
    histogram_a: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    histogram_b: np.ndarray = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    shifts: np.ndarray = field(default_factory=lambda: np.zeros(2 * BINS, dtype=np.int64))
    """Of b - a, from -1 to 1."""
    above: np.ndarray = field(default_factory=lambda: np.zeros((len(THRESHOLDS), 4), dtype=np.int64))
    """For each threshold the documents that reach it in a, in b, in a alone and in b alone."""
    points: list[tuple[float, float]] = field(default_factory=list)
    """Some documents, each with the same chance (Vitter 1985, "Random sampling with a reservoir")."""
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Notes the scores of the same documents in both runs."""
        self.waiting.append(np.stack([a, b]))
        self.waiting_documents += len(a)
        if self.waiting_documents >= FLUSH:
            self.flush()

    def flush(self) -> None:
        """Looks at what waits."""
        if not self.waiting:
            return
        a, b = np.concatenate(self.waiting, axis=1)
        self.waiting, self.waiting_documents = [], 0
        self.sums += [a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum(), np.abs(b - a).sum()]
        self.histogram_a += np.histogram(a, BINS, (0, 1))[0]
        self.histogram_b += np.histogram(b, BINS, (0, 1))[0]
        self.shifts += np.histogram(b - a, 2 * BINS, (-1, 1))[0]
        for number, threshold in enumerate(THRESHOLDS):
            in_a, in_b = a >= threshold, b >= threshold
            self.above[number] += [in_a.sum(), in_b.sum(), (in_a & ~in_b).sum(), (in_b & ~in_a).sum()]
        for one in zip(a.tolist(), b.tolist(), strict=True):
            self.documents += 1
            if len(self.points) < SHOWN_POINTS:
                self.points.append(one)
            elif (place := int(self.random.integers(self.documents))) < SHOWN_POINTS:
                self.points[place] = one

    def summary(self) -> dict[str, Any]:
        """What was found, as JSON types; the shares of a threshold are of all documents."""
        self.flush()
        if not self.documents:
            return {"documents": 0}
        a, b, aa, bb, ab, moved = self.sums / self.documents
        spread = np.sqrt(max(aa - a * a, 0) * max(bb - b * b, 0))
        return {
            "documents": self.documents,
            "mean_a": a,
            "mean_b": b,
            "mean_absolute_shift": moved,
            "correlation": float((ab - a * b) / spread) if spread > 1e-12 else None,
            "shift_quantiles": {f"{share:g}": quantile(self.shifts, share, -1.0) for share in (0.05, 0.5, 0.95)},
            "thresholds": [self._threshold(number) for number in range(len(THRESHOLDS))],
        }

    def _threshold(self, number: int) -> dict[str, Any]:
        in_a, in_b, only_a, only_b = (int(one) / self.documents for one in self.above[number])
        return {
            "threshold": THRESHOLDS[number],
            "share_a": in_a,
            "share_b": in_b,
            "only_a": only_a,
            "only_b": only_b,
            "same_share_in_b": threshold_of(self.histogram_b, int(self.above[number][0]), THRESHOLDS[number]),
        }


def quantile(histogram: np.ndarray, share: float, lowest: float) -> float:
    """The value below which the share lies, by a histogram with bins of 1 / BINS; exact to the width of a bin."""
    total = np.cumsum(histogram)
    return lowest + int(np.searchsorted(total, share * total[-1])) / BINS


def threshold_of(histogram: np.ndarray, wanted: int, near: float) -> float:
    """The threshold, to 1 / BINS, that so many scores in a histogram of 0..1 reach; of several the nearest one."""
    reached = np.append(np.cumsum(histogram[::-1])[::-1], 0)
    off = np.abs(reached - wanted)
    thresholds = np.flatnonzero(off == off.min()) / BINS
    return float(thresholds[np.argmin(np.abs(thresholds - near))])


class Findings:
    """Takes lists one after the other: keeps so many `movers`, and measures no overlap below the place `last`.

    The measures of a list are those of `pipelines.evaluation.agreement`.
    """

    def __init__(self, movers: int, last: int | None = None) -> None:
        self.depths = [depth for depth in DEPTHS if last is None or depth <= last]
        self.measures = ["kendall_tau", "rbo", *(f"overlap@{depth}" for depth in self.depths)]
        self.columns: dict[str, array[float]] = {name: array("d") for name in [*self.measures, "largest_shift"]}
        self.counts: dict[str, array[int]] = {
            name: array("q") for name in ("part_a", "row_a", "part_b", "row_b", *COUNTS)
        }
        self.scores = Scores()
        self.movers_kept = movers
        self._movers: list[tuple[float, float, int, Mover]] = []

    @property
    def lists(self) -> int:
        """How many there were."""
        return len(self.columns["rbo"])

    @property
    def movers(self) -> list[Mover]:
        """The lists that agree least, the least first."""
        return [one[-1] for one in sorted(self._movers, key=lambda one: one[:3], reverse=True)]

    def add(self, pair: ListPair) -> None:
        """Measures a list."""
        first, second = pair.first, pair.second
        common, at_first, at_second = np.intersect1d(
            first.documents, second.documents, assume_unique=True, return_indices=True
        )
        a, b = first.scores[at_first], second.scores[at_second]
        orders = first.documents.tolist(), second.documents.tolist()
        rbo = rank_biased_overlap(*orders)
        shift = float(np.abs(b - a).max(initial=0.0))
        measured = [kendall_tau(a, b), rbo, *(overlap_at(depth, *orders) for depth in self.depths), shift]
        for name, value in zip(self.columns, measured, strict=True):
            self.columns[name].append(value)
        counted = [*pair.rows[0], len(common), len(orders[0]) - len(common), len(orders[1]) - len(common)]
        for name, number in zip(self.counts, counted, strict=True):
            self.counts[name].append(int(number))
        self.scores.add(a, b)
        common_depth = min(map(len, orders))
        if self.movers_kept and orders[0][:common_depth] != orders[1][:common_depth]:
            entry = (-rbo, shift, -self.lists, Mover(rbo, shift, pair))
            (heapq.heappush if len(self._movers) < self.movers_kept else heapq.heappushpop)(self._movers, entry)

    def table(self, parts_a: Sequence[str], parts_b: Sequence[str]) -> pa.Table:
        """A row for each list: where it is in both runs (of pairs the first one), and what was measured."""
        names = {
            "part_a": pa.array(parts_a).take(pa.array(self.counts["part_a"], pa.int64())),
            "part_b": pa.array(parts_b).take(pa.array(self.counts["part_b"], pa.int64())),
        }
        counts = {name: pa.array(values, pa.int64()) for name, values in self.counts.items()}
        measures = {name: pa.array(np.asarray(values), from_pandas=True) for name, values in self.columns.items()}
        return pa.table(counts | names | measures)

    def summary(self) -> dict[str, Any]:
        """What was found, as JSON types."""
        return {
            "lists": self.lists,
            **{f"documents_{name}": sum(self.counts[name]) for name in COUNTS[1:]},
            "measures": {name: spread_of(self.columns[name]) for name in self.measures},
            "scores": self.scores.summary(),
        }


def spread_of(values: Sequence[float]) -> Mapping[str, Any]:
    """Mean and quantiles of the lists that have the measure, and how many these are."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return {"lists": 0}
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95])
    return {"lists": len(known), "mean": float(known.mean()), "q05": low, "median": middle, "q95": high}
