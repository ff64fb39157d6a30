"""How texts become the words that BM25 counts, in any language. There is no dictionary.

- Texts are normalized (NFKC) and lower-cased. A word is a run of letters, digits and the marks on them: without the
  marks, words of Hindi, Tamil and many others would fall apart. Words of one character are left out.
- Names in code are made of words, and people ask for these: `user_name` counts as `user` and `name`, and `userName` as
  these two and as `username` (so do `YouTube` and `youtube` find each other).
- Where scripts put no spaces between words, or Korean puts its particles behind them, words are the *pairs* of
  neighbouring letters (Lucene's CJKBigramFilter does so for Chinese, Japanese and Korean). A letter has its marks with
  it, which found more in Thai, Lao, Khmer and Burmese than pairs of code points did.
- Lucene's English stop words are left out of all texts. Without that, English queries found clearly less; in other
  languages it made no difference, as those that are words there too, such as `in` or `an`, say little there as well.
- Words lose their English endings, by Snowball's English stemmer: `singers` counts as `singer`. What Lucene's English
  analyzer finds is found here; in other languages that made no difference.
- What is written or left out as the writer likes is left out: vowel points of Arabic and Hebrew, the Arabic stroke that
  only makes a word longer, the soft hyphen, the joiner within a letter, what selects a variant of a letter's shape.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple

from ..errors import ConfigError, missing_packages

ANALYZER = "stems-and-bigrams-2"
"""The name of what this file does to texts. Whoever changes what comes out changes the number."""

ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with"
)
"""The stop words of Lucene's EnglishAnalyzer."""
STOP_WORDS = frozenset(ENGLISH.split())

HUMP = "(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
"""The place before a hump: of `userName`, of `HTTPServer`."""

IN_PAIRS = (
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"  # Han
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001b000-\U0001b16f"  # Hiragana, Katakana
    "\u1100-\u11ff\uac00-\ud7a3"  # Hangul
    "\u0e00-\u0e7f\u0e80-\u0eff"  # Thai, Lao
    "\u1780-\u17ff"  # Khmer
    "\u1000-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f"  # Burmese and its neighbours
)
"""The letters that count in pairs, as a class of a regular expression; what NFKC replaces is not among them."""

IGNORED = (
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # points and accents of Hebrew
    "\u064b-\u0652\u0670\u0640"  # vowel points of Arabic, and the stroke
    "\u00ad\u200d"  # the soft hyphen, the zero-width joiner
    "\ufe00-\ufe0f\U000e0100-\U000e01ef\u180b-\u180d\u180f"  # variation selectors
    "\u20dd-\u20e4"  # circles and keys around a letter, as in emoji
)
"""Characters that are no part of a word, as a class of a regular expression."""


def load_stemmers() -> ModuleType:
    """The package PyStemmer; raises ConfigError where it is not installed."""
    try:
        import Stemmer  # optional: the extras `train` and `evaluate`
    except ImportError:
        raise ConfigError(missing_packages("BM25", "bm25s PyStemmer")) from None
    return Stemmer  # type: ignore[no-any-return]


def words_of(texts: Iterable[str]) -> list[list[str]]:
    """As `words`, of each text."""
    return [words(text) for text in texts]


def words(text: str) -> list[str]:
    """The words of a text, with repetitions, without their endings; raises ConfigError, as `load_stemmers`."""
    stemmer = load_stemmers().Stemmer("english")  # a new one costs nothing, and threads cannot share one
    return stemmer.stemWords(list(whole_words(text)))  # type: ignore[no-any-return]


def whole_words(text: str) -> Iterator[str]:
    """Yields the words of a text: first the parts of names in code that have humps, then all words in their order."""
    patterns = compiled()
    if not text.isascii():
        text = patterns.ignored.sub("", unicodedata.normalize("NFKC", text))
    text = text.replace("_", " ")
    for name in patterns.name.findall(text if text.isascii() else patterns.in_pairs.sub(" ", text)):
        yield from filter(is_kept, map(str.lower, patterns.hump.split(name)))
    text = text.lower()
    if text.isascii():
        yield from filter(is_kept, patterns.word.findall(text))
        return
    text = text.replace("i\u0307", "i")  # the Turkish capital I with its dot, in lower case
    for word in patterns.word.findall(text):
        for number, part in enumerate(patterns.in_pairs.split(word)):
            if number % 2:  # what the pattern's group holds
                yield from pairs(patterns.letter.findall(part))
            elif is_kept(part):
                yield part


def is_kept(word: str) -> bool:
    """Whether a word counts that is not cut into pairs."""
    return len(word) > 1 and word not in STOP_WORDS


def pairs(letters: Sequence[str]) -> Iterator[str]:
    """Yields each letter with the next one; a letter that stands alone is a word."""
    return iter(letters) if len(letters) == 1 else map("".join, pairwise(letters))


class Patterns(NamedTuple):
    """The regular expressions by which a text is cut."""

    word: re.Pattern[str]
    in_pairs: re.Pattern[str]
    letter: re.Pattern[str]
    """With the marks on it."""
    ignored: re.Pattern[str]
    name: re.Pattern[str]
    """A name with humps."""
    hump: re.Pattern[str]


@lru_cache(maxsize=1)
def compiled() -> Patterns:
    """The patterns; Python's own have no class for marks."""
    marks = "".join(f"{first}-{last}" for first, last in ranges_of_marks())
    return Patterns(
        re.compile(f"\\w[\\w{marks}]*"),
        re.compile(f"([{IN_PAIRS}]+)"),
        re.compile(f"[\\w{marks}][{marks}]*"),
        re.compile(f"[{IGNORED}]"),
        re.compile(r"\b[A-Za-z0-9]*?(?:[a-z0-9][A-Z]|[A-Z][A-Z][a-z])\w*"),
        re.compile(HUMP),
    )


def ranges_of_marks() -> Iterator[tuple[str, str]]:
    """Yields first and last of each run of neighbouring characters that are marks (category M)."""
    marks = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("M")]
    first = last = marks[0]
    for code in [*marks[1:], sys.maxunicode + 1]:
        if code != last + 1:
            yield chr(first), chr(last)
            first = code
        last = code
