"""Taught lists: which passages stand in them, what their labels say, and that the teacher is the sum of z-scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluation.fusion import z_scores
from pipelines.training.teaching import (
    Dense,
    TaughtList,
    choose_candidates,
    crosses_languages,
    teach_source,
)

Rows = list[dict[str, Any]]

WORDS = ("sort", "file", "read", "open", "list", "write", "split", "join", "copy", "move")
DEPTH = 12


class LetterEncoder:
    """Unit vectors of letter counts: texts are close when they share letters."""

    def __init__(self, letters: str = "abcdefghijklmnopqrstuvwxyz") -> None:
        self.letters = letters

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.count(letter) + 0.01 for letter in self.letters] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    encode_queries = encode_passages


def teach(
    folder: Path,
    rows: Rows,
    queries: int = 100,
    unlabelled: float = 0,
    seed: int = 0,
    pool_cap: int = 20_000,
    encoders: Sequence[tuple[LetterEncoder, bool]] = ((LetterEncoder(), False),),
    with_bm25: bool = True,
) -> list[TaughtList]:
    path = folder / "source.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    dense = [Dense(encoder, crosses) for encoder, crosses in encoders]  # type: ignore[arg-type]
    rng = random.Random(seed)
    return list(teach_source(path, dense, queries, DEPTH, rng, unlabelled, pool_cap, with_bm25=with_bm25))


@pytest.fixture
def rows() -> Rows:
    """Two rows a word: the same query with two right answers and one given negative, all in the word's group."""
    return [
        {
            "query": f"how to {word}",
            "positive": f"you can {word} it with the {kind} tool",
            "negatives": [f"{word} given"],
            "group": word,
        }
        for word in WORDS
        for kind in ("first", "second")
    ]


def labels_by_passage(taught: TaughtList) -> dict[str, float]:
    return dict(zip(taught.passages, taught.labels, strict=True))


def test_every_query_has_one_list_with_its_positive_and_different_passages(tmp_path: Path, rows: Rows) -> None:
    lists = teach(tmp_path, rows)
    assert sorted(taught.query for taught in lists) == sorted(f"how to {word}" for word in WORDS)
    for taught in lists:
        assert taught.passages[0].startswith(f"you can {taught.query.removeprefix('how to ')} ")
        assert len(set(taught.passages)) == len(taught.passages) == DEPTH
        assert len(taught.labels) == len(taught.teacher) == DEPTH


def test_positives_of_the_same_query_are_right_and_given_negatives_and_other_passages_wrong(
    tmp_path: Path, rows: Rows
) -> None:
    for taught in teach(tmp_path, rows):
        word = taught.query.removeprefix("how to ")
        labels = labels_by_passage(taught)
        assert {text for text, label in labels.items() if label == 1.0} == {
            f"you can {word} it with the {kind} tool" for kind in ("first", "second")
        }
        assert {label for text, label in labels.items() if word not in text} == {0.0}
        assert labels[f"{word} given"] == 0.0


def test_nothing_is_known_of_another_passage_of_the_same_group(tmp_path: Path, rows: Rows) -> None:
    others = [{"query": f"{word}?", "positive": f"{word} {word}", "negatives": [], "group": word} for word in WORDS]
    for taught in teach(tmp_path, rows + others):
        if taught.query.startswith("how to "):
            word = taught.query.removeprefix("how to ")
            labels = labels_by_passage(taught)
            assert {text for text, label in labels.items() if np.isnan(label)} == {f"{word} {word}"}


@pytest.mark.parametrize("group", ["", None])
def test_rows_without_a_group_share_none(tmp_path: Path, rows: Rows, group: str | None) -> None:
    lists = teach(tmp_path, [row | {"group": group} for row in rows])
    assert lists
    assert not any(np.isnan(label) for taught in lists for label in taught.labels)


@pytest.mark.parametrize("with_bm25", [True, False])
def test_teacher_is_the_sum_of_z_scores(tmp_path: Path, rows: Rows, with_bm25: bool) -> None:
    taught = teach(tmp_path, rows, with_bm25=with_bm25)[0]
    pool = sorted({text for row in rows for text in (row["positive"], *row["negatives"])})
    index = bm25s.BM25()
    index.index(bm25s.tokenize(pool, stopwords="en", show_progress=False), show_progress=False)
    scores = index.get_scores(bm25s.tokenize([taught.query], stopwords="en", return_ids=False, show_progress=False)[0])
    bm25 = np.array([scores[pool.index(text)] for text in taught.passages])
    cosine = cosines_of(LetterEncoder(), taught)
    assert bm25.std() > 0
    expected = (cosine - cosine.mean()) / cosine.std()
    if with_bm25:
        expected = expected + (bm25 - bm25.mean()) / bm25.std()
    np.testing.assert_allclose(taught.teacher, expected, atol=1e-4)


