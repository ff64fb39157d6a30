"""Candidate lists to measure with: seeded texts of real words."""

from __future__ import annotations

import random
from collections.abc import Callable

from pipelines.model_sources import find_model
from pipelines.records import CandidateList

MEDIAN_WORDS, DEVIATION, MAX_WORDS = 75, 0.7, 420  # log-normal: about 90 tokens in the middle, cut near 512
SHORT_WORDS = (12, 36)


def make_lists(lists: int, documents: int, make: Callable[[random.Random, list[str]], str]) -> list[CandidateList]:
    """Seeded texts of real words of the embedded model's vocabulary; only their lengths matter."""
    words, rng = vocabulary(), random.Random(0)
    return [
        CandidateList(" ".join(rng.choices(words, k=9)), [make(rng, words) for _ in range(documents)])
        for _ in range(lists)
    ]


def vocabulary() -> list[str]:
    """The real words of the embedded model's vocabulary."""
    tokens = find_model("embedded").tokenizer().get_vocab()
    return sorted(token for token in tokens if token.isascii() and token.isalpha() and len(token) > 2)


def long_document(rng: random.Random, words: list[str]) -> str:
    """A text as long as a passage of a search index."""
    length = int(MEDIAN_WORDS * rng.lognormvariate(0, DEVIATION))
    return " ".join(rng.choices(words, k=max(4, min(length, MAX_WORDS))))


def short_document(rng: random.Random, words: list[str]) -> str:
    """A text as long as a title or a sentence."""
    return " ".join(rng.choices(words, k=rng.randint(*SHORT_WORDS)))
