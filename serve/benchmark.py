"""Measures the server as its clients see it, on loopback, bounded in count and time. Wants an idle machine.

python -m serve.benchmark online                  # our app against the bare engine and against the common way to serve
python -m serve.benchmark load URL                # any server that speaks /v1/rerank: p50, p99, pairs per second
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console

from pipelines.records import CandidateList
from serve.load import DOCUMENTS_PER_LIST, Load, closed_loop, make_lists, open_loop, send_request
from serve.private_ray import ray_session, reserve_port

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

CORES = os.cpu_count() or 1
CLIENTS = 8
OVERLOAD = 3
"""Times the rate that the server can answer."""


@app.command("load")
def load_command(
    url: Annotated[str, typer.Argument(help="http://127.0.0.1:8000")],
    clients: Annotated[int, typer.Option(min=1, max=64)] = CLIENTS,
    seconds: Annotated[float, typer.Option(min=1, max=120)] = 10,
    rate: Annotated[float | None, typer.Option(help="Requests per second; default: as fast as answered.")] = None,
    documents: Annotated[int, typer.Option(min=1, max=1000, help="Of each request.")] = DOCUMENTS_PER_LIST,
) -> None:
    """Load on a server that speaks /v1/rerank; only addresses of this machine."""
    if not url.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]")):
        raise typer.BadParameter("only servers on this machine (127.0.0.1, localhost, [::1]) are loaded")
    lists = make_lists(200, documents)
    load = asyncio.run(open_loop(url, lists, rate, seconds) if rate else closed_loop(url, lists, clients, seconds))
    typer.echo(json.dumps(load.figures(documents), indent=2))


@app.command()
def online(
    threads: Annotated[int, typer.Option(help="Of the replica, of the bare engine, and of the common server.")] = CORES,
    seconds: Annotated[float, typer.Option(min=2, max=60, help="Of each measurement.")] = 15,
    output: Annotated[Path | None, typer.Option(help="Where to put the figures as JSON.")] = None,
) -> None:
    """What serving adds to the engine: at light load, at saturation, under overload, beside a bulk job."""
    from pipelines.reranker import Reranker

    lists = make_lists(200)
    reranker = Reranker.load("embedded", num_threads=threads)
    figures: dict[str, Any] = {}
    with run_app(threads) as ours, run_common(threads) as theirs:
        figures["light load"] = light_load(reranker, {"crossray": ours, "common": theirs}, lists[:60])
        figures["saturation"] = saturation(reranker, {"crossray": ours, "common": theirs}, lists, seconds)
        capacity = figures["saturation"]["crossray"]["pairs_per_second"] / DOCUMENTS_PER_LIST
        overload = asyncio.run(open_loop(ours, lists, OVERLOAD * capacity, seconds))
        figures["overload"] = overload.figures(DOCUMENTS_PER_LIST)
        figures["shared pool"] = {
            "a_full_pass_ms": full_pass_ms(reranker.engine),
            **shared_pool(ours, lists, capacity / 4, 2 * seconds),
        }
    typer.echo(json.dumps(figures, indent=2))
    if output is not None:
        output.write_text(json.dumps({"threads": threads, "cpus": CORES, **figures}, indent=2) + "\n")


def light_load(reranker: Any, servers: dict[str, str], lists: Sequence[CandidateList]) -> dict[str, Any]:
    """Medians of one request after the other, the sides in turns; what each server adds to the engine's own time."""
    seconds: dict[str, list[float]] = {name: [] for name in ("engine", *servers)}

    async def measure() -> None:
        async with aiohttp.ClientSession() as session:
            for i, one in enumerate(lists):
                began = time.perf_counter()
                await asyncio.to_thread(reranker.rerank, one.query, one.documents)
                times = {"engine": time.perf_counter() - began}
                for name, url in servers.items():
                    load = Load()
                    await send_request(session, url, one, load)
                    times[name] = load.latencies[0]
                if i >= 5:  # the first ones warm up
                    for name, value in times.items():
                        seconds[name].append(value)

    asyncio.run(measure())
    medians = {f"{name}_ms": round(statistics.median(times) * 1000, 2) for name, times in seconds.items()}
    added = {f"{name}_adds_ms": round(medians[f"{name}_ms"] - medians["engine_ms"], 2) for name in servers}
    return medians | added


def saturation(
    reranker: Any, servers: dict[str, str], lists: Sequence[CandidateList], seconds: float
) -> dict[str, Any]:
    """Pairs per second with CLIENTS clients, against the engine with all lists at hand, measured before and after."""

    def bare() -> float:
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / 2:
            reranker.rerank_lists(lists[:20])
            done += 20 * DOCUMENTS_PER_LIST
        return done / (time.perf_counter() - began)

    before = bare()
    figures: dict[str, Any] = {
        name: asyncio.run(closed_loop(url, lists, CLIENTS, seconds)).figures(DOCUMENTS_PER_LIST)
        for name, url in servers.items()
    }
    engine = (before + bare()) / 2
    for name in servers:
        figures[name]["share_of_engine"] = round(figures[name]["pairs_per_second"] / engine, 3)
    return {"engine_pairs_per_second": round(engine, 1), **figures}


