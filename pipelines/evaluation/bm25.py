"""BM25: an index of documents in memory, by `bm25s`; or, from word counts of many files, the same scores one by one.

Words are those of `pipelines.evaluation.analysis`; the formula is the default of `bm25s`, Lucene's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from ..errors import ConfigError, missing_packages
from .analysis import load_stemmers, words

K1, B = 1.5, 0.75
"""Defaults of bm25s."""


def load_bm25s() -> ModuleType:
    """The package bm25s; raises ConfigError where it is not installed, or what words need is not."""
    load_stemmers()
    try:
        import bm25s  # optional: the extras `train` and `evaluate`
    except ImportError:
        raise ConfigError(missing_packages("BM25", "bm25s PyStemmer")) from None
    return bm25s  # type: ignore[no-any-return]


class WordIndex:
    """BM25 over documents, by bm25s; raises ConfigError where that is not installed."""

    def __init__(self, documents: Iterable[str], cut: Callable[[str], Sequence[str]] = words) -> None:
        """`cut` gives the words of a text."""
        bm25s = load_bm25s()
        self.cut = cut
        self.ids: dict[str, int] = {}
        """By word."""
        found = [[self.ids.setdefault(word, len(self.ids)) for word in cut(text)] for text in documents]
        self.documents = len(found)
        self.index = bm25s.BM25()
        if self.ids:  # bm25s refuses to index nothing
            self.index.index((found, self.ids), create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """The score of each document, float32; 0 where no word is shared."""
        asked = [self.ids[word] for word in self.cut(query) if word in self.ids]
        if not asked:
            return np.zeros(self.documents, np.float32)
        return np.asarray(self.index.get_scores_from_ids(asked))


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` highest scores, best first, ties by place."""
    if not 0 < count < len(scores):
        return np.argsort(-scores, kind="stable")[:count]
    places = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    return np.asarray(places[np.argsort(-scores[places], kind="stable")][:count])


@dataclass(slots=True)
class Frequencies:
    """The counts of a collection of documents that BM25 needs."""

    documents: int = 0
    words: int = 0
    """Words of all documents, with repetitions."""
    containing: Counter[str] = field(default_factory=Counter)
    """How many documents have a word."""

    def add(self, documents: Iterable[Sequence[str]], asked: set[str] | None = None) -> None:
        """Counts documents, each given by its words; `asked` are the only ones that queries will have, if given."""
        for one in documents:
            self.documents += 1
            self.words += len(one)
            self.containing.update(set(one) if asked is None else asked.intersection(one))

    def score(self, query: Sequence[str], document: Sequence[str]) -> float:
        """The score of a document of the collection; a word counts as often as the query repeats it."""
        asked, found = Counter(query), Counter(document)
        return sum(times * self.weight(word, found, len(document)) for word, times in asked.items() if word in found)

    def weight(self, word: str, found: Mapping[str, int], length: int) -> float:
        """What a word of the query adds to the score of a document that has it."""
        containing = self.containing[word]
        rarity = math.log(1 + (self.documents - containing + 0.5) / (containing + 0.5))
        relative_length = length * self.documents / self.words if self.words else 1.0
        norm = K1 * (1 - B + B * relative_length)
        return rarity * found[word] / (found[word] + norm)
