"""Measures what the README claims, as ratios within one run, since machines are noisy. Wants an idle machine.

python -m jobs.benchmark engine     # scoring against sentence-transformers' CrossEncoder: same weights and threads
python -m jobs.benchmark job        # the whole job on Ray Data against the bare engine
python -m jobs.benchmark reuse      # a log that repeats its popular pairs: nothing remembered, a memory, a full store
python -m jobs.benchmark load       # from a cold start to a loaded model
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from jobs.settings import RECENT_PAIRS, RerankSettings
from pipelines.config import RerankerConfig
from pipelines.model_files import find_model
from pipelines.records import CandidateList

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
console = Console()

MEDIAN_WORDS, DEVIATION, MAX_WORDS = 75, 0.7, 420  # log-normal: about 90 tokens in the middle, cut near 512
SHORT_WORDS = (12, 36)
EQUAL = 1e-4
PEER_BATCH_SIZES = (32, 8, 4, 16)
"""32 is the default of CrossEncoder.predict; for lists of 100 the best is 8."""

CORES = os.cpu_count() or 1

Model = Annotated[str, typer.Option(help="`embedded` or a directory.")]
Threads = Annotated[int, typer.Option(help="CPU threads of each side.")]
Rounds = Annotated[int, typer.Option(help="Sides take turns; medians are reported.")]
Output = Annotated[Path | None, typer.Option(help="Where to put the figures as JSON.")]


@app.command()
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


@app.command()
def job(
    model: Model = "embedded",
    threads: Threads = CORES,
    pairs: Annotated[int, typer.Option(help="Short pairs, in lists of 100.")] = 20_000,
    output: Output = None,
) -> None:
    """The whole job (replicas of one thread) against the bare engine (one process) with as many threads in all.

    Once on a Ray that runs already, as jobs meet it on a cluster, and once with a private Ray that starts and ends.
    """
    from jobs.runtime.session import ray_session
    from pipelines.reranker import Reranker

    work = make_lists(pairs // 100, 100, short_document)
    reranker = Reranker.load(model, num_threads=threads)
    reranker.rerank_lists(work[:2])
    half = len(work) // 2  # one half before the jobs and one after them, so that a drift of the machine cancels out
    bare = seconds_of(partial(reranker.rerank_lists, work[:half]))
    with tempfile.TemporaryDirectory() as folder:
        with ray_session(None, console):
            run_job(work[:4], model, Path(folder, "first"))  # the cluster has had a job before
            time.sleep(5)  # until its replicas have ended
            wall, phases = run_job(work, model, Path(folder, "running"))
        private_wall, private_phases = run_job(work, model, Path(folder, "private"))
    bare += seconds_of(partial(reranker.rerank_lists, work[half:]))
    seconds = {
        "bare engine": bare,
        "job, while scoring": phases["score"],
        "job on a running Ray, from start to end": wall,
        "job with a Ray of its own, from start to end": private_wall,
    }
    report(
        f"{pairs} short pairs, {threads} threads in all",
        {
            name: {"pairs_per_second": pairs / took, "share_of_bare_engine": bare / took}
            for name, took in seconds.items()
        },
        {"seconds": {**seconds, "phases": phases, "phases_with_a_ray_of_its_own": private_phases}},
        output,
    )


def run_job(work: list[CandidateList], model: str, directory: Path) -> tuple[float, dict[str, float]]:
    """The job over these lists, from Parquet to Parquet: its seconds, and those of its phases."""
    from jobs.driver.run import run

    directory.mkdir()
    columns = {"query": [one.query for one in work], "documents": [list(one.documents) for one in work]}
    pq.write_table(pa.table(columns), directory / "lists.parquet")
    settings = RerankSettings(
        str(directory / "lists.parquet"), str(directory / "out"), reranker=RerankerConfig(model=model)
    )
    started = time.perf_counter()
    summary = run(settings)
    return time.perf_counter() - started, summary["attempts"][-1]["phases"]


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@app.command()
def reuse(
    model: Model = "embedded",
    threads: Threads = CORES,
    rounds: Rounds = 3,
    pairs: Annotated[int, typer.Option(help="Short pairs by Zipf's law, in lists of 10.")] = 6_000,
    output: Output = None,
) -> None:
    """One replica over a Zipfian log: each unit for itself, with the default memory, with a store that knows all."""
    from jobs.benchmark_reuse import full_store, score_log, share_of_distinct_pairs, zipfian_log
    from pipelines.memory import StoredLogits
    from pipelines.reranker import Reranker

    words, rng = vocabulary(), random.Random(1)
    log = zipfian_log(pairs // 10, lambda: " ".join(rng.choices(words, k=9)), lambda: short_document(rng, words))
    reranker = Reranker.load(model, num_threads=threads)
    expected, logits = score_log(reranker, log, 0, StoredLogits())
    stores = {
        "nothing remembered": (0, StoredLogits()),
        "memory": (RECENT_PAIRS, StoredLogits()),
        "full store": (0, full_store(logits)),
    }
    differences = [np.abs(score_log(reranker, log, *side)[0] - expected).max() for side in stores.values()]
    if max(differences) > EQUAL:
        raise typer.BadParameter(f"scores differ by {max(differences):.1e}; what is remembered would be wrong")
    sides: dict[str, Callable[[], Any]] = {
        name: partial(score_log, reranker, log, *side) for name, side in stores.items()
    }
    medians = {name: statistics.median(times) for name, times in interleave(sides, rounds).items()}
    distinct = share_of_distinct_pairs(log)
    report(
        f"{pairs} short pairs, {distinct:.0%} of them distinct, {threads} threads, {rounds} rounds; "
        f"scores differ by {max(differences):.1e}",
        {
            name: {"pairs_per_second": pairs / median, "is_faster_by": medians["nothing remembered"] / median}
            for name, median in medians.items()
        },
        {"share_of_distinct_pairs": distinct, "largest_score_difference": float(max(differences)), "seconds": medians},
        output,
    )


@app.command()
def load(model: Model = "embedded", rounds: Rounds = 5, output: Output = None) -> None:
    """Seconds from the start of a fresh Python to a loaded model, imports included."""
    code = (
        "import time; began = time.perf_counter(); from pipelines import Reranker; import torch; "
        f"imported = time.perf_counter(); Reranker.load({model!r}); "
        "print(imported - began, time.perf_counter() - imported)"
    )
    lines = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(rounds)
    ]
    imports, loads = zip(*(map(float, line.stdout.split()) for line in lines), strict=True)
    report(
        f"median of {rounds} fresh processes",
        {
            "import": {"seconds": statistics.median(imports)},
            "load": {"seconds": statistics.median(loads)},
            "together": {"seconds": statistics.median(map(sum, zip(imports, loads, strict=True)))},
        },
        {},
        output,
    )


def make_lists(lists: int, documents: int, make: Callable[[random.Random, list[str]], str]) -> list[CandidateList]:
    """Seeded texts of real words of the embedded model's vocabulary; only their lengths matter."""
    words, rng = vocabulary(), random.Random(0)
    return [
        CandidateList(" ".join(rng.choices(words, k=9)), [make(rng, words) for _ in range(documents)])
        for _ in range(lists)
    ]


