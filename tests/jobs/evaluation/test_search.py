"""Searches of a corpus, each against a computation of the test's own."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from jobs.evaluation.search import VectorSearch, WordSearch, search_all
from pipelines.evaluation.analysis import words_of
from pipelines.evaluation.bm25 import best
from tests.checkpoints import words

DOCUMENTS = [words(length, seed=length) for length in range(3, 63)] + ["東京の天気は晴れ", "大阪の天気", ""]
QUERIES = [words(3, seed=900), words(6, seed=901), "東京の天気", "nothing of this", " "]


def lucene_bm25(query: str, documents: list[str]) -> np.ndarray:
    """Robertson's formula with the idf of Lucene, k1 = 1.5 and b = 0.75."""
    counts = [Counter(found) for found in words_of(documents)]
    mean_length = sum(map(Counter.total, counts)) / len(counts)

    def score(count: Counter[str]) -> float:
        total = 0.0
        for word in words_of([query])[0]:
            having = sum(word in other for other in counts)
            idf = math.log(1 + (len(counts) - having + 0.5) / (having + 0.5))
            norm = 1.5 * (0.25 + 0.75 * count.total() / mean_length)
            total += idf * count[word] / (count[word] + norm)
        return total

    return np.array([score(count) for count in counts])


def test_words_find_what_the_formula_of_bm25_ranks_highest() -> None:
    search = WordSearch(QUERIES, DOCUMENTS)
    hits = search.top(10)
    for query, found in zip(QUERIES, hits, strict=True):
        expected = lucene_bm25(query, DOCUMENTS)
        order = [place for place in np.argsort(-expected, kind="stable")[:10] if expected[place] > 0]
        assert found.places.tolist() == order
        np.testing.assert_allclose(found.scores, expected[order], rtol=1e-5)
    assert [len(found.places) for found in hits] == [10, 10, 2, 0, 0]
    places = [np.array([0, 62, 7])] * len(QUERIES)
    for query, scores in zip(QUERIES, search.scores_at(places), strict=True):
        np.testing.assert_allclose(scores, lucene_bm25(query, DOCUMENTS)[[0, 62, 7]], rtol=1e-5)


def test_a_corpus_without_words_has_nothing_to_find() -> None:
    assert [found.places.tolist() for found in WordSearch(["a query"], ["", "- -"]).top(3)] == [[]]


def unit_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 7, 500])
def test_vectors_find_what_all_cosines_rank_highest(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts of any size, whatever the blocks of queries; of equal documents the first one comes first."""
    monkeypatch.setattr("jobs.evaluation.search.QUERIES_AT_ONCE", 3)
    corpus, queries = unit_vectors(300, 1), unit_vectors(8, 2)
    corpus[250] = corpus[17]
    cosines = queries @ corpus.T
    expected = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    search = VectorSearch(queries, lambda: iter([corpus[:100], corpus[100:101], corpus[101:]]))
    found = search.top(count)
    assert [hits.places.tolist() for hits in found] == expected.tolist()
    for hits, row in zip(found, cosines, strict=True):
        np.testing.assert_allclose(hits.scores, row[hits.places], atol=1e-6)
    some = [np.array([299, 0, 100])] * len(queries)
    np.testing.assert_allclose(search.scores_at(some), cosines[:, [299, 0, 100]], atol=1e-6)


def test_a_fusion_adds_z_scores_over_all_that_either_has_at_its_top() -> None:
    queries, vectors = unit_vectors(len(QUERIES), 3), unit_vectors(len(DOCUMENTS), 4)
    searches = [WordSearch(QUERIES, DOCUMENTS), VectorSearch(queries, lambda: [vectors])]
    for query, vector, hits in zip(QUERIES, queries, search_all(searches, 10), strict=True):
        by_words, by_vectors = lucene_bm25(query, DOCUMENTS), (vectors @ vector).astype(np.float64)
        top = {place for place in np.argsort(-by_words, kind="stable")[:10] if by_words[place] > 0}
        union = sorted(top | set(np.argsort(-by_vectors, kind="stable")[:10]))
        total = np.zeros(len(union))
        for scores in (by_words[union], by_vectors[union]):
            total += 0 if np.ptp(scores) == 0 else (scores - scores.mean()) / scores.std()
        order = np.argsort(-total, kind="stable")[:10]
        assert hits.places.tolist() == [union[place] for place in order]
        np.testing.assert_allclose(hits.scores, total[order], atol=1e-4)


def test_the_best_of_equal_scores_come_in_their_order() -> None:
    scores = np.array([1.0, 2.0, 1.0, 2.0, 1.0, 1.0])
    assert best(scores, 4).tolist() == [1, 3, 0, 2]
    assert best(scores, 9).tolist() == [1, 3, 0, 2, 4, 5]
    assert best(scores, 0).tolist() == best(scores[:0], 3).tolist() == []
