"""Why a row has no score, as one list of words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.table.reasons import Reason, reason_of

ROOT = Path(__file__).parents[3]
BARE_REASON = re.compile(r"""["']([a-z]+(?:_[a-z]+)+): """)
"""A string that begins as an `error` does, with a word that is no member of an enumeration."""


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_the_word_before_the_colon(reason: Reason) -> None:
    assert Reason(reason_of(f"{reason}: what is wrong")) is reason


@pytest.mark.parametrize("package", ["jobs", "pipelines"])
def test_no_error_begins_with_a_word_of_its_own(package: str) -> None:
    """Each that is written names its reason by an enumeration, so that the list of reasons is complete."""
    found = [
        (path.name, word)
        for path in (ROOT / package).rglob("*.py")
        for word in BARE_REASON.findall(path.read_text(encoding="utf-8"))
    ]
    assert found == []
