"""A long text -> pieces that have the same tokens one after the other as the text has in one, for many tokenizers.

A tokenizer holds some hundred bytes for each character of a text until it has done all of it. Where it deals with the
words between spaces each by itself, a text may be cut at a space. Whether it does is read off its parts; about parts
that are not known here nothing is assumed, and their texts are not cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

CUT = re.compile(r"(?<=[^\W_]) (?=[^\W_\uff9e\uff9f])")
"""A single space between letters or digits: nothing beside it is a part of a special token, or joins with it.

The two that are excepted, of Japanese, are letters by Unicode's word and yet join with what stands before them.
"""
BY_CHARACTER = {
    "BertNormalizer",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Precompiled",
    "Strip",
    "StripAccents",
}
"""Normalizers for which nothing beyond a space matters. (Strip takes away what is at the ends, where no space is.)"""
MANY_SPACES = {"Regex": " {2,}"}
"""What XLM-RoBERTa's normalizer replaces."""
WITHIN_WORDS = {"Digits", "Punctuation"}


def cuts_at_spaces(tokenizer: Tokenizer) -> bool:
    """Whether the tokens on both sides of a CUT are the same in one text and in two, without the space between."""
    return (
        all(map(is_by_character, parts(tokenizer.normalizer, "normalizers")))
        and splits_at_spaces(parts(tokenizer.pre_tokenizer, "pretokenizers"))
        and not any(" " in token.content for token in tokenizer.get_added_tokens_decoder().values())
    )


def pieces_of(text: str, characters: int) -> list[str]:
    """The text without the spaces that it is cut at; each piece but the last ends at the first CUT from `characters`
    on, so that all are longer where there is none."""
    pieces, start = [], 0
    while len(text) - start > characters and (cut := CUT.search(text, start + characters)):
        pieces.append(text[start : cut.start()])
        start = cut.end()
    return [*pieces, text[start:]]


def parts(part: Any, name: str) -> list[dict[str, Any]]:
    """The JSON of a normalizer or pre-tokenizer, or of those in a sequence, which stand there under `name`."""
    return flattened(json.loads(part.__getstate__()), name) if part is not None else []


def flattened(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A part's JSON, of each where it is a sequence."""
    if state["type"] != "Sequence":
        return [state]
    return [one for inner in state[name] for one in flattened(inner, name)]


def is_by_character(normalizer: dict[str, Any]) -> bool:
    """Whether nothing beyond a CUT matters to a normalizer."""
    kind = normalizer["type"]
    return kind in BY_CHARACTER or (kind == "Replace" and normalizer["pattern"] == MANY_SPACES)


def splits_at_spaces(pre_tokenizers: Sequence[dict[str, Any]]) -> bool:
    """Whether words are told apart at spaces, and none by its place in the text."""
    if not pre_tokenizers:
        return False
    first, *others = pre_tokenizers
    marks = [one for one in pre_tokenizers if one["type"] == "Metaspace"]
    if not all(one.get("prepend_scheme") == "always" and one.get("split") for one in marks):
        return False
    return first["type"] in {"BertPreTokenizer", "WhitespaceSplit", "Metaspace"} and all(
        one["type"] in {"Metaspace", *WITHIN_WORDS} for one in others
    )
