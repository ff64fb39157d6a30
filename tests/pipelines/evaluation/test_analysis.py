"""What becomes of texts of many scripts."""

from __future__ import annotations

import bm25s
import pytest
from hypothesis import given
from hypothesis import strategies as st
from Stemmer import Stemmer

from pipelines.evaluation.analysis import STOP_WORDS, words_of
from tests.checkpoints import words as random_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's mat in C, A1!", "cat mat a1"),
        ("read_file(x) __init__ MAX_ROWS", "read file init max row"),
        ("singers SINGING studies", "singer sing studi"),
        ("userName YouTube", "user name you tube usernam youtub"),
        ("HTTPServer2Go USA aB", "http server2 go httpserver2go usa ab"),
        ("größerAls NaïveBayes 用户_userId", "user id größeral naïvebay 用户 userid"),
        ("l'école, ÉCOLE, e\u0301cole", "école école école"),
        ("ＡＢＣ ﬁn", "abc fin"),
        ("İstanbul'da ISPARTA", "istanbul da isparta"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("東京都の本", "東京 京都 都の の本"),
        ("水 と Python入門", "水 と python 入門"),
        ("我在使用userName函数 PyTorchで", "user name py torch 我在 在使 使用 usernam 函数 pytorch で"),
        ("葛\U000e0100城市 葛城市", "葛城 城市 葛城 城市"),
        ("ﾊﾛｰ・ワールド", "ハロ ロー ワー ール ルド"),
        ("서울은 물", "서울 울은 물"),
        ("ว่าไป", "ว่า าไ ไป"),
        ("ខ្មែរ", "ខ្មែ មែរ"),
        ("مُحَمَّد مـحـمـد می\u200cخواهم", "محمد محمد می خواهم"),
        ("שָׁלוֹם", "שלום"),
        ("co\u00adop ශ්\u200dරී", "coop ශ්රී"),
        ("❤\ufe0f — … 5 1\ufe0f\u20e3", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words_of([text]) == [expected.split()]


def test_english_texts_have_the_words_that_bm25s_gives_them() -> None:
    texts = [random_words(40, seed=i) + " and It was IN a-z, x1 of the." for i in range(20)]
    expected = bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer("english"), return_ids=False, show_progress=False)
    assert words_of(texts) == expected
    assert frozenset(bm25s.tokenization.STOPWORDS_EN) == STOP_WORDS


@pytest.mark.parametrize("name", ["aB", "A", "a", "ab_", "1A", "AAb"])
def test_a_name_of_a_million_characters_is_read_in_no_time(name: str) -> None:
    """A pattern that tries each place anew would take hours; the time limit of a test is what fails."""
    [found] = words_of([name * 500_000 + "é"])
    assert found


@given(st.text())
def test_words_of_any_text_are_texts_in_lower_case_without_spaces(text: str) -> None:
    [found] = words_of([text])
    assert all(word and not any(map(str.isspace, word)) for word in found)
    assert words_of([text, text]) == [found, found]
