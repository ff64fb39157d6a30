"""Token lists on disk: what goes in comes out, and what cannot be trained from is refused by name."""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.training.token_lists import TokenList, TokenLists, TokenListsError


def two_lists() -> TokenLists:
    """The second list repeats a passage of the first, and its query."""
    first = TokenList([5, 6], [[7], [8, 9, 10], []], [1.0, 0.0, math.nan], [2.5, -1.0, math.nan])
    second = TokenList([5, 6], [[8, 9, 10], [65535]], [0.0, 2.0], [0.5, 1.5], held_back=True)
    return TokenLists.of([first, second])


def test_a_saved_file_comes_back_as_it_was(tmp_path: Path) -> None:
    lists = two_lists()
    lists.save(tmp_path / "lists.npz")
    again = TokenLists.load(tmp_path / "lists.npz")
    for name in TokenLists.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(lists, name))
    assert [again.text(t).tolist() for t in again.passages[again.list_starts[1] : again.list_starts[2]]] == [
        [8, 9, 10],
        [65535],
    ]
    assert again.held_back.tolist() == [False, True]
    collected = TokenLists.of(again)
    for name in TokenLists.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(collected, name), getattr(lists, name))


def test_equal_texts_are_stored_once() -> None:
    lists = two_lists()
    assert len(lists.text_starts) - 1 == 5
    assert lists.queries[0] == lists.queries[1]
    assert lists.passages[1] == lists.passages[3]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (TokenList([1], [], [], []), "list 0 has 0 passages"),
        (TokenList([1], [[2]], [1.0, 0.0], [0.0]), "list 0 has 1 passages, 2 labels and 1 teacher scores"),
    ],
)
def test_a_list_that_cannot_be_stored_is_refused(one: TokenList, message: str) -> None:
    with pytest.raises(TokenListsError, match=message):
        TokenLists.of([one])


def test_a_file_of_something_else_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "lists.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(TokenListsError, match=r"lists.npz holds no token lists"):
        TokenLists.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tokens.npy", pickle.dumps([1, 2]))
    with pytest.raises(TokenListsError, match=r"lists.npz holds no token lists"):
        TokenLists.load(path)


def test_large_token_ids_are_stored_wide() -> None:
    narrow, wide = (TokenLists.of([TokenList([1], [[number]], [1.0], [0.0])]) for number in (65_535, 65_536))
    assert (narrow.tokens.dtype, wide.tokens.dtype) == (np.uint16, np.uint32)
    assert (narrow.text(1).tolist(), wide.text(1).tolist()) == ([65_535], [65_536])
