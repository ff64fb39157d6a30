"""`python -m jobs.benchmark documents`: documents per 50 ms by their length, as the announcement of jina-reranker-v2.

The models have the sizes of published rerankers and random weights. Each is run three ways on the same texts: by
Crossray, by sentence-transformers as it comes, and by sentence-transformers with the attention that BERT had before
fused kernels. So what is size, what is attention, and what is padding stand side by side. It runs on a GPU where there
is one, in float16, else on CPUs in float32.
"""

from __future__ import annotations

import random
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

from jobs.benchmark.engine import rank_with_peer
from jobs.benchmark.lists import long_document, make_lists, vocabulary
from jobs.benchmark.random_models import Size, write_random_model
from jobs.benchmark.report import CORES, Output, Threads, interleave, report
from pipelines.records import CandidateList
from pipelines.reranker import Reranker

WINDOW = 0.05
"""Seconds."""
LONGEST = 1024
LENGTHS = (64, 128, 256, 512, LONGEST)
"""Tokens of a pair."""
PASSAGES = "passages"
"""Lengths as a search index has them, mixed: some 90 tokens in the middle, 512 at most."""
QUERY_WORDS, SPECIAL_TOKENS = 9, 3
TOKENS = {"cpu": 2048, "cuda": 1 << 18}
"""Of a list, by device: its documents are as many as give that many tokens, and at least two."""
EQUAL = 0.05
"""Largest difference of two logits of a pair, against the standard deviation of all logits."""
SIZES = {
    "base": Size(12, 768, 12),
    "large": Size(24, 1024, 16),
    "17m": Size(7, 256, 4, 384),
}
PUBLISHED = {
    "base": "jina-reranker-v2-base-multilingual, bge-reranker-base; of jina-reranker-v1-base-en layers and width",
    "large": "bge-reranker-v2-m3, bge-reranker-large",
    "17m": "layers and width of ettin-reranker-17m",
}
OURS, PEER, EAGER = "crossray", "CrossEncoder", "CrossEncoder, eager attention"


def documents(
    sizes: Annotated[list[str] | None, typer.Option("--size", help="base, large or 17m; by default all.")] = None,
    threads: Threads = CORES,
    rounds: Annotated[int, typer.Option(help="Sides take turns; medians are reported.")] = 3,
    output: Output = None,
    plot: Annotated[Path | None, typer.Option(help="Where to draw the curves, as SVG.")] = None,
) -> None:
    """Documents per 50 ms by length, in sizes of published models: ours and sentence-transformers; scores are equal."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads)
    rows: dict[str, dict[str, float]] = {}
    details: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else f"{threads} CPU threads"}
    details |= {"torch": torch.__version__, "sizes": PUBLISHED, "seconds": {}}
    for name in sizes or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            sides = sides_of(write_random_model(Path(folder), SIZES[name], LONGEST), device, threads)
            for length in (*LENGTHS, PASSAGES):
                work = list_of(length, TOKENS[device])
                check_equal(sides, work)
                seconds = interleave({side: partial(run, work) for side, run in sides.items()}, rounds)
                medians = {side: statistics.median(times) for side, times in seconds.items()}
                count = len(work.documents)
                details["seconds"][f"{name}, {length}"] = {"documents": count, **seconds}
                for side, median in medians.items():
                    rows[f"{name}, {told(length)}, {side}"] = {
                        "documents_per_50_ms": count * WINDOW / median,
                        "crossray_is_faster_by": median / medians[OURS],
                    }
    report(f"Documents per 50 ms, {details['device']}, {rounds} rounds", rows, details, output)
    if plot is not None:
        draw(rows, list(sizes or SIZES), plot)


def told(length: int | str) -> str:
    """A length as the rows have it."""
    return f"{length} tokens" if isinstance(length, int) else length


Run = Callable[[CandidateList], Any]


def sides_of(model: str, device: str, threads: int) -> dict[str, Run]:
    """What ranks a list, by name; each returns logits in the order of the documents."""
    from sentence_transformers import CrossEncoder

    dtype = torch.float16 if device == "cuda" else torch.float32
    ours = Reranker.load(
        model, device=device, dtype=str(dtype).removeprefix("torch."), num_threads=threads, raw_scores=True
    )

    def rank(work: CandidateList) -> np.ndarray:
        [ranking] = ours.rerank_lists([work])
        found = np.empty(len(work.documents))
        for one in ranking.documents:
            found[one.index] = one.relevance_score
        return found

    sides: dict[str, Run] = {OURS: rank}
    for side, attention in ((PEER, "sdpa"), (EAGER, "eager")):
        peer = CrossEncoder(
            model,
            device=device,
            max_length=LONGEST,
            activation_fn=nn.Identity(),
            model_kwargs={"dtype": dtype, "attn_implementation": attention},
        )
        sides[side] = lambda work, peer=peer: np.concatenate(rank_with_peer(peer, [work], 32))  # type: ignore[misc]
    return sides


def check_equal(sides: dict[str, Run], work: CandidateList) -> None:
    """Raises BadParameter where the sides do not agree: a comparison of their speed would mean nothing."""
    ours, *others = (np.asarray(run(work), dtype=np.float64) for run in sides.values())
    difference = max(float(np.abs(ours - other).max() / max(ours.std(), 1e-6)) for other in others)
    if difference > EQUAL:
        raise typer.BadParameter(f"logits differ by {difference:.1e}; a comparison of speed would mean nothing")


def list_of(length: int | str, tokens: int) -> CandidateList:
    """A list whose pairs have exactly so many tokens, or the lengths of passages."""
    if not isinstance(length, int):
        return make_lists(1, max(2, tokens // 100), long_document)[0]
    words, rng = vocabulary(), random.Random(0)
    query = " ".join(rng.choices(words, k=QUERY_WORDS))
    count = length - QUERY_WORDS - SPECIAL_TOKENS
    return CandidateList(query, [" ".join(rng.choices(words, k=count)) for _ in range(max(2, tokens // length))])


def draw(rows: dict[str, dict[str, float]], sizes: list[str], path: Path) -> None:
    """Documents per 50 ms over the length, a panel for each size."""
    import matplotlib.pyplot as plt  # of the group `bench`

    plt.rcParams["svg.fonttype"] = "none"  # text stays text
    figure, panels = plt.subplots(1, len(sizes), figsize=(4 * len(sizes), 3.6), layout="constrained", squeeze=False)
    for panel, size in zip(panels[0], sizes, strict=True):
        for side, style in ((OURS, "-o"), (PEER, "--s"), (EAGER, ":^")):
            values = [rows[f"{size}, {told(length)}, {side}"]["documents_per_50_ms"] for length in LENGTHS]
            panel.plot(LENGTHS, values, style, label=side)
        panel.set(title=size, xlabel="tokens of a pair", xscale="log", yscale="log")
        panel.set_xticks(LENGTHS, [str(one) for one in LENGTHS], minor=False)
        panel.minorticks_off()
    panels[0][0].set_ylabel("documents per 50 ms")
    panels[0][0].legend()
    figure.savefig(path)
