"""`python -m jobs.benchmark engine`: scoring against sentence-transformers' CrossEncoder, same weights and threads."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from jobs.benchmark.lists import long_document, make_lists
from jobs.benchmark.report import CORES, Model, Output, Rounds, Threads, interleave, report
from pipelines.records import CandidateList

if TYPE_CHECKING:  # torch: seconds, and not for --help
    from pipelines.reranker import Reranker

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
    from pipelines.training.plain import convert

    torch.set_num_threads(threads)
    work = make_lists(lists, 100, long_document)
    pairs = text_pairs(work)
    reranker = Reranker.load(model, num_threads=threads)
    with tempfile.TemporaryDirectory() as folder:  # of weights in 8 bits it reads none
        plain = Path(folder) / "plain"
        convert(model, plain, torch.float32)
        peer = CrossEncoder(str(plain), device="cpu", model_kwargs={"dtype": torch.float32})
    difference = float(np.abs(np.array(reranker.compute_score(pairs)) - peer.predict(pairs)).max())
    if difference > EQUAL:
        raise typer.BadParameter(f"scores differ by {difference:.1e}; a comparison of speed would mean nothing")
    seconds = interleave(sides_of(reranker, peer, work), rounds)
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


def sides_of(reranker: Reranker, peer: Any, work: list[CandidateList]) -> dict[str, Callable[[], Any]]:
    """What is compared: list by list as a search sends them, and all lists in one call, with some batch sizes each."""
    sides: dict[str, Callable[[], Any]] = {
        "crossray": lambda: [reranker.rerank(one.query, one.documents) for one in work]
    }
    for size in PEER_BATCH_SIZES:
        sides[f"CrossEncoder, batch {size}"] = partial(rank_with_peer, peer, work, size)
    sides["crossray, all lists in one call"] = lambda: reranker.rerank_lists(work)
    for size in PEER_BATCH_SIZES[:2]:
        one_call = partial(peer.predict, text_pairs(work), batch_size=size)
        sides[f"CrossEncoder, batch {size}, all pairs in one call"] = one_call
    return sides


def text_pairs(work: list[CandidateList]) -> list[tuple[str, str]]:
    """The (query, document) pairs of all lists, side by side."""
    return [(one.query, document) for one in work for document in one.documents]


def rank_with_peer(peer: Any, work: list[CandidateList], batch_size: int) -> list[Any]:
    """The peer's scores, with one call per list, as a search sends them."""
    return [peer.predict([(one.query, document) for document in one.documents], batch_size=batch_size) for one in work]


def opponent_of(name: str) -> str:
    """The name of our side that does the same: list by list, or all at once."""
    return "crossray, all lists in one call" if name.endswith("in one call") else "crossray"
