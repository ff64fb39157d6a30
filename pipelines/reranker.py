"""Reranker: candidate lists in, rankings out. THE class that both worlds run, offline and online."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from .chunking import chunk_windows, max_over_chunks
from .config import RerankerConfig
from .devices import resolve_device, resolve_dtype
from .engine import CrossEncoder
from .errors import ConfigError, InvalidInputError
from .fingerprint import Fingerprint, fingerprint_of, model_limit
from .lengths import Lengths
from .model_files import ModelFiles, find_model
from .packing import TokenPair
from .records import CandidateList, RankedDocument, Ranking, Usage
from .tokens import SPECIAL_TOKENS_PER_TEXT, PairTokenizer, check_text, count_tokens

logger = logging.getLogger(__name__)

WINDOW_CHARACTERS = 4_000_000
"""Text that is tokenized and sorted by length together: wide enough to fill batches, small enough to bound memory."""


@dataclass(frozen=True, slots=True)
class PreparedList:
    """A candidate list as pairs for the model: the chunks of all documents, side by side."""

    pairs: list[TokenPair]
    chunks_per_document: list[int]
    usage: Usage


class Reranker:
    """A cross-encoder with its tokenizer and lengths.

    A pair has the same score (within 1e-4 in float32) alone, in any batch, offline and online.
    """

    def __init__(
        self, engine: CrossEncoder, tokenizer: PairTokenizer, config: RerankerConfig, files: ModelFiles
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.files = files
        self.model_limit = model_limit(engine.spec, files)
        self._said: set[str] = set()
        self.lengths = self._clamp(Lengths.of(config))

    @classmethod
    def load(cls, model: str = "embedded", **settings: object) -> Reranker:
        """`embedded`, a directory or a hub name; `settings` are the fields of RerankerConfig.

        Raises ModelNotFoundError, ModelRefusedError or ConfigError.
        """
        return cls.from_config(RerankerConfig(model=model, **settings))  # type: ignore[arg-type]

    @classmethod
    def from_config(cls, config: RerankerConfig) -> Reranker:
        """The reranker that `config` describes, loaded and ready."""
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        files = find_model(config.model, config.revision, config.token)
        device = resolve_device(config.device)
        engine = CrossEncoder.load(files, device, resolve_dtype(config.dtype, device), config.max_batch_tokens)
        if engine.spec.layout == "flash-xlm-roberta":
            logger.warning("jina-reranker-v2's published weights are CC-BY-NC-4.0: commercial use needs Jina's licence")
        tokenizer = files.tokenizer()
        return cls(engine, PairTokenizer(tokenizer, engine.spec.pair_template(tokenizer)), config, files)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What decides the scores of this reranker; reads its files once."""
        return fingerprint_of(self.files, self.engine.spec, self.lengths, self.engine.dtype)

    def compute_score(self, sentence_pairs: Sequence[Sequence[str]], max_length: int | None = None) -> list[float]:
        """The relevance score of each (query, document) pair, in their order; always a list.

        No chunks: a document loses what exceeds `max_length`, a query only what exceeds half of it.
        Raises InvalidInputError, naming the pair, for a text that cannot be tokenized.
        """
        lengths = self._lengths_of_call(max_length=max_length)
        limit = lengths.max_length // 2 - SPECIAL_TOKENS_PER_TEXT
        for i, pair in enumerate(sentence_pairs):
            if isinstance(pair, str) or len(pair) != 2:
                raise InvalidInputError(f"not_a_pair: sentence_pairs[{i}]; give [(query, document), ...]")
            check_text(pair[0], f"query of sentence_pairs[{i}]")
            check_text(pair[1], f"document of sentence_pairs[{i}]")
        token_pairs = []
        queries = self.tokenizer.token_ids([query for query, _ in sentence_pairs])
        documents = self.tokenizer.token_ids([document for _, document in sentence_pairs])
        for query_ids, document_ids in zip(queries, documents, strict=True):
            kept = query_ids[:limit]
            window = lengths.max_length - len(kept) - self.tokenizer.template.size
            token_pairs.append(self.tokenizer.template.join(kept, document_ids[:window]))
        logits = self.engine.logits(token_pairs)
        broken = np.flatnonzero(~np.isfinite(logits))
        if len(broken):
            first = broken[0]
            raise InvalidInputError(f"non_finite_score: the model gave {logits[first]} for sentence_pairs[{first}]")
        return self._scores(logits).tolist()  # type: ignore[no-any-return]

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        max_query_length: int | None = None,
        max_length: int | None = None,
        overlap_tokens: int | None = None,
        top_n: int | None = None,
    ) -> list[RankedDocument]:
        """The documents, best first, `top_n` of them; long ones are scored chunk by chunk and count by their best.

        Lengths left out are those of the configuration (512, 1024 and 80 by default, clamped to the model).
        Raises InvalidInputError for texts that cannot be scored.
        """
        [ranking] = self.rerank_lists(
            [CandidateList(query, documents)],
            top_n=top_n,
            max_query_length=max_query_length,
            max_length=max_length,
            overlap_tokens=overlap_tokens,
        )
        if ranking.error is not None:
            raise InvalidInputError(ranking.error)
        return ranking.documents

    def rerank_lists(
        self,
        candidate_lists: Sequence[CandidateList],
        *,
        top_n: int | None = None,
        max_query_length: int | None = None,
        max_length: int | None = None,
        overlap_tokens: int | None = None,
        max_chunks_per_doc: int | None = None,
    ) -> list[Ranking]:
        """One ranking per list, in their order, batched across lists; a list that cannot be ranked has an `error`."""
        if top_n is not None and top_n < 1:
            raise ConfigError(f"top_n is {top_n}; it is at least 1, or None for all documents")
        lengths = self._lengths_of_call(
            max_query_length=max_query_length,
            max_length=max_length,
            overlap_tokens=overlap_tokens,
            max_chunks_per_doc=max_chunks_per_doc,
        )
        errors = [invalid_reason(one) for one in candidate_lists]
        valid = [one for one, error in zip(candidate_lists, errors, strict=True) if error is None]
        windows = windows_by_characters(valid, WINDOW_CHARACTERS)
        ranked = (ranking for window in windows for ranking in self._rank_window(window, lengths, top_n))
        return [next(ranked) if error is None else Ranking([], Usage(), error) for error in errors]

    def _rank_window(self, lists: Sequence[CandidateList], lengths: Lengths, top_n: int | None) -> list[Ranking]:
        prepared = self._prepare(lists, lengths)
        logits = self.engine.logits([pair for one in prepared for pair in one.pairs])
        ends = np.cumsum([len(one.pairs) for one in prepared])
        parts = np.split(logits, ends[:-1])
        return [self._rank(*one, top_n) for one in zip(lists, prepared, parts, strict=True)]

    def _prepare(self, lists: Sequence[CandidateList], lengths: Lengths) -> list[PreparedList]:
        queries = self.tokenizer.token_ids([one.query for one in lists])
        documents = iter(self.tokenizer.token_ids([document for one in lists for document in one.documents]))
        return [
            self._prepare_list(query_ids, [next(documents) for _ in one.documents], lengths)
            for query_ids, one in zip(queries, lists, strict=True)
        ]

    def _prepare_list(self, query_ids: np.ndarray, documents_ids: list[np.ndarray], lengths: Lengths) -> PreparedList:
        template = self.tokenizer.template
        kept = query_ids[: lengths.max_query_length - SPECIAL_TOKENS_PER_TEXT]
        window = lengths.max_length - len(kept) - template.size
        pairs, chunks_per_document, cut_documents = [], [], 0
        for document_ids in documents_ids:
            windows = chunk_windows(len(document_ids), window, lengths.overlap_tokens)
            scored = windows[: lengths.max_chunks_per_doc]
            cut_documents += len(scored) < len(windows)
            chunks_per_document.append(len(scored))
            pairs += [template.join(kept, document_ids[start:end]) for start, end in scored]
        usage = Usage(
            tokens=count_tokens(query_ids, documents_ids),
            pairs=len(documents_ids),
            chunks=len(pairs),
            cut_queries=int(len(kept) < len(query_ids)),
            cut_documents=cut_documents,
        )
        return PreparedList(pairs, chunks_per_document, usage)

    def _rank(
        self, candidates: CandidateList, prepared: PreparedList, chunk_logits: np.ndarray, top_n: int | None
    ) -> Ranking:
        logits = max_over_chunks(chunk_logits, prepared.chunks_per_document)
        broken = np.flatnonzero(~np.isfinite(logits))
        if len(broken):
            error = f"non_finite_score: the model gave {logits[broken[0]]} for documents[{broken[0]}]"
            return Ranking([], prepared.usage, error)
        scores = self._scores(logits)
        best_first = np.argsort(-logits, kind="stable")[:top_n]  # by logit: the sigmoid is 1.0 from 17 on
        documents = [RankedDocument(int(i), float(scores[i]), candidates.documents[i]) for i in best_first]
        return Ranking(documents, prepared.usage)

    def _scores(self, logits: np.ndarray) -> np.ndarray:
        return logits if self.config.raw_scores else sigmoid(logits)

    def _lengths_of_call(self, **given: int | None) -> Lengths:
        changed = {name: value for name, value in given.items() if value is not None}
        if not changed:
            return self.lengths
        replace(self.config, **changed)  # type: ignore[arg-type]  # RerankerConfig checks the values
        return self._clamp(replace(Lengths.of(self.config), **changed))

    def _clamp(self, lengths: Lengths) -> Lengths:
        clamped = lengths.clamped(self.model_limit)
        lost = lengths.choices_lost(clamped)
        if lost - self._said:
            self._said |= lost
            logger.warning("%s: lengths are clamped to the model: %s -> %s", self.config.model, lengths, clamped)
        return clamped


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), float32; computed in float64, so that small scores keep their digits."""
    exact = np.clip(logits.astype(np.float64), -700, 700)  # exp overflows at 709
    return (1 / (1 + np.exp(-exact))).astype(np.float32)


def invalid_reason(candidates: CandidateList) -> str | None:
    """Why a list cannot be tokenized, or None."""
    try:
        check_text(candidates.query, "query")
        if isinstance(candidates.documents, str):
            raise InvalidInputError("not_a_list: documents is one string; give a list of strings")
        for i, document in enumerate(candidates.documents):
            check_text(document, f"documents[{i}]")
    except InvalidInputError as error:
        return str(error)
    return None


def windows_by_characters(lists: Sequence[CandidateList], limit: int) -> Iterator[Sequence[CandidateList]]:
    """Neighbouring lists whose pairs hold at most `limit` characters together; a larger list stands alone.

    Each pair repeats the query, and an empty one still has special tokens.
    """
    start, characters = 0, 0
    for i, one in enumerate(lists):
        size = sum(len(document) for document in one.documents) + len(one.documents) * (len(one.query) + 16)
        if i > start and characters + size > limit:
            yield lists[start:i]
            start, characters = i, 0
        characters += size
    if start < len(lists):
        yield lists[start:]
