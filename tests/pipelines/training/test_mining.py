"""Mined groups: what counts as a negative, what is held back, and whose cosine stands beside which text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.training import mining
from pipelines.training.mining import Rows, mine_source

WORDS = ("sort", "file", "read", "open", "list", "write", "split", "join")


class LetterEncoder:
    """Unit vectors of letter counts: texts are close when they share letters."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def mine(folder: Path, rows: Rows, queries: int = 100) -> Rows:
    path = folder / "source.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return mine_source(path, queries, LetterEncoder(), random.Random(0))  # type: ignore[arg-type]


@pytest.fixture
def rows() -> Rows:
    """Two rows a word: the same query with two right answers, each in a group of its own."""
    return [
        {
            "query": f"how to {word}",
            "positive": f"{word} {kind}",
            "negatives": [f"{word} given"],
            "group": f"{word} {kind}",
        }
        for word in WORDS
        for kind in ("first", "second")
    ]


def test_no_right_answer_of_the_query_is_a_negative(tmp_path: Path, rows: Rows) -> None:
    for group in mine(tmp_path, rows):
        word = group["query"].removeprefix("how to ")
        negatives = {text for kind in ("bm25", "dense", "given", "random") for text in group[kind]}
        assert negatives
        assert not negatives & {f"{word} first", f"{word} second"}


def test_a_document_of_the_same_group_is_no_negative_and_one_that_came_with_the_row_is(
    tmp_path: Path, rows: Rows
) -> None:
    for row in rows:
        row["group"] = "one"
    for group in mine(tmp_path, rows):
        assert group["bm25"] == group["dense"] == group["random"] == []
        assert group["given"]


@pytest.mark.parametrize("no_group", ["", None])
def test_documents_without_a_group_are_not_of_the_same_one(tmp_path: Path, rows: Rows, no_group: str | None) -> None:
    """Half of the sources write an empty group, and none of their rows had a mined negative."""
    for row in rows:
        row["group"] = no_group
    for group in mine(tmp_path, rows):
        assert group["bm25"]
        assert group["dense"]
        assert group["random"]


def test_a_document_far_closer_than_the_positive_is_taken_for_unlabelled(tmp_path: Path) -> None:
    rows = [
        {"query": "zzz", "positive": "abc", "negatives": None, "group": None},
        {"query": "other", "positive": "zzz zz", "negatives": None, "group": None},
        {"query": "third", "positive": "def", "negatives": None, "group": None},
    ]
    [group] = [group for group in mine(tmp_path, rows) if group["query"] == "zzz"]
    assert "zzz zz" not in group["bm25"] + group["dense"] + group["random"]
    assert "def" in group["dense"]


def test_cosines_stand_beside_their_texts(tmp_path: Path, rows: Rows) -> None:
    encoder = LetterEncoder()
    for group in mine(tmp_path, rows):
        query = encoder.encode([group["query"]])[0]
        assert group["positive_cosine"] == pytest.approx(float(encoder.encode([group["positive"]])[0] @ query))
        for kind in ("bm25", "dense", "given", "random"):
            expected = [float(encoder.encode([text])[0] @ query) for text in group[kind]]
            assert group[f"{kind}_cosines"] == pytest.approx(expected)


def test_a_share_of_each_source_is_held_back(tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "HELD_BACK_SHARE", 0.25)
    assert sum(group["held_back"] for group in mine(tmp_path, rows)) == len(rows) / 4
