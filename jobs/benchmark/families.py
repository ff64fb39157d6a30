"""`python -m jobs.benchmark families`: the families beside BERT against CrossEncoder, same weights and threads.

The models have the sizes of published rerankers and random weights, which cost the same time.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from jobs.benchmark.engine import rank_with_peer, text_pairs
from jobs.benchmark.lists import long_document, make_lists
from jobs.benchmark.random_models import Size, write_random_deberta, write_random_modernbert
from jobs.benchmark.report import CORES, Output, Threads, interleave, report
from pipelines.records import CandidateList
from pipelines.reranker import Reranker

EQUAL = 1e-4
"""Largest difference of two logits of a pair, against the standard deviation of all."""
MODELS: dict[str, Callable[[Path], str]] = {
    "ModernBERT, 22 layers of 768": lambda folder: write_random_modernbert(folder, Size(22, 768, 12, 1152)),
    "ettin-17m, 7 layers of 256": lambda folder: write_random_modernbert(folder, Size(7, 256, 4, 384), chained=True),
    "DeBERTa-v2, 12 layers of 384": lambda folder: write_random_deberta(folder, Size(12, 384, 6)),
    "DeBERTa-v2, 12 layers of 768": lambda folder: write_random_deberta(folder, Size(12, 768, 12)),
}
PEER_BATCH_SIZES = (32, 4)
"""The default of CrossEncoder.predict, and one that leaves it little padding."""


def families(
    threads: Threads = CORES,
    rounds: Annotated[int, typer.Option(help="Sides take turns; medians are reported.")] = 3,
    lists: Annotated[int, typer.Option(help="Candidate lists of `documents` documents.")] = 1,
    documents: Annotated[int, typer.Option(help="Documents of a list.")] = 20,
    output: Output = None,
) -> None:
    """Pairs per second of each family, list by list, against CrossEncoder; scores must be equal."""
    torch.set_num_threads(threads)
    work = make_lists(lists, documents, long_document)
    rows: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {"torch": torch.__version__, "threads": threads, "largest_difference": {}, "seconds": {}}
    for name, write in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            sides, difference = sides_of(write(Path(folder)), work, threads)
            seconds = interleave(sides, rounds)
        medians = {side: statistics.median(times) for side, times in seconds.items()}
        details["largest_difference"][name] = difference
        details["seconds"][name] = seconds
        for side, median in medians.items():
            rows[f"{name}: {side}"] = {
                "pairs_per_second": lists * documents / median,
                "crossray_is_faster_by": median / medians["crossray"],
            }
    report(f"{lists} lists of {documents}, {threads} threads, {rounds} rounds, float32", rows, details, output)


def sides_of(model: str, work: list[CandidateList], threads: int) -> tuple[dict[str, Callable[[], Any]], float]:
    """What ranks the lists, by name, and the largest difference of their logits; raises BadParameter above EQUAL."""
    from sentence_transformers import CrossEncoder

    ours = Reranker.load(model, device="cpu", num_threads=threads, raw_scores=True)
    settings = {"dtype": torch.float32}
    peer = CrossEncoder(model, device="cpu", model_kwargs=settings, activation_fn=nn.Identity()).float()
    pairs = text_pairs(work)
    logits, others = np.array(ours.compute_score(pairs)), np.asarray(peer.predict(pairs))
    difference = float(np.abs(logits - others).max() / logits.std())
    if difference > EQUAL:
        raise typer.BadParameter(f"logits differ by {difference:.1e}; a comparison of speed would mean nothing")
    sides: dict[str, Callable[[], Any]] = {"crossray": lambda: [ours.rerank(one.query, one.documents) for one in work]}
    for size in PEER_BATCH_SIZES:
        sides[f"CrossEncoder, batch {size}"] = lambda size=size: rank_with_peer(peer, work, size)  # type: ignore[misc]
    return sides, difference
