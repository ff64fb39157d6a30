"""The records that a reranker takes and gives: candidate lists, rankings, and what it took to score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class CandidateList:
    """One query with the documents that were retrieved for it."""

    query: str
    documents: Sequence[str]


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document with its score and its place in the caller's list."""

    index: int
    """Position in the caller's list, from 0."""
    relevance_score: float
    """In 0..1, or the logit where raw scores were asked for."""
    document: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What it took to score some lists, and what was cut of them; usages can be added."""

    tokens: int = 0
    """Tokens of the query once and of each whole document, each with its own special tokens (Jina's counting rule)."""
    pairs: int = 0
    """(query, document) pairs scored."""
    chunks: int = 0
    """(query, passage) pairs that went through the model; more than `pairs` where documents were long."""
    cut_queries: int = 0
    cut_documents: int = 0
    """Documents that lost tokens to `max_length` (compute_score) or `max_chunks_per_doc` (rerank)."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(slots=True)
class ScoringTime:
    """Seconds that scoring took. A caller passes one along, and every call adds its own seconds."""

    tokenize: float = 0.0
    """From texts to the token ids of pairs."""
    forward: float = 0.0
    """From token ids to logits: packing, the model, copies to and from its device; or the wait for another process."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer to one candidate list."""

    documents: list[RankedDocument]
    """Best first, `top_n` at most; empty where `error` says why."""
    usage: Usage
    error: str | None = None
    """Why this list could not be ranked; the lists beside it are not affected."""
    below_threshold: int = 0
    """Documents that are left out since their score is below `score_threshold`; `top_n` does not count."""