def vocabulary() -> list[str]:
    """Real words."""
    tokens = find_model("embedded").tokenizer().get_vocab()
    return sorted(token for token in tokens if token.isascii() and token.isalpha() and len(token) > 2)


def long_document(rng: random.Random, words: list[str]) -> str:
    """Lengths as passages of a search index have them."""
    length = int(MEDIAN_WORDS * rng.lognormvariate(0, DEVIATION))
    return " ".join(rng.choices(words, k=max(4, min(length, MAX_WORDS))))


def short_document(rng: random.Random, words: list[str]) -> str:
    """A title or a sentence."""
    return " ".join(rng.choices(words, k=rng.randint(*SHORT_WORDS)))


def interleave(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, A B C A B C ..., after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, side in sides.items():
            took = seconds_of(side)
            if i:
                seconds[name].append(took)
    return seconds


def report(title: str, rows: dict[str, dict[str, float]], details: dict[str, Any], output: Path | None) -> None:
    """Prints the table; writes it with its details as JSON."""
    columns = list(next(iter(rows.values())))
    table = Table(title=title, title_justify="left")
    for column in ("", *columns):
        table.add_column(column.replace("_", " "), justify="right" if column else "left")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[column]:,.2f}" for column in columns))
    console.print(table)
    if output is not None:
        machine = {"processor": processor(), "cpus": CORES, "python": platform.python_version()}
        output.write_text(json.dumps({"title": title, "machine": machine, "rows": rows, **details}, indent=2) + "\n")


def processor() -> str:
    """The model name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    app()
