"""What the rest of the app works with, whatever dialect a request came in: the task, and what else an answer says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.records import CandidateList
from serve.schemas.values import Document


@dataclass(frozen=True, slots=True)
class RerankTask:
    """One candidate list to rank, whatever dialect it came in."""

    query: str
    documents: Sequence[str]
    """The texts to score."""
    sent: Sequence[str | Document]
    """The documents as they came, for the echo."""
    model: str | None = None
    """The name that the caller gave."""
    top_n: int | None = None
    return_documents: bool | None = None
    """None leaves it to the server."""
    max_query_length: int | None = None
    max_length: int | None = None
    overlap_tokens: int | None = None
    max_chunks_per_doc: int | None = None
    max_tokens_per_doc: int | None = None
    """Tokens of a document that are read."""
    truncate: bool = True
    """False: refuse the list rather than cut its query or a document."""
    instruction: str | None = None
    """What the model is told to look for; None leaves it to the server."""
    raw_scores: bool = False
    """Logits instead of relevance scores in 0..1."""
    score_threshold: float | None = None
    """What has a lower relevance score, in 0..1 also with raw scores, is left out before `top_n` are taken."""
    allow_uncalibrated: bool = False
    """Whether there may be a threshold for a model without calibration."""

    @property
    def candidates(self) -> CandidateList:
        """The list as the reranker wants it."""
        return CandidateList(self.query, self.documents)


@dataclass(frozen=True, slots=True)
class Served:
    """What an answer says beside the ranking."""

    model: str
    """The name of the model that scored, not the one that the caller gave."""
    request_id: str
    return_documents: bool = True
    """For callers who do not say; Cohere's and TEI's dialects have a default of their own."""
