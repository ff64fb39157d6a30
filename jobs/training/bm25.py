"""BM25 scores of single passages, from word counts of many files: the scores of `bm25s` over an index of them all.

Words are those of `pipelines.evaluation.analysis`; the formula is the default of `bm25s`, Lucene's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from pipelines.errors import ConfigError, missing_packages

K1, B = 1.5, 0.75
"""Defaults of bm25s."""


def load_bm25s() -> ModuleType:
    """The package bm25s; raises ConfigError where it is not installed."""
    try:
        import bm25s  # optional: the extra `train`
    except ImportError:
        raise ConfigError(missing_packages("BM25", "bm25s")) from None
    return bm25s  # type: ignore[no-any-return]


@dataclass(slots=True)
class Frequencies:
    """The counts of a collection of documents that BM25 needs."""

    documents: int = 0
    words: int = 0
    """Words of all documents, with repetitions."""
    containing: Counter[str] = field(default_factory=Counter)
    """How many documents have a word."""

    def add(self, documents: Iterable[Sequence[str]]) -> None:
        """Counts documents, each given by its words."""
        for words in documents:
            self.documents += 1
            self.words += len(words)
            self.containing.update(set(words))

    def score(self, query: Sequence[str], document: Sequence[str]) -> float:
        """The score of a document of the collection; a word counts as often as the query repeats it."""
        asked, found = Counter(query), Counter(document)
        return sum(times * self.weight(word, found, len(document)) for word, times in asked.items() if word in found)

    def weight(self, word: str, found: Mapping[str, int], length: int) -> float:
        """What a word of the query adds to the score of a document that has it."""
        containing = self.containing[word]
        rarity = math.log(1 + (self.documents - containing + 0.5) / (containing + 0.5))
        norm = K1 * (1 - B + B * length * self.documents / self.words)
        return rarity * found[word] / (found[word] + norm)
