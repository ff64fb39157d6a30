"""`python -m jobs.benchmark prefixes`: a language model whose pairs share prompt and query, against CrossEncoder.

The model has the size of Qwen3-Reranker-0.6B, or of bge-reranker-v2-gemma, and random weights, which cost the same
time. CrossEncoder gets it as the sequence classifier that is published of it, with the same prompt around each pair.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import typer
from torch import nn

from jobs.benchmark.lists import long_document, make_lists, short_document
from jobs.benchmark.random_models import words_around, write_random_gemma, write_random_qwen
from jobs.benchmark.report import CORES, Output, Threads, interleave, report
from pipelines.families.gemma import BGE
from pipelines.families.prompt import Prompt
from pipelines.families.qwen import QWEN3
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from pipelines.shared_prefixes import Group

EQUAL = 1e-4
"""Largest difference of two logits of a pair, against the standard deviation of all."""
LENGTHS = {"documents of 12 to 36 words": short_document, "documents of 75 words in the middle": long_document}
MODELS: dict[str, tuple[Callable[..., str], Prompt]] = {
    "qwen": (write_random_qwen, QWEN3),
    "gemma": (write_random_gemma, BGE),
}
PEER_BATCH_SIZES = (32, 4)
"""The default of CrossEncoder.predict, and one that leaves it little padding."""
OURS, UNSHARED = "crossray", "crossray, nothing shared"


def prefixes(
    threads: Threads = CORES,
    rounds: Annotated[int, typer.Option(help="Sides take turns; medians are reported.")] = 3,
    documents: Annotated[int, typer.Option(help="Documents of the list.")] = 20,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "qwen",
    layers: Annotated[int | None, typer.Option(help="Of the model; by default 28 of qwen, 18 of gemma.")] = None,
    output: Output = None,
) -> None:
    """Pairs per second of a language model, with and without what pairs share, and of CrossEncoder; equal scores."""
    torch.set_num_threads(threads)
    rows: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {"torch": torch.__version__, "threads": threads, "largest_difference": {}, "seconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        write, prompt = MODELS[model]
        directory = write(Path(folder)) if layers is None else write(Path(folder), layers)
        for name, make in LENGTHS.items():
            sides, difference = sides_of(directory, make_lists(1, documents, make)[0], threads, prompt)
            seconds = interleave(sides, rounds)
            medians = {side: statistics.median(times) for side, times in seconds.items()}
            details["largest_difference"][name] = difference
            details["seconds"][name] = seconds
            for side, median in medians.items():
                rows[f"{name}: {side}"] = {
                    "pairs_per_second": documents / median,
                    "crossray_is_faster_by": median / medians[OURS],
                }
    report(
        f"A list of {documents}, {model}, {layers or 'all'} layers, {threads} threads, {rounds} rounds, float32",
        rows,
        details,
        output,
    )


def sides_of(
    model: str, work: CandidateList, threads: int, prompt: Prompt
) -> tuple[dict[str, Callable[[], Any]], float]:
    """What ranks the list, by name, and the largest difference of their logits; raises BadParameter above EQUAL."""
    from sentence_transformers import CrossEncoder

    ours = Reranker.load(model, device="cpu", num_threads=threads, raw_scores=True)
    peer = CrossEncoder(model, device="cpu", model_kwargs={"dtype": torch.float32}, activation_fn=nn.Identity()).float()
    pairs = [words_around(work.query, prompt, document) for document in work.documents]

    def rank() -> np.ndarray:
        [ranking] = ours.rerank_lists([work])
        found = np.empty(len(work.documents))
        for one in ranking.documents:
            found[one.index] = one.relevance_score
        return found

    def rank_unshared() -> np.ndarray:
        with mock.patch("pipelines.shared_prefixes.groups_of", alone):
            return rank()

    logits = rank()
    others = [rank_unshared(), np.asarray(peer.predict(pairs))]
    difference = float(max(np.abs(logits - other).max() for other in others) / logits.std())
    if difference > EQUAL:
        raise typer.BadParameter(f"logits differ by {difference:.1e}; a comparison of speed would mean nothing")
    sides: dict[str, Callable[[], Any]] = {OURS: rank, UNSHARED: rank_unshared}
    for size in PEER_BATCH_SIZES:
        sides[f"CrossEncoder, batch {size}"] = lambda size=size: peer.predict(pairs, batch_size=size)  # type: ignore[misc]
    return sides, difference


def alone(ids: list[np.ndarray]) -> list[Group]:
    """What `groups_of` would say if no two pairs began alike."""
    return [Group(place, place + 1, 0) for place in range(len(ids))]