def cosines_of(encoder: LetterEncoder, taught: TaughtList) -> np.ndarray:
    cosines: np.ndarray = encoder.encode_passages(taught.passages) @ encoder.encode_queries([taught.query])[0]
    return cosines


def test_across_languages_only_bi_encoders_for_that_are_asked(tmp_path: Path, rows: Rows) -> None:
    english, every = LetterEncoder(), LetterEncoder("aeiou")
    languages = {"query_lang": "de", "doc_lang": "en"}
    both = ((english, False), (every, True))
    [crossing, *_] = teach(tmp_path, [row | languages for row in rows], encoders=both)
    [within, *_] = teach(tmp_path, [row | {"query_lang": "en", "doc_lang": "en"} for row in rows], encoders=both)
    np.testing.assert_allclose(crossing.teacher, z_scores(cosines_of(every, crossing)), atol=1e-4)
    dense = z_scores(cosines_of(every, within)) + z_scores(cosines_of(english, within))
    without_bm25 = np.array(within.teacher) - dense
    assert without_bm25.std() == pytest.approx(1.0, abs=1e-3)


def test_names_in_code_are_english() -> None:
    assert not crosses_languages("en", "json")
    assert not crosses_languages("de", "de")
    assert not crosses_languages(None, "de")
    assert crosses_languages("zh", "json")
    assert crosses_languages("de", "en")


def test_a_query_of_stopwords_alone_is_taught_by_the_cosine(tmp_path: Path, rows: Rows) -> None:
    taught = teach(tmp_path, [*rows, {"query": "the of", "positive": "stop", "negatives": [], "group": ""}])
    (stopwords,) = (each for each in taught if each.query == "the of")
    assert stopwords.passages[0] == "stop"
    assert np.std(stopwords.teacher) == pytest.approx(1.0)


def test_a_list_holds_the_best_of_both_rankings_given_negatives_and_random_passages() -> None:
    bm25 = np.arange(200, dtype=np.float32)  # best: the last ones
    cosines = -np.arange(200, dtype=np.float32)  # best: the first ones
    candidates = choose_candidates(100, list(range(110, 130)), bm25, cosines, DEPTH, random.Random(0))
    assert candidates[:9] == [100, 199, 198, 197, 196, 0, 1, 2, 3]
    assert candidates[9] in range(110, 130)
    assert len(set(candidates)) == DEPTH


def test_a_sentence_that_is_its_whole_passage_is_no_query(tmp_path: Path, rows: Rows) -> None:
    """The positives of `rows` are single sentences."""
    assert len(teach(tmp_path, rows, queries=3, unlabelled=20)) == 3


def test_a_query_of_an_unlabelled_list_is_a_sentence_of_its_first_passage(tmp_path: Path, rows: Rows) -> None:
    long = [
        {
            "query": word,
            "positive": f"Short. Now {word} all of it! And afterwards everything.",
            "negatives": [],
            "group": "",
        }
        for word in WORDS
    ]
    assert len(teach(tmp_path, rows + long, queries=3, unlabelled=8 / 3)[3:]) == 8
    unlabelled = teach(tmp_path, rows + long, queries=3, unlabelled=20)[3:]
    assert len(unlabelled) == len(WORDS)  # no other passage has a sentence that can ask for it
    for taught in unlabelled:
        assert 4 <= len(taught.query.split()) <= 30
        assert taught.query in taught.passages[0]
        assert all(np.isnan(label) for label in taught.labels)
        assert np.isfinite(taught.teacher).all()


def test_the_same_seed_gives_the_same_lists_and_another_seed_others(tmp_path: Path, rows: Rows) -> None:
    lists, again, other = (repr(teach(tmp_path, rows, unlabelled=5, seed=seed)) for seed in (0, 0, 1))
    assert again == lists
    assert other != lists


def test_a_capped_pool_still_holds_the_positives_asked_for(tmp_path: Path, rows: Rows) -> None:
    lists = teach(tmp_path, rows, queries=6, pool_cap=4)
    pool = {text for taught in lists for text in taught.passages}
    assert len(lists) == 6
    assert {taught.passages[0] for taught in lists} == {text for text in pool if text.startswith("you can")}
    assert len(pool) == 6 + 4