def shared_pool(url: str, lists: Sequence[CandidateList], rate: float, seconds: float) -> dict[str, Any]:
    """A quarter of the capacity asked for online, alone and beside a job that takes all it can get."""
    alone = asyncio.run(open_loop(url, lists, rate, seconds)).figures(DOCUMENTS_PER_LIST)
    with bulk_job():
        before, began = pairs_scored(url), time.perf_counter()
        load = asyncio.run(open_loop(url, lists, rate, seconds))
        both = (pairs_scored(url) - before) / (time.perf_counter() - began)
    beside = load.figures(DOCUMENTS_PER_LIST)
    return {"alone": alone, "beside a job": beside, "job_pairs_per_second": round(both - beside["pairs_per_second"], 1)}


def pairs_scored(url: str) -> float:
    """Pairs that all replicas scored since they started, by the server's metrics, which are some seconds late."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        page = response.read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith("crossray_pairs_total"))


def full_pass_ms(engine: Any) -> float:
    """Milliseconds of the largest pass there is: what an online request may have to wait for beside a job."""
    from pipelines.packing import TokenPair

    length = 128
    pairs = [
        TokenPair(list(range(first, first + length)), [0] * length)
        for first in range(1000, 1000 + engine.max_batch_tokens * engine.parallel_batches // length)
    ]
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        engine.logits(pairs)
        seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds) * 1000, 1)


@contextmanager
def bulk_job() -> Iterator[None]:
    """`crossray rerank --app` on more work than there is time for, from its first part on."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        work = make_lists(4000)
        columns = {"query": [one.query for one in work], "documents": [list(one.documents) for one in work]}
        pq.write_table(pa.table(columns), Path(folder, "in.parquet"))
        out = Path(folder, "out")
        command = [sys.executable, "-m", "jobs.rerank", str(Path(folder, "in.parquet")), str(out), "--app", "crossray"]
        environment = os.environ | {"RAY_ADDRESS": ray_address()}
        job = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not list(out.glob("part-*.parquet")) and job.poll() is None:
                time.sleep(0.2)
            yield
            if job.poll() is not None:
                raise RuntimeError(f"the job ended with {job.returncode} while it was measured")
        finally:
            job.terminate()
            job.wait()


def ray_address() -> str:
    """The address of the Ray that this process started."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@contextmanager
def run_app(threads: int) -> Iterator[str]:
    """Our app on a private Ray: one replica with all threads; its URL."""
    from serve.environment import set_serve_environment

    set_serve_environment()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    from ray import serve

    from serve.app import build_app
    from serve.settings import ServeArgs

    with ray_session(None, Console(stderr=True)):
        port = reserve_port(18_000)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        args = ServeArgs(num_cpus=1, num_threads=threads, max_queued_tokens=50_000)
        serve.run(build_app(args), name="crossray", route_prefix="/")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def run_common(threads: int) -> Iterator[str]:
    """The common server in a process of its own; its URL."""
    port = reserve_port(18_000)
    process = subprocess.Popen([sys.executable, "-m", "serve.benchmark", "common", str(port), str(threads)])
    url = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(until_answered(url))
        yield url
    finally:
        process.terminate()
        process.wait()


async def until_answered(url: str) -> None:
    """Waits, a minute at most, until the server ranks."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            load = Load()
            await send_request(session, url, CandidateList("a", ["b"]), load)
            if load.codes["200"]:
                return
            await asyncio.sleep(0.2)


@app.command(hidden=True)
def common(port: int, threads: int) -> None:
    """The common way: CrossEncoder.predict behind FastAPI and uvicorn, one lock, one request at a time."""
    import torch
    import uvicorn
    from fastapi import FastAPI
    from sentence_transformers import CrossEncoder

    from pipelines.training.plain import convert

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:  # of weights in 8 bits it reads none
        convert("embedded", Path(folder) / "plain", torch.float32)
        model = CrossEncoder(f"{folder}/plain", device="cpu", model_kwargs={"dtype": torch.float32})
    lock = threading.Lock()
    api = FastAPI()

    @api.post("/v1/rerank")
    def rerank(body: dict[str, Any]) -> dict[str, Any]:
        with lock:
            scores = model.predict([(body["query"], document) for document in body["documents"]])
        best_first = sorted(range(len(scores)), key=lambda i: -scores[i])
        return {"results": [{"index": i, "relevance_score": float(scores[i])} for i in best_first]}

    uvicorn.run(api, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    app()
