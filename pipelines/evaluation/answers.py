"""Judgements by answers: a document is relevant to a question if one of its accepted answers stands in it.

Texts and answers are compared as MKQA compares answers, by its own normalisation of each language
(https://github.com/apple/ml-mkqa/blob/main/mkqa_eval_util.py, `normalize_answer_by_language`). An answer stands in a
text if its words follow one another there; of languages without spaces between words, its characters. What we add to
that normalisation stands at `spellings`.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

BY_CHARACTER = frozenset({"zh_cn", "zh_hk", "zh_tw", "ja", "th", "km"})
"""Languages that MKQA compares by characters."""
ARTICLES: Mapping[str, str] = {
    "en": r"\b(?:a|an|the)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": r"ال",
    "nl": r"\b(?:de|het|een|des|der|den)\b",
    "sv": r"\b(?:en|ett)\b",
    "da": r"\b(?:en|et)\b",
    "no": r"\b(?:en|et|ei)\b",
    "fr": r"\b(?:le|la|les|du|de|des|un|une)",
    "pt": r"\b(?:o|a|os|as|um|uma|uns|umas)\b",
    "it": r"\b(?:il|lo|la|i|gli|le|del|dello|della|dei|degli|delle|una|uno|un)",
    "fi": r"\b(?:se|yks|yksi)\b",
    "hu": r"\b(?:a|az|egy)\b",
}
"""What is taken out of each language. In French and Italian that is the beginning of longer words too, of text and
answer alike: MKQA's patterns have no end there, and so neither have ours."""
PATTERNS = {language: re.compile(pattern) for language, pattern in ARTICLES.items()}
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str, language: str) -> str:
    """The words of a text, or its characters, with one space between."""
    lower = text.lower().translate(WITHOUT_PUNCTUATION)
    articles = PATTERNS.get(language)
    left = lower if articles is None else articles.sub(" ", lower)
    return " ".join("".join(left.split()) if language in BY_CHARACTER else left.split())


@cache
def punctuation() -> Mapping[int, str]:
    """A space for each mark of punctuation of all scripts."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}


@lru_cache(2**14)
def spellings(text: str, language: str) -> tuple[str, str]:
    """MKQA's normal form of a text, and that of the same text with spaces in the place of punctuation.

    MKQA takes punctuation out without a trace. That suits short answers; of a passage `(1945-1990)` would become one
    word, and typographic quotation marks would stay. Nor does it compose letters with their marks (Unicode's NFC), and
    a passage that has them apart would hold no answer with an accent. Both are ours.
    """
    text = unicodedata.normalize("NFC", text)
    spaced = text.translate(punctuation())
    return f" {normalized(text, language)} ", f" {normalized(spaced, language)} "


def grades_by_answers(answers: Iterable[str], documents: Iterable[tuple[str, str]], language: str) -> dict[str, int]:
    """1 for each document, given as id and text, in which an answer stands, and 0 for the others."""
    wanted = [spellings(answer, language) for answer in answers]
    found = {}
    for document, text in documents:
        there = spellings(text, language)
        found[document] = int(any(stands_in(answer, there) for answer in wanted))
    return found


def stands_in(answer: tuple[str, str], text: tuple[str, str]) -> bool:
    """Whether the words of an answer stand in a text, in one of the two spellings. No words stand nowhere."""
    return any(one.strip() and one in whole for one, whole in zip(answer, text, strict=True))
