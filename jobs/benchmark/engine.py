"""`python -m jobs.benchmark engine`: scoring against sentence-transformers' CrossEncoder, same weights and threads."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

from jobs.benchmark.lists import long_document, make_lists
from jobs.benchmark.report import CORES, Model, Output, Rounds, Threads, interleave, report
from pipelines.model_files import find_model
from pipelines.records import CandidateList

EQUAL = 1e-4
PEER_BATCH_SIZES = (32, 8, 4, 16)
"""32 is the default of CrossEncoder.predict; for lists of 100 the best is 8."""


def engine(
    model: Model = "embedded",
    threads: Threads = CORES,
    rounds: Rounds = 5,
    lists: Annotated[int, typer.Option(help="Candidate lists of 100 documents.")] = 4,
    output: Output = None,
) -> None:
    """Pairs per second against sentence-transformers' CrossEncoder on the same pairs; scores must be equal."""
    import torch
    from sentence_transformers import CrossEncoder

    from pipelines.reranker import Reranker

    torch.set_num_threads(threads)
    work = make_lists(lists, 100, long_document)
    pairs = [(one.query, document) for one in work for document in one.documents]
    reranker = Reranker.load(model, num_threads=threads)
    peer = CrossEncoder(str(find_model(model).directory), device="cpu", model_kwargs={"dtype": torch.float32})
    ours = np.array(reranker.compute_score(pairs))
    difference = float(np.abs(ours - peer.predict(pairs)).max())
    if difference > EQUAL:
        raise typer.BadParameter(f"scores differ by {difference:.1e}; a comparison of speed would mean nothing")

    sides: dict[str, Callable[[], Any]] = {
        "crossray": lambda: [reranker.rerank(one.query, one.documents) for one in work]
    }
    for size in PEER_BATCH_SIZES:
        sides[f"CrossEncoder, batch {size}"] = partial(rank_with_peer, peer, work, size)
    sides["crossray, all lists in one call"] = lambda: reranker.rerank_lists(work)
    for size in PEER_BATCH_SIZES[:2]:
        sides[f"CrossEncoder, batch {size}, all pairs in one call"] = partial(peer.predict, pairs, batch_size=size)
    seconds = interleave(sides, rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rows = {
        name: {"pairs_per_second": len(pairs) / median, "crossray_is_faster_by": median / medians[opponent_of(name)]}
        for name, median in medians.items()
    }
    report(
        f"{len(pairs)} pairs in lists of 100, {threads} threads, {rounds} rounds; scores differ by {difference:.1e}",
        rows,
        {"largest_score_difference": difference, "seconds": seconds},
        output,
    )


def rank_with_peer(peer: Any, work: list[CandidateList], batch_size: int) -> list[Any]:
    """One call per list, as a search sends them."""
    return [peer.predict([(one.query, document) for document in one.documents], batch_size=batch_size) for one in work]


def opponent_of(name: str) -> str:
    """Our side that does the same: list by list, or all at once."""
    return "crossray, all lists in one call" if name.endswith("in one call") else "crossray"
