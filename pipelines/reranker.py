"""Reranker: candidate lists in, rankings out. The one class that scores, in jobs and in the server alike."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from .calibration import Calibration
from .config import EMBEDDED, RerankerConfig
from .devices import resolve_device, resolve_dtype
from .engine import CrossEncoder
from .errors import InvalidInputError, NoScore
from .families import model_limit
from .fingerprint import Fingerprint, calibration_of, fingerprint_of
from .lengths import Lengths
from .memory import ReusingEngine
from .model_files import ModelFiles
from .model_sources import find_model
from .preparation import Preparation, check_top_n, invalid_reason, is_list, pair_tokenizer, windows_by_characters
from .ranking import check_threshold, rank, relevance_scores
from .records import CandidateList, RankedDocument, Ranking, ScoringTime, Usage
from .tokens import PairTokenizer, check_query, check_text

logger = logging.getLogger(__name__)

WINDOW_CHARACTERS = 4_000_000
"""Text that is tokenized and sorted by length together: wide enough to fill batches, small enough to bound memory."""


class Reranker:
    """A cross-encoder with its tokenizer and lengths.

    A pair has the same score (within 1e-4 in float32) alone, in any batch, offline and online.
    """

    def __init__(
        self,
        engine: CrossEncoder,
        tokenizer: PairTokenizer,
        config: RerankerConfig,
        files: ModelFiles,
        window_characters: int = WINDOW_CHARACTERS,
        clock: Callable[[], float] = time.perf_counter,
        calibration: Calibration | None = None,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.files = files
        self.window_characters = window_characters
        self.clock = clock
        self.calibration = calibration
        """None where 0.5 of a score means nothing in particular."""
        self.model_limit = model_limit(engine.spec, files)
        self.preparation = Preparation(tokenizer, config, self.model_limit)

    @classmethod
    def load(
        cls,
        model: str = EMBEDDED,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        num_threads: int | None = None,
        max_batch_tokens: int | None = None,
        max_length: int = 1024,
        max_query_length: int = 512,
        overlap_tokens: int = 80,
        max_chunks_per_doc: int | None = None,
        raw_scores: bool = False,
        calibration: str | os.PathLike[str] | Calibration | None = None,
        instruction: str | None = None,
    ) -> Reranker:
        """Loads `embedded`, a directory, a uri or a hub name. RerankerConfig says what each setting means.

        `calibration` may be the path of a file that `crossray calibrate` wrote for this model. Raises
        ModelNotFoundError, ModelRefusedError or ConfigError.
        """
        if calibration is not None and not isinstance(calibration, Calibration):
            calibration = Calibration.read(calibration)
        return cls.from_config(
            RerankerConfig(
                model=model,
                revision=revision,
                token=token,
                device=device,
                dtype=dtype,
                num_threads=num_threads,
                max_batch_tokens=max_batch_tokens,
                max_length=max_length,
                max_query_length=max_query_length,
                overlap_tokens=overlap_tokens,
                max_chunks_per_doc=max_chunks_per_doc,
                raw_scores=raw_scores,
                calibration=calibration,
                instruction=instruction,
            )
        )

    @classmethod
    def from_config(cls, config: RerankerConfig) -> Reranker:
        """The reranker that `config` describes, loaded and ready."""
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        files = find_model(config.model, config.revision, config.token)
        calibration = calibration_of(config, files)
        device = resolve_device(config.device)
        engine = CrossEncoder.load(files, device, resolve_dtype(config.dtype, device), config.max_batch_tokens)
        if engine.spec.licence_note:
            logger.warning(engine.spec.licence_note)
        tokenizer = pair_tokenizer(files, engine.spec, config.instruction)
        return cls(engine, tokenizer, config, files, calibration=calibration)

    def with_engine(self, engine: ReusingEngine) -> Reranker:
        """A copy of this reranker whose pairs another engine scores."""
        other = copy.copy(self)
        other.engine = engine  # type: ignore[assignment]  # it needs no more
        return other

    @property
    def lengths(self) -> Lengths:
        """The lengths by which texts are cut where a call gives none."""
        return self.preparation.lengths

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What decides the scores of this reranker; reads its files once."""
        return fingerprint_of(
            self.files, self.engine.spec, self.lengths, self.engine.dtype, self.config.instruction, self.calibration
        )

    def compute_score(self, sentence_pairs: Sequence[Sequence[str]], *, max_length: int | None = None) -> list[float]:
        """The score of each (query, document) pair, in their order; a long document is cut, where `rerank` chunks it.

        So a pair of more than `max_length` tokens has another score here than there: the document loses what exceeds
        `max_length`, the query only what exceeds half of it. Raises InvalidInputError, naming the pair, for a blank
        query and for a text that cannot be tokenized.
        """
        lengths = self.preparation.lengths_of_call(max_length=max_length)
        if not is_list(sentence_pairs):
            kind = type(sentence_pairs).__name__
            raise InvalidInputError(
                f"{NoScore.NOT_A_LIST}: sentence_pairs is of type {kind}; give [(query, document), ...]"
            )
        for i, pair in enumerate(sentence_pairs):
            if not is_list(pair) or len(pair) != 2:
                raise InvalidInputError(f"{NoScore.NOT_A_PAIR}: sentence_pairs[{i}]; give [(query, document), ...]")
            check_query(pair[0], f"query of sentence_pairs[{i}]")
            check_text(pair[1], f"document of sentence_pairs[{i}]")
        queries = self.tokenizer.query_ids([query for query, _ in sentence_pairs])
        documents = self.tokenizer.passage_ids([document for _, document in sentence_pairs])
        token_pairs = [
            self.preparation.prepare_pair(query_ids, document_ids, lengths)
            for query_ids, document_ids in zip(queries, documents, strict=True)
        ]
        logits = self.engine.logits(token_pairs)
        broken = np.flatnonzero(~np.isfinite(logits))
        if len(broken):
            first = broken[0]
            message = f"{NoScore.NON_FINITE_SCORE}: the model gave {logits[first]} for sentence_pairs[{first}]"
            raise InvalidInputError(message)
        return (logits if self.config.raw_scores else relevance_scores(logits, self.calibration)).tolist()  # type: ignore[no-any-return]

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        allow_uncalibrated: bool = False,
        max_query_length: int | None = None,
        max_length: int | None = None,
        overlap_tokens: int | None = None,
        instruction: str | None = None,
    ) -> list[RankedDocument]:
        """The `top_n` best documents, best first; a long document is scored in chunks, where `compute_score` cuts it.

        The best of its chunks counts. Lengths and an instruction left out are those of the configuration (512, 1024 and
        80 by default, clamped to the model). Documents whose score, in 0..1, is below `score_threshold` are left out
        before the best are taken; raises ConfigError for a threshold of a model without calibration, unless that is
        allowed. Raises InvalidInputError for texts that cannot be scored.
        """
        [ranking] = self.rerank_lists(
            [CandidateList(query, documents)],
            top_n=top_n,
            score_threshold=score_threshold,
            allow_uncalibrated=allow_uncalibrated,
            max_query_length=max_query_length,
            max_length=max_length,
            overlap_tokens=overlap_tokens,
            instruction=instruction,
        )
        if ranking.error is not None:
            raise InvalidInputError(ranking.error)
        return ranking.documents

    def rerank_lists(
        self,
        candidate_lists: Sequence[CandidateList | tuple[str, Sequence[str]]],
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        allow_uncalibrated: bool = False,
        max_query_length: int | None = None,
        max_length: int | None = None,
        overlap_tokens: int | None = None,
        max_chunks_per_doc: int | None = None,
        instruction: str | None = None,
        spent: ScoringTime | None = None,
    ) -> list[Ranking]:
        """One ranking per list, in their order, batched across lists; a list that cannot be ranked has an `error`.

        A list may also be a tuple (query, documents). The seconds that this call takes are added to `spent`.
        `score_threshold` is as in `rerank`. Raises InvalidInputError for what is neither.
        """
        check_top_n(top_n)
        lengths = self.preparation.lengths_of_call(
            max_query_length, max_length, overlap_tokens, max_chunks_per_doc, instruction
        )
        check_threshold(score_threshold, self._calibration_with(instruction), allow_uncalibrated)
        lists = [as_candidates(one, i) for i, one in enumerate(candidate_lists)]
        errors = [invalid_reason(one) for one in lists]
        valid = [one for one, error in zip(lists, errors, strict=True) if error is None]
        windows = windows_by_characters(valid, self.window_characters)
        spent = spent or ScoringTime()
        ranked = (
            ranking
            for window in windows
            for ranking in self._rank_window(window, lengths, instruction, top_n, score_threshold, spent)
        )
        return [next(ranked) if error is None else Ranking([], Usage(), error) for error in errors]

    def _calibration_with(self, instruction: str | None) -> Calibration | None:
        """The calibration, unless a call asks otherwise than it was fitted for."""
        return None if self.preparation.is_told_otherwise(instruction) else self.calibration

    def _rank_window(
        self,
        lists: Sequence[CandidateList],
        lengths: Lengths,
        instruction: str | None,
        top_n: int | None,
        score_threshold: float | None,
        spent: ScoringTime,
    ) -> list[Ranking]:
        began = self.clock()
        prepared = self.preparation.prepare(lists, lengths, instruction=instruction)
        prepared_at = self.clock()
        logits = self.engine.logits([pair for one in prepared for pair in one.pairs])
        spent.tokenize += prepared_at - began
        spent.forward += self.clock() - prepared_at
        calibration = self._calibration_with(instruction)
        parts = np.split(logits, np.cumsum([len(one.pairs) for one in prepared])[:-1])
        return [
            rank(
                candidates,
                part,
                one.chunks_per_document,
                one.usage,
                top_n,
                self.config.raw_scores,
                score_threshold,
                calibration,
            )
            for candidates, one, part in zip(lists, prepared, parts, strict=True)
        ]


def as_candidates(given: object, place: int) -> CandidateList:
    """A list as `rerank_lists` takes it, by the place where it stands; raises InvalidInputError."""
    if isinstance(given, CandidateList):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InvalidInputError(
            f"{NoScore.NOT_A_LIST}: candidate_lists[{place}] is {type(given).__name__}; give CandidateList(query, "
            "documents), or a tuple of these two"
        )
    return CandidateList(*given)
