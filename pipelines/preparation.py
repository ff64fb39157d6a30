"""Candidate lists -> token pairs, by a model's tokenizer and lengths. Needs no weights.

A Reranker prepares its own lists; in a server, the processes that speak HTTP do, while others hold the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from .chunking import chunk_windows, count_windows
from .config import MIN_MAX_LENGTH, SPECIAL_TOKENS_PER_TEXT, RerankerConfig
from .errors import ConfigError, InvalidInputError, NoScore
from .families import ModelSpec, model_limit, spec_of
from .lengths import Lengths
from .model_files import ModelFiles, refusals_naming
from .model_sources import find_model
from .packing import TokenPair, cut_by_size
from .records import CandidateList, Usage
from .tokens import PairTemplate, PairTokenizer, check_instruction, check_query, check_text, count_tokens

logger = logging.getLogger(__name__)
INSTRUCTIONS_KEPT = 64


@dataclass(frozen=True, slots=True)
class PreparedList:
    """A candidate list as pairs for the model: the chunks of all documents, side by side."""

    pairs: list[TokenPair]
    chunks_per_document: list[int]
    usage: Usage


@dataclass(frozen=True, slots=True)
class TokenizedList:
    """A candidate list as token ids, with all that decides which pairs they make.

    These are made later: they repeat the query for each chunk, and may be very many more tokens.
    """

    query_ids: np.ndarray
    documents_ids: list[np.ndarray]
    template: PairTemplate
    lengths: Lengths
    max_tokens_per_doc: int | None

    @property
    def kept_query(self) -> np.ndarray:
        """What is read of the query."""
        return cut_query(self.query_ids, self.template, self.lengths.max_query_length, self.lengths)

    def window_beside(self, kept_query: np.ndarray) -> int:
        """Tokens that a pair has for its chunk."""
        return self.lengths.max_length - len(kept_query) - self.template.size

    def size(self) -> tuple[int, int]:
        """How many pairs it makes, and how many tokens these have together."""
        window, before_later = self.window_beside(self.kept_query), self.template.before_later_chunk
        pairs = tokens = 0
        most_tokens, most_chunks = self.max_tokens_per_doc, self.lengths.max_chunks_per_doc
        for ids in self.documents_ids:
            length = len(ids) if most_tokens is None else min(len(ids), most_tokens)
            chunks = count_chunks(length, window, self.lengths.overlap_tokens, before_later)
            scored = chunks if most_chunks is None else min(chunks, most_chunks)
            pairs += scored
            tokens += length if chunks == 1 else scored * window - len(before_later)
        beside_chunk = self.lengths.max_length - window
        return pairs, tokens + pairs * beside_chunk

    def prepared(self) -> PreparedList:
        """The pairs."""
        kept, template, lengths = self.kept_query, self.template, self.lengths
        window = self.window_beside(kept)
        pairs, chunks_per_document, cut_documents = [], [], 0
        for whole_ids in self.documents_ids:
            document_ids = whole_ids[: self.max_tokens_per_doc]
            chunks = chunks_of(document_ids, window, lengths.overlap_tokens, template.before_later_chunk)
            scored = chunks[: lengths.max_chunks_per_doc]
            cut_documents += len(scored) < len(chunks) or len(document_ids) < len(whole_ids)
            chunks_per_document.append(len(scored))
            pairs += [template.join(kept, chunk) for chunk in scored]
        usage = Usage(
            tokens=count_tokens(self.query_ids, self.documents_ids),
            pairs=len(self.documents_ids),
            chunks=len(pairs),
            cut_queries=int(len(kept) < len(self.query_ids)),
            cut_documents=cut_documents,
        )
        return PreparedList(pairs, chunks_per_document, usage)


class Preparation:
    """The tokenizer of a model with the lengths that a configuration gives it."""

    def __init__(self, tokenizer: PairTokenizer, config: RerankerConfig, model_limit: int) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.model_limit = model_limit
        self._said: set[str] = set()
        self.lengths = self._clamp(Lengths.of(config))
        self._check_room(tokenizer.template, self.lengths)

    @classmethod
    def load(cls, config: RerankerConfig) -> Preparation:
        """The preparation of the model that `config` names, whose weights are not loaded; raises ModelError."""
        files = find_model(config.model, config.revision, config.token)
        spec = spec_of(files)
        return cls(pair_tokenizer(files, spec, config.instruction), config, model_limit(spec, files))

    @property
    def takes_instructions(self) -> bool:
        """Whether the model is told what to look for."""
        return self.tokenizer.template.takes_instruction

    def is_told_otherwise(self, instruction: str | None) -> bool:
        """Whether a call's `instruction` is another one than the configured, for which scores may be calibrated."""
        if instruction is None or not self.takes_instructions:
            return False
        return self.tokenizer.with_instruction(instruction).template.instruction != self.tokenizer.template.instruction

    def prepare(
        self,
        lists: Sequence[CandidateList],
        lengths: Lengths,
        max_tokens_per_doc: int | None = None,
        instruction: str | None = None,
    ) -> list[PreparedList]:
        """The pairs of each list; as `tokenized`."""
        return [one.prepared() for one in self.tokenized(lists, lengths, max_tokens_per_doc, instruction)]

    def tokenized(
        self,
        lists: Sequence[CandidateList],
        lengths: Lengths,
        max_tokens_per_doc: int | None = None,
        instruction: str | None = None,
    ) -> list[TokenizedList]:
        """The ids of each list, whose texts must be valid (see `invalid_reason`).

        Of a document no more than `max_tokens_per_doc` are read. An `instruction`, which `lengths_of_call` has checked,
        takes the place of the configured one.
        """
        tokenizer = self.tokenizer.with_instruction(instruction)
        queries = tokenizer.query_ids([one.query for one in lists])
        documents = iter(tokenizer.passage_ids([document for one in lists for document in one.documents]))
        return [
            TokenizedList(
                query_ids, [next(documents) for _ in one.documents], tokenizer.template, lengths, max_tokens_per_doc
            )
            for query_ids, one in zip(queries, lists, strict=True)
        ]

    def prepare_pair(self, query_ids: np.ndarray, document_ids: np.ndarray, lengths: Lengths) -> TokenPair:
        """One pair without chunks: the document loses what exceeds max_length, the query only beyond half of it."""
        template = self.tokenizer.template
        kept = cut_query(query_ids, template, lengths.max_length // 2, lengths)
        return template.join(kept, document_ids[: lengths.max_length - len(kept) - template.size])

    def lengths_of_call(
        self,
        max_query_length: int | None = None,
        max_length: int | None = None,
        overlap_tokens: int | None = None,
        max_chunks_per_doc: int | None = None,
        instruction: str | None = None,
    ) -> Lengths:
        """The configured lengths with those that a call gives.

        Raises ConfigError for values that cannot work, also with the `instruction` of the call.
        """
        given = {
            "max_query_length": max_query_length,
            "max_length": max_length,
            "overlap_tokens": overlap_tokens,
            "max_chunks_per_doc": max_chunks_per_doc,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        if not changed and instruction is None:
            return self.lengths
        replace(self.config, **changed)  # type: ignore[arg-type]  # RerankerConfig checks the values
        lengths = self._clamp(replace(Lengths.of(self.config), **changed))
        self._check_room(self.tokenizer.with_instruction(instruction).template, lengths)
        return lengths

    def _check_room(self, template: PairTemplate, lengths: Lengths) -> None:
        """Raises ConfigError for a prompt that leaves no room for a pair."""
        least = template.size + MIN_MAX_LENGTH
        if not template.is_prompt or lengths.max_length >= least:
            return
        if self.model_limit < least:
            raise ConfigError(
                f"the model reads {self.model_limit} tokens at most (max_position_embeddings of config.json, or less "
                f"where the files beside it say so); its prompt alone has {template.size}, and with a pair {least} or "
                "more, so take another model, or a shorter instruction"
            )
        raise ConfigError(
            f"max_length is {lengths.max_length}; the model's prompt alone has {template.size} tokens, so give at "
            f"least {least}, or a shorter instruction"
        )

    def _clamp(self, lengths: Lengths) -> Lengths:
        clamped = lengths.clamped(self.model_limit)
        lost = lengths.choices_lost(clamped)
        if lost - self._said:
            self._said |= lost
            logger.warning("%s: lengths are clamped to the model: %s -> %s", self.config.model, lengths, clamped)
        return clamped


def chunks_of(
    document_ids: np.ndarray, window: int, overlap_tokens: int, before_later: tuple[int, ...]
) -> list[np.ndarray]:
    """The chunks of a document, each of `window` tokens at most, with what stands before all but the first."""
    if len(document_ids) <= window:
        return [document_ids]
    windows = chunk_windows(len(document_ids), window - len(before_later), overlap_tokens)
    chunks = [document_ids[start:end] for start, end in windows]
    return [chunks[0], *(np.concatenate([before_later, chunk]) for chunk in chunks[1:])] if before_later else chunks


def count_chunks(num_tokens: int, window: int, overlap_tokens: int, before_later: tuple[int, ...]) -> int:
    """How many chunks `chunks_of` gives for a document of so many tokens."""
    return 1 if num_tokens <= window else count_windows(num_tokens, window - len(before_later), overlap_tokens)


def cut_query(query_ids: np.ndarray, template: PairTemplate, most: int, lengths: Lengths) -> np.ndarray:
    """The query, with its special tokens in `most` tokens, and in half of what a prompt leaves of a pair."""
    return template.cut(query_ids, min(most - SPECIAL_TOKENS_PER_TEXT, (lengths.max_length - template.size) // 2))


def pair_tokenizer(files: ModelFiles, spec: ModelSpec, instruction: str | None = None) -> PairTokenizer:
    """The tokenizer of a model with its pair template, and the instruction in it.

    Raises ModelRefusedError where they do not belong together, ConfigError where the model takes no instruction.
    """
    tokenizer = files.tokenizer()
    with refusals_naming(files.directory):
        if instruction is not None:
            check_instruction(instruction)
        # Requests ask the same over and over.
        ask = lru_cache(INSTRUCTIONS_KEPT)(partial(spec.pair_template, tokenizer))
        return PairTokenizer(tokenizer, spec.pair_template(tokenizer, instruction), ask=ask)


def check_top_n(top_n: int | None) -> None:
    """Raises ConfigError for a `top_n` below 1."""
    if top_n is not None and top_n < 1:
        raise ConfigError(f"top_n is {top_n}; it is at least 1, or None for all documents")


def is_list(given: object) -> bool:
    """Whether it is a list or the like, or an array of NumPy; no Series of pandas, whose labels are not places."""
    if isinstance(given, np.ndarray):
        return given.ndim > 0
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)


def invalid_reason(candidates: CandidateList) -> str | None:
    """Why a list cannot be tokenized, or None."""
    try:
        check_query(candidates.query, "query")
        if isinstance(candidates.documents, str):
            raise InvalidInputError(f"{NoScore.NOT_A_LIST}: documents is one string; give a list of strings")
        if not is_list(candidates.documents):
            kind = type(candidates.documents).__name__
            raise InvalidInputError(f"{NoScore.NOT_A_LIST}: documents is of type {kind}; give a list of strings")
        for i, document in enumerate(candidates.documents):
            check_text(document, f"documents[{i}]")
    except InvalidInputError as error:
        return str(error)
    return None


def windows_by_characters(lists: Sequence[CandidateList], limit: int) -> Iterator[Sequence[CandidateList]]:
    """Neighbouring lists whose pairs hold at most `limit` characters together; a larger list stands alone.

    Each pair repeats the query, and an empty one still has special tokens.
    """
    sizes = (sum(map(len, one.documents)) + len(one.documents) * (len(one.query) + 16) for one in lists)
    return (lists[start:end] for start, end in cut_by_size(sizes, limit))
