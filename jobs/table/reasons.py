"""The reasons why a row has no score: each is the first word of the row's `error`."""

from __future__ import annotations

import re
from enum import StrEnum

from pipelines.errors import NoScore


class Reason(StrEnum):
    """Why a row has no score: the word before the colon of its `error`, stable, for counting."""

    NULL_QUERY = "null_query"
    BLANK_QUERY = NoScore.BLANK_QUERY.value
    NULL_DOCUMENTS = "null_documents"
    NULL_DOCUMENT = "null_document"
    UNKNOWN_DOCUMENT = "unknown_document"
    """An id that the corpus does not have."""
    AMBIGUOUS_DOCUMENT = "ambiguous_document"
    """An id that the corpus has with more than one text."""
    INVALID_UTF8 = "invalid_utf8"
    MISSING_COLUMN = "missing_column"
    """The row's file lacks a column that is read."""
    UNUSABLE_TYPE = "unusable_type"
    """In the row's file a column that is read cannot hold texts."""
    UNUSABLE_ID = "unusable_id"
    """A document's id is a float that is not whole, or too large to stand for one integer."""
    NULL_GROUP = "null_group"
    """A pair that belongs to no group."""
    DIFFERENT_QUERIES = "different_queries"
    """A group whose pairs do not have the same query."""
    GROUP_TOO_LARGE = "group_too_large"
    """A group that is too large to be held in memory."""
    SCORING_FAILED = "scoring_failed"
    """Scoring the row alone raised an error, which the replica outlived."""
    NON_FINITE_SCORE = NoScore.NON_FINITE_SCORE.value
    """The model gave NaN or an infinity for one of the row's documents."""
    KILLED_REPLICA = "killed_replica"
    """Scoring the row alone ended its replica, time after time."""
    NOT_RANKED = "not_ranked"
    """The reranker gave no scores, and its message has no reason of its own."""


def reason_of(error: str) -> str:
    """The word before the colon of a row's error; `not_ranked` where the error has no such word."""
    reason = re.match(r"([a-z][a-z0-9_]*): ", error)
    return reason.group(1) if reason else Reason.NOT_RANKED
