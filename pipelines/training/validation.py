"""Measures how well an encoder orders the lists that were held back, by their labels or by a teacher's scores.

Needs torch and numpy alone.

Shape legend: L lists, C passages of the longest, P labelled pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..encoder import PackedEncoder
from ..packing import split_by_token_budget
from .batches import BatchMaker, Drawn, draw
from .token_lists import TokenLists

RANKS = 10
BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class ScoredLists:
    """The lists of a validation with the logits that an encoder gave."""

    numbers_L: np.ndarray
    """int64: of the lists."""
    drawn: Drawn
    logits_LC: np.ndarray
    """float32, minus infinity in padding."""


@torch.inference_mode()
def score_lists(
    encoder: PackedEncoder,
    maker: BatchMaker,
    lists: TokenLists,
    numbers: np.ndarray,
    max_length: int,
    max_query_length: int,
    part: int = 0,
    of: int = 1,
) -> ScoredLists:
    """Scores all passages of some lists, in the precision that the encoder has.

    With `of` above 1, every `of`-th pair is scored, beginning with pair `part`, and the other logits are 0.
    """
    widest = int(np.diff(lists.list_starts)[numbers].max()) if len(numbers) else 0
    drawn = draw(lists, numbers, widest, seed=0, step=0)
    logits_LC = np.where(drawn.is_real_LC, np.float32(0), np.float32(-np.inf))
    rows_P, places_P = (places[part::of] for places in np.nonzero(drawn.is_real_LC))
    queries_P, passages_P = drawn.queries_L[rows_P], drawn.passages_LC[rows_P, places_P]
    query_P, passage_P = maker.pair_lengths(queries_P, passages_P, max_length, max_query_length)
    totals_P = query_P + passage_P + maker.layout.special_tokens
    for run in split_by_token_budget(totals_P.tolist(), BATCH_TOKENS):
        batch = maker.pack(queries_P[run], passages_P[run], max_length, max_query_length)
        logits_LC[rows_P[run], places_P[run]] = encoder(batch).cpu().numpy()
    return ScoredLists(numbers, drawn, logits_LC)


@dataclass(frozen=True, slots=True)
class Measure:
    """What a validation measures: larger values are better."""

    name: str
    lists: Callable[[TokenLists], np.ndarray]
    """Numbers of the lists that it can measure, int64."""
    values: Callable[[ScoredLists], np.ndarray]
    """The value of each list, float64 [L]."""


BY_LABELS = Measure(
    f"nDCG@{RANKS}", TokenLists.measurable, lambda scored: ndcg(scored.drawn.labels_LC, scored.logits_LC)
)
BY_TEACHER = Measure(
    "tau with the teacher", TokenLists.taught, lambda scored: kendall_tau(scored.drawn.teacher_LC, scored.logits_LC)
)


def measure_of(lists: TokenLists) -> Measure:
    """By labels where held-back lists have them, since a teacher errs too; else by the teacher."""
    return BY_LABELS if len(lists.measurable()) else BY_TEACHER


def validation_lists(measurable: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the lists that a measure can measure: their numbers, int64, sorted."""
    chosen = np.random.default_rng((seed, 2)).permutation(measurable)[:most]
    return np.sort(chosen)


def ndcg(labels_LC: np.ndarray, logits_LC: np.ndarray, ranks: int = RANKS) -> np.ndarray:
    """nDCG of each list with linear gains, as trec_eval has it, over the passages whose label is known; float64 [L].

    Passages with equal logits share the mean of their gains, so that no order among them is rewarded.
    """
    discounts = 1 / np.log2(np.arange(2, ranks + 2))
    values = np.zeros(len(labels_LC))
    for row, (labels, logits) in enumerate(zip(labels_LC, logits_LC, strict=True)):
        known = ~np.isnan(labels) & np.isfinite(logits)
        gains, scores = np.maximum(labels[known], 0).astype(np.float64), logits[known]
        best = np.sort(gains)[::-1][:ranks]
        order = np.argsort(-scores, kind="stable")
        _, group, sizes = np.unique(-scores[order], return_inverse=True, return_counts=True)
        means = np.bincount(group, gains[order]) / sizes
        ideal = best @ discounts[: len(best)]
        ranked = means[group][:ranks]
        values[row] = ranked @ discounts[: len(ranked)] / ideal if ideal else np.nan
    return values


def kendall_tau(teacher_LC: np.ndarray, logits_LC: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each list between the teacher's scores and the logits: -1..1, 0 for no order; float64 [L].

    Over the passages that the teacher scored. It is the cosine between the signs of all differences of the one and of
    the other (Kendall 1945, "The treatment of ties in ranking problems").
    """
    values = np.zeros(len(teacher_LC))
    for row, (teacher, logits) in enumerate(zip(teacher_LC, logits_LC, strict=True)):
        known = np.isfinite(teacher) & np.isfinite(logits)
        a, b = (np.sign(one[known, None] - one[None, known]).astype(np.float64) for one in (teacher, logits))
        norm = np.sqrt((a * a).sum() * (b * b).sum())
        values[row] = (a * b).sum() / norm if norm else 0.0
    return values


def labelled_pairs(scored: ScoredLists) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels (0 or 1) and list numbers of all pairs whose label is known: float32, float32, int64 [P]."""
    known = ~np.isnan(scored.drawn.labels_LC)
    numbers = np.broadcast_to(scored.numbers_L[:, None], known.shape)[known]
    return scored.logits_LC[known], (scored.drawn.labels_LC[known] > 0).astype(np.float32), numbers


def means_by(values: np.ndarray, groups: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The mean of each group that has values, by its name."""
    return {
        name: float(values[groups == number].mean()) for number, name in enumerate(names) if (groups == number).any()
    }
