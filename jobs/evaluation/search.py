"""Finds documents of a corpus for queries: by their words, by their vectors, or by both. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from pipelines.evaluation.bm25 import WordIndex, best
from pipelines.evaluation.fusion import z_scores

QUERIES_AT_ONCE = 256
"""Whose cosines to a part of the corpus are in memory."""


class Hits(NamedTuple):
    """The documents that were found for a query, best first, ties in the order of the corpus."""

    places: np.ndarray
    """In the corpus, from 0."""
    scores: np.ndarray


class Search(Protocol):
    """Scores the documents of a corpus for some queries."""

    def top(self, count: int) -> list[Hits]:
        """For each query the documents with the highest scores, at most `count`."""

    def scores_at(self, places: Sequence[np.ndarray]) -> list[np.ndarray]:
        """For each query the scores of these documents."""


class WordSearch:
    """By BM25; documents that share no word with the query are not found."""

    def __init__(self, queries: Sequence[str], documents: Iterable[str]) -> None:
        self.queries = queries
        self.index = WordIndex(documents)

    def top(self, count: int) -> list[Hits]:
        return [self._top(query, count) for query in self.queries]

    def _top(self, query: str, count: int) -> Hits:
        scores = self.index.scores(query)
        places = best(scores, count)
        places = places[scores[places] > 0]
        return Hits(places, scores[places])

    def scores_at(self, places: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self.index.scores(query)[some] for query, some in zip(self.queries, places, strict=True)]


class VectorSearch:
    """By the cosines of unit vectors, each of them computed; `parts` gives the corpus anew each time it is called."""

    def __init__(self, queries: np.ndarray, parts: Callable[[], Iterable[np.ndarray]]) -> None:
        self.queries = queries
        self.parts = parts

    def top(self, count: int) -> list[Hits]:
        found = [Hits(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in self.queries]
        start = 0
        for vectors in self.parts():
            for first in range(0, len(self.queries), QUERIES_AT_ONCE):
                block = self.queries[first : first + QUERIES_AT_ONCE] @ vectors.T
                for number, cosines in enumerate(block, first):
                    places = best(cosines, count)
                    found[number] = better(found[number], Hits(start + places, cosines[places]), count)
            start += len(vectors)
        return found

    def scores_at(self, places: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = [np.empty(len(some), np.float32) for some in places]
        start = 0
        for vectors in self.parts():
            for query, some, scores in zip(self.queries, places, found, strict=True):
                here = (some >= start) & (some < start + len(vectors))
                scores[here] = vectors[some[here] - start] @ query
            start += len(vectors)
        return found


def better(before: Hits, then: Hits, count: int) -> Hits:
    """The best of two parts of the corpus, of which `before` lies before `then`."""
    places, scores = (np.concatenate(both) for both in zip(before, then, strict=True))
    chosen = best(scores, count)
    return Hits(places[chosen], scores[chosen])


def search_all(searches: Sequence[Search], count: int) -> list[Hits]:
    """What one search finds; of several, the best by the sum of z-scores over all that any of them has at its top.

    Each of them scores each of these documents, whoever found it.
    """
    tops = [search.top(count) for search in searches]
    if len(tops) == 1:
        return tops[0]
    unions = [np.unique(np.concatenate([hits.places for hits in of_query])) for of_query in zip(*tops, strict=True)]
    totals = [np.zeros(len(union)) for union in unions]
    for search in searches:
        for total, scores in zip(totals, search.scores_at(unions), strict=True):
            np.add(total, z_scores(scores), out=total)
    chosen = [best(total, count) for total in totals]
    return [Hits(union[some], total[some]) for union, total, some in zip(unions, totals, chosen, strict=True)]
