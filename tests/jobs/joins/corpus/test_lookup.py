"""Ids to texts: as a dictionary would do it, whatever the segments."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.joins.corpus.lookup
from jobs.joins.corpus.lookup import Segment, look_up, segment_of
from jobs.table.reasons import Reason

Ids = st.none() | st.sampled_from(["a", "b", "c", "d17", "", "17"])
Documents = st.lists(st.tuples(Ids, st.none() | st.sampled_from(["one text", "another", ""])), max_size=20)


def binary(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string()).cast(pa.large_binary())


def segment(path: str, documents: list[tuple[str | None, str | None]], start: int = 0) -> Segment:
    """Documents from row `start` of a file on."""
    rows = np.arange(start, start + len(documents))
    return segment_of(path, rows, binary([one for one, _ in documents]), binary([text for _, text in documents]))


def expected(documents: list[tuple[str | None, str | None]], asked: str | None) -> tuple[str | None, Reason | None]:
    texts = [text for one, text in documents if one is not None and one == asked]
    if asked is None:
        return None, Reason.NULL_DOCUMENT
    if not texts:
        return None, Reason.UNKNOWN_DOCUMENT
    if len(set(texts)) > 1:
        return texts[0], Reason.AMBIGUOUS_DOCUMENT
    return texts[0], None if texts[0] is not None else Reason.NULL_DOCUMENT


@given(st.lists(Documents, max_size=4), st.lists(Ids, max_size=20))
def test_each_id_has_its_text_or_the_reason_why_not(
    segments: list[list[tuple[str | None, str | None]]], asked: list[str | None]
) -> None:
    found = look_up([segment(f"{i}.parquet", documents) for i, documents in enumerate(segments)], binary(asked))
    everything = [one for documents in segments for one in documents]
    for i, (one, text) in enumerate(zip(asked, found.texts.to_pylist(), strict=True)):
        wanted, reason = expected(everything, one)
        assert text == (None if wanted is None else wanted.encode())
        assert (found.problems[i][0] if i in found.problems else None) == reason


def test_ids_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.joins.corpus.lookup, "hashes", lambda keys: np.zeros(len(keys), np.uint64))
    found = look_up([segment("a", [("x", "text of x"), ("y", "text of y")])], binary(["y", "x", "z"]))
    assert found.texts.to_pylist() == [b"text of y", b"text of x", None]
    assert list(found.problems) == [2]


def test_what_is_wrong_with_an_id_is_said_with_its_places() -> None:
    segments = [
        segment("a", [("x", "one"), ("n", None)], start=5),
        segment("b", [("y", "same"), ("x", "two"), ("y", "same")]),
    ]
    problems = look_up(segments, binary(["x", "y", "n", "z" * 100, None])).problems
    assert problems == {
        0: (Reason.AMBIGUOUS_DOCUMENT, "is 'x', which has different texts in row 5 of a and row 1 of b"),
        2: (Reason.NULL_DOCUMENT, "is 'n', whose text in the corpus is null"),
        3: (Reason.UNKNOWN_DOCUMENT, f"is '{'z' * 80}...', which is not in the corpus"),
        4: (Reason.NULL_DOCUMENT, "is null"),
    }
