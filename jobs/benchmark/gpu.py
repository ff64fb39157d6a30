"""`python -m jobs.benchmark gpu`: the engine on a GPU against CrossEncoder in half precision, and against plain GEMM.

It needs CUDA, the group `bench` and no network. The models: `embedded`, and random weights in the sizes of published
rerankers with the embedded one's tokenizer; what a pass costs does not depend on what the weights say.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from jobs.benchmark.engine import rank_with_peer, text_pairs
from jobs.benchmark.lists import long_document, make_lists
from jobs.benchmark.random_models import Size, write_random_model
from jobs.benchmark.report import Output, interleave, report
from pipelines.encoder import EncoderShape
from pipelines.families import EncoderSpec
from pipelines.packing import TokenPair
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from pipelines.training.plain import convert

PEER_BATCH_SIZES = (32, 128, 512)
"""32 is the default of CrossEncoder.predict."""
EQUAL = 0.05
"""Largest difference of two logits of a pair, both in float16, against the standard deviation of all logits."""
GEMM = 8192
"""Edge of the square matrix products that stand for what the GPU can do."""


SIZES = {
    "embedded: 8 layers of 448": None,
    "base: 12 layers of 768 (jina-reranker-v2, bge-reranker-base)": Size(12, 768, 12),
    "large: 24 layers of 1,024 (bge-reranker-large, -v2-m3)": Size(24, 1024, 16),
}


def gpu(
    lists: Annotated[int, typer.Option(help="Candidate lists of 100 documents.")] = 40,
    rounds: Annotated[int, typer.Option(help="Sides take turns; medians are reported.")] = 5,
    output: Output = None,
) -> None:
    """Pairs per second, list by list as a search sends them and all lists in one call; scores must be equal."""
    work = make_lists(lists, 100, long_document)
    limit = gemm_flops()
    rows: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "gemm_flops": limit}
    for title, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            if size is None:
                model = str(Path(folder) / "embedded")
                convert("embedded", Path(model), torch.float32)  # of weights in 8 bits CrossEncoder reads none
            else:
                model = write_random_model(Path(folder), size)
            measured, details[title] = compare(model, work, rounds, limit)
        rows |= {f"{title}: {side}": values for side, values in measured.items()}
    report(f"{lists * 100} pairs in lists of 100, float16, {details['gpu']}", rows, details, output)


def compare(
    model: str, work: list[CandidateList], rounds: int, limit: float
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """The rows of one model, and what lies behind them; raises BadParameter when the sides do not agree."""
    from sentence_transformers import CrossEncoder

    reranker = Reranker.load(model, device="cuda", dtype="float16", raw_scores=True)
    peer = CrossEncoder(model, device="cuda", model_kwargs={"dtype": torch.float16}, activation_fn=nn.Identity())
    pairs = text_pairs(work)
    ours = np.array(reranker.compute_score(pairs))
    difference = float(np.abs(ours - peer.predict(pairs)).max() / ours.std())
    if difference > EQUAL:
        raise typer.BadParameter(f"logits differ by {difference:.1e}; a comparison of speed would mean nothing")
    ids = [pair for one in reranker.preparation.prepare(work, reranker.lengths) for pair in one.pairs]

    sides: dict[str, Callable[[], Any]] = {
        "list by list, crossray": lambda: [reranker.rerank(one.query, one.documents) for one in work],
        "one call, crossray": lambda: reranker.rerank_lists(work),
        "one call, crossray, already tokenized": lambda: reranker.engine.logits(ids),
    }
    for size in PEER_BATCH_SIZES:
        sides[f"list by list, CrossEncoder, batch {size}"] = partial(rank_with_peer, peer, work, size)
        sides[f"one call, CrossEncoder, batch {size}"] = partial(peer.predict, pairs, batch_size=size)
    seconds = interleave(sides, rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    assert isinstance(reranker.engine.spec, EncoderSpec)  # as `write_random_model` wrote it
    flops = forward_flops(ids, reranker.engine.spec.shape)
    rows = {
        name: {
            "pairs_per_second": len(pairs) / median,
            "crossray_is_faster_by": median / medians[f"{name.partition(',')[0]}, crossray"],
            "share_of_gemm": flops / median / limit,
        }
        for name, median in sorted(medians.items())
    }
    return rows, {"largest_difference_of_logits": difference, "seconds": seconds, "flops": flops}


def forward_flops(pairs: list[TokenPair], shape: EncoderShape) -> float:
    """Multiplications and additions that the pairs' matrix products take, as our encoder computes them."""
    lengths = np.array([len(pair.input_ids) for pair in pairs], dtype=np.float64)
    width, wide, tokens = shape.hidden_size, shape.intermediate_size, lengths.sum()
    layer = 2 * tokens * (4 * width**2 + 2 * width * wide) + 4 * width * (lengths**2).sum()
    first_tokens = 2 * len(pairs) * (3 * width**2 + 2 * width * wide) + 4 * width * tokens
    last_layer = 2 * tokens * 2 * width**2 + first_tokens
    return float((shape.num_hidden_layers - 1) * layer + last_layer)


def gemm_flops(rounds: int = 20) -> float:
    """Operations per second of large matrix products in float16."""
    a, b = (torch.randn(GEMM, GEMM, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        a @ b
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(rounds):
        a @ b
    ended.record()
    torch.cuda.synchronize()
    return float(2 * GEMM**3 * rounds / (began.elapsed_time(ended) / 1000))
