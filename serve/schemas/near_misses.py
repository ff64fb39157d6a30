"""Fields that no dialect knows and that look like one that is read: they are named, and never refused for that."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any

from serve.schemas.synonyms import SYNONYMS

OTHER_NAMES = {
    "query": ("q", "question", "search_query", "query_text"),
    "documents": ("passages", "docs", "candidates", "sentences", "contents", "chunks"),
    "top_n": ("k", "n", "top", "limit", "num_results", "max_results"),
    "return_documents": ("return_docs", "return_texts", "include_documents", "with_documents"),
    "instruction": ("instruct", "prompt"),
    "raw_scores": ("logits", "return_logits"),
    "score_threshold": ("threshold", "min_score", "minimum_score", "min_relevance_score", "relevance_threshold"),
    "text": ("txt", "content", "passage", "body"),
    "inputs": ("text", "texts", "query"),
}
"""What other software calls these fields, and no dialect of ours; those alike in letters are found without."""
LOOKED_AT = 20
"""Unknown fields that are looked at in one request, so that a body full of them takes no time."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,39}")
"""A name that is looked at, and repeated in a header: what is longer, or has other characters, is none of ours."""
FEWEST_LETTERS = 5
"""Of a name that is taken for a slip of another one: shorter ones are too much alike (`top_p` is no `top_n`)."""
ALIKE = 0.85
"""Share of letters that two names have in common, in the same order; `querry` and `query` have 0.91 of them."""


def near_misses(known: frozenset[str], readable: frozenset[str], sent: Mapping[str, Any]) -> list[str]:
    """A warning for each field in `sent` that is not `known`, and that looks like one that is `readable`.

    What is null is not there.
    """
    unknown = (name for name, value in sent.items() if name not in known and value is not None)
    found = ((name, nearest(name, readable)) for name in islice(unknown, LOOKED_AT))
    return [f"`{name}` is not read here; did you mean `{meant}`?" for name, meant in found if meant is not None]


def nearest(name: str, readable: frozenset[str]) -> str | None:
    """Which of the fields that are read somebody means who writes `name`; None if it looks like none of them."""
    if NAME.fullmatch(name) is None:
        return None
    meant, letters = meanings(readable), squeezed(name)
    if letters in meant:
        return meant[letters]
    alike = get_close_matches(letters, meant, n=1, cutoff=ALIKE) if len(letters) >= FEWEST_LETTERS else []
    return meant[alike[0]] if alike else None


@functools.cache
def meanings(readable: frozenset[str]) -> dict[str, str]:
    """What the letters of a name mean among the fields that are read."""
    meant = {squeezed(one): one for one in sorted(readable)}
    for names in (*SYNONYMS, *((name,) for name in OTHER_NAMES)):
        read = next((name for name in names if name in readable), None)  # a group begins with the name that we prefer
        if read is not None:
            for other in (*names, *(other for name in names for other in OTHER_NAMES.get(name, ()))):
                meant.setdefault(squeezed(other), read)
    return meant


def squeezed(name: str) -> str:
    """The letters of a name, as they are the same in `top_n`, `topN` and `top-n`."""
    return re.sub(r"[_. -]", "", name).lower()
