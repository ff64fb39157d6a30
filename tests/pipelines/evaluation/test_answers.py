"""When an answer stands in a text, by MKQA's own normalisation."""

from __future__ import annotations

import unicodedata

import pytest

from pipelines.evaluation.answers import grades_by_answers, normalized


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "an answer ?? without stopwords", "answer -- without, stopwords!!"),
        ("es", "esto es manzana", "esto es una manzana"),
        ("ar", "تفاحة", "التفاحة"),
        ("fr", "c'est de la pomme", "c'est la pomme"),
        ("hu", "ez egy alma", "ez alma"),
    ],
)
def test_answers_are_equal_that_mkqas_own_tests_hold_equal(language: str, one: str, other: str) -> None:
    """https://github.com/apple/ml-mkqa/blob/main/tests/test_mkqa_eval.py, the cases with an exact match of 1."""
    assert normalized(one, language) == normalized(other, language) != ""


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "The U.S.  state of A-lot", "us state of alot"),
        ("fr", "Les leçons", "s çons"),  # MKQA's pattern has no end of a word
        ("ja", "デイヴ・ エド", "デ イ ヴ ・ エ ド"),
        ("zh_cn", "戴维 Edmunds ", "戴 维 e d m u n d s"),
        ("ru", "Эдмундс, Дэйв", "эдмундс дэйв"),
        ("pl", "The end", "the end"),
    ],
)
def test_texts_become_words_as_mkqa_makes_them(language: str, text: str, words: str) -> None:
    """The expected words are what its `normalize_answer_by_language` returned."""
    assert normalized(text, language) == words


@pytest.mark.parametrize(
    ("answer", "text", "stands"),
    [
        ("Dave Edmunds", "It was Dave Edmunds's first song.", True),
        ("Dave Edmunds", "By “Dave Edmunds”—a singer", True),
        ("1990", "(1945-1990)", True),
        ("U.S.", "in the US", True),
        ("the Beatles", "a Beatles song", True),
        ("rock-n-roll", "It is rock-n-roll!", True),
        ("art", "a party", False),
        ("Dave Edmunds", "Edmunds, Dave", False),
        ("The", "the end", False),
        ("", "anything", False),
    ],
)
def test_an_answer_stands_in_a_text_if_its_words_follow_one_another_there(answer: str, text: str, stands: bool) -> None:
    assert grades_by_answers([answer], [("d", text)], "en") == {"d": int(stands)}


@pytest.mark.parametrize("of_answer", ["NFC", "NFD"])
@pytest.mark.parametrize("of_text", ["NFC", "NFD"])
def test_an_accent_is_the_same_as_one_letter_and_as_two(of_answer: str, of_text: str) -> None:
    answer = unicodedata.normalize(of_answer, "Beyoncé")
    text = unicodedata.normalize(of_text, "sung by Beyoncé in 2003")
    assert grades_by_answers([answer], [("d", text)], "en") == {"d": 1}


def test_one_answer_of_several_is_enough_and_characters_are_words_in_chinese() -> None:
    documents = [("d1", "歌手戴维·埃德蒙兹。"), ("d2", "别的")]
    assert grades_by_answers(["无", "埃德蒙兹 "], documents, "zh_cn") == {"d1": 1, "d2": 0}
