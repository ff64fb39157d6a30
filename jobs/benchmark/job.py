"""`python -m jobs.benchmark job`: the whole job on Ray Data against the bare engine."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from jobs.benchmark.lists import make_lists, short_document
from jobs.benchmark.report import CORES, Model, Output, Threads, console, report, seconds_of
from jobs.settings import RerankSettings
from pipelines.config import RerankerConfig
from pipelines.records import CandidateList


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
