"""Rows that nothing can be learnt from: the reason of each, counts by reason, and a few examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from jobs.errors import StoppedError
from jobs.table.parsing import Text
from jobs.table.reasons import Reason


class Fault(StrEnum):
    """Why a training row cannot be used, beside the reasons that every job has."""

    NO_POSITIVE = "no_positive"
    LABEL_IS_NO_NUMBER = "label_is_no_number"
    LABELS_DO_NOT_MATCH = "labels_do_not_match"
    """Not one label or teacher score for each document."""
    NOTHING_TO_LEARN = "nothing_to_learn"
    """No label above 0 and no teacher score, or one for a single document."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """Why a row cannot be used: `reason` for counting, `detail` for whoever mends it."""

    reason: str
    detail: str


@dataclass(slots=True)
class BadRows:
    """How many rows are bad for each reason, and the first of them."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    """`row NUMBER: REASON: DETAIL`."""

    EXAMPLES = 2  # of each reason

    def add(self, row: int, bad: BadRow) -> None:
        """Counts the bad row that has the number `row` in its file."""
        count = self.counts[bad.reason] = self.counts.get(bad.reason, 0) + 1
        if count <= self.EXAMPLES:
            self.examples.append(f"row {row}: {bad.reason}: {bad.detail}")


class TooManyBadRowsError(StoppedError):
    """More rows cannot be used than --max-errors allows; nothing was trained."""


def bad_text(text: Text, if_null: str, name: str) -> BadRow | None:
    """Why a text cannot be used that must not be blank; None for a good one. `if_null` is the reason for a null."""
    if text is None:
        return BadRow(if_null, f"{name} is null")
    if isinstance(text, UnicodeDecodeError):
        return BadRow(Reason.INVALID_UTF8, f"{name} is not valid UTF-8 at byte {text.start}")
    if not text.strip():
        blank = Reason.BLANK_QUERY if if_null == Reason.NULL_QUERY else if_null
        return BadRow(blank, f"{name} has nothing but white space")
    return None
