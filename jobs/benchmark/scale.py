"""Measures how a job scales, on a small machine: with scorers that cost a fixed time and no CPU, or nothing at all.

python -m jobs.benchmark replicas     # pairs/s of a replica where there are 1 to 32
python -m jobs.benchmark memory       # of the driver and of the others, for 10^4 to 10^7 pairs
python -m jobs.benchmark skew         # one list of 10,000 candidates among lists of 10
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import typer

from jobs.benchmark.lists import make_lists, short_document
from jobs.benchmark.report import Output, report
from jobs.driver.run import run
from jobs.scoring.scorer import LoadScorer
from jobs.settings import RerankSettings
from pipelines.memory import StoredLogits
from pipelines.records import CandidateList, RankedDocument, Ranking, ScoringTime, Usage

SECONDS_PER_PAIR = 0.01
"""100 pairs/s are what a small model does on a CPU core."""
PAIRS_PER_REPLICA = 4_000
DISTINCT_LISTS = 500
SAMPLE_SECONDS = 0.5
ROWS_PER_GROUP = 1_000
"""The same for all, since replicas and the plan decode whole row groups."""
MIB = 1 << 20


class FixedCostScorer:
    """Waits `seconds` for each pair, as if for a GPU, and leaves the CPUs to the others and the order as it is."""

    seconds = SECONDS_PER_PAIR

    def __init__(self, _settings: RerankSettings, _fingerprint: str, _stored: StoredLogits) -> None:
        self.turn = threading.Lock()

    def rerank_lists(self, lists: Sequence[CandidateList], spent: ScoringTime) -> list[Ranking]:
        with self.turn:
            began = time.perf_counter()
            time.sleep(self.seconds * sum(len(one.documents) for one in lists))
            spent.forward += time.perf_counter() - began
        return [in_given_order(one) for one in lists]


class FreeScorer(FixedCostScorer):
    """Scores at once."""

    seconds = 0.0


def in_given_order(candidates: CandidateList) -> Ranking:
    """A ranking whose scores fall from 1."""
    count = len(candidates.documents)
    documents = [RankedDocument(i, 1 - i / count, text) for i, text in enumerate(candidates.documents)]
    return Ranking(documents, Usage(pairs=count, chunks=count))


class Measured(NamedTuple):
    """What one job said and took."""

    summary: dict[str, Any]
    memory: list[tuple[float, float, float]]
    """(seconds, MiB of the driver, MiB of the largest other process), every SAMPLE_SECONDS; unique set sizes."""


def replicas(
    most: Annotated[int, typer.Option(help="1, 2, 4, ... up to this many.")] = 32, output: Output = None
) -> None:
    """Pairs per second of a replica from its first unit on, in pools of 1 to `most`; each has the same work."""
    rows: dict[str, dict[str, float]] = {}
    first = 0.0
    for count in powers_of_two(most):
        summary = measure(lists_of(PAIRS_PER_REPLICA * count // 100, 100), FixedCostScorer, count).summary
        each = summary["pairs"] / summary["replica_seconds"]
        first = first or each
        rows[f"{count} replicas"] = {
            "pairs_per_second_of_a_replica": each,
            "share_of_one_replica": each / first,
            "pairs_per_second": summary["pairs_per_second"],
        }
    report(f"{PAIRS_PER_REPLICA} pairs of {SECONDS_PER_PAIR * 1000:g} ms for each replica", rows, {}, output)


def memory(
    largest: Annotated[int, typer.Option(help="10^4, 10^5, ... pairs, up to 10 to this power.")] = 7,
    output: Output = None,
    plot: Annotated[Path | None, typer.Option(help="Where to put the curves, as SVG.")] = None,
) -> None:
    """Memory over time of jobs with a scorer that costs nothing, so that as much as possible is on its way."""
    rows: dict[str, dict[str, float]] = {}
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for power in range(4, largest + 1):
        summary, samples = measure(lists_of(10**power // 100, 100), FreeScorer, 2)
        title = f"10^{power} pairs"
        curves[title] = samples
        rows[title] = {
            "driver_mib": max(driver for _, driver, _ in samples),
            "largest_other_mib": max(other for _, _, other in samples),
            "seconds": summary["seconds"],
        }
    report("unique memory of a job's processes, at most", rows, {"samples": curves}, output)
    if plot is not None:
        draw(curves, plot)


def skew(
    candidates: Annotated[int, typer.Option(help="Of the long list.")] = 10_000,
    lists: Annotated[int, typer.Option(help="Of 10 candidates.")] = 4_000,
    output: Output = None,
) -> None:
    """What one long list does to the others: the time of two replicas, with and without it, and the memory."""
    short = lists_of(lists, 10)
    long = lists_of(1, candidates)
    rows = {}
    for title, table in (("short lists", short), ("with a long one", splice(short, long))):
        summary, samples = measure(table, FixedCostScorer, 2)
        rows[title] = {
            "pairs": summary["pairs"],
            "idle_share": summary["stages"]["idle"] / summary["replica_seconds"],
            "driver_mib": max(driver for _, driver, _ in samples),
            "largest_other_mib": max(other for _, _, other in samples),
        }
    report(f"{lists} lists of 10 candidates, and one of {candidates} in their middle", rows, {}, output)


def powers_of_two(most: int) -> Iterator[int]:
    """1, 2, 4, ... up to `most`."""
    count = 1
    while count <= most:
        yield count
        count *= 2


def lists_of(count: int, documents: int, distinct: int = DISTINCT_LISTS) -> pa.Table:
    """Rows with short documents: so many distinct ones, again and again."""
    work = make_lists(min(count, distinct), documents, short_document)
    table = pa.table({"query": [one.query for one in work], "documents": [list(one.documents) for one in work]})
    return pa.concat_tables([table] * -(-count // len(work))).slice(0, count)


def splice(table: pa.Table, middle: pa.Table) -> pa.Table:
    """`table` with `middle` in its middle."""
    half = table.num_rows // 2
    return pa.concat_tables([table.slice(0, half), middle, table.slice(half)])


def measure(table: pa.Table, load_scorer: LoadScorer, count: int) -> Measured:
    """A job over these rows with `count` replicas, driven by a process that has done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        source = str(Path(folder, "lists.parquet"))
        pq.write_table(table, source, row_group_size=ROWS_PER_GROUP)
        settings = RerankSettings(source, str(Path(folder, "out")), replicas=(count, count))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            return fresh.submit(drive, settings, load_scorer, count).result()


def drive(settings: RerankSettings, load_scorer: LoadScorer, count: int) -> Measured:
    """The job, in this process, on a private Ray that takes the machine for one of `count` CPUs."""
    ray.init("local", num_cpus=count, include_dashboard=False, log_to_driver=False)
    with sampled_memory() as samples:
        summary = run(settings, load_scorer)
    return Measured(summary, samples)


@contextmanager
def sampled_memory() -> Iterator[list[tuple[float, float, float]]]:
    """Samples as Measured has them, taken while the block runs."""
    samples: list[tuple[float, float, float]] = []
    ended = threading.Event()
    thread = threading.Thread(target=sample_memory, args=(samples, ended), daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def sample_memory(samples: list[tuple[float, float, float]], ended: threading.Event) -> None:
    """Adds a sample every SAMPLE_SECONDS until `ended` is set."""
    driver = psutil.Process()
    began = time.perf_counter()
    while not ended.is_set():
        others = [unique_mib(one) for one in driver.children(recursive=True)]
        samples.append((time.perf_counter() - began, unique_mib(driver), max(others, default=0.0)))
        ended.wait(SAMPLE_SECONDS)


def unique_mib(process: psutil.Process) -> float:
    """Memory that would be free without the process; what Ray's object store shares is not in it."""
    try:
        return float(process.memory_full_info().uss / MIB)
    except psutil.Error:  # it ended
        return 0.0


def draw(curves: dict[str, list[tuple[float, float, float]]], path: Path) -> None:
    """Memory over the share of the time that a job took, since the largest takes a thousand times as long."""
    import matplotlib.pyplot as plt  # of the group `bench`

    figure, sides = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for side, title, column in zip(sides, ("driver", "largest other process"), (1, 2), strict=True):
        for name, samples in curves.items():
            times = [sample[0] / samples[-1][0] for sample in samples]
            side.plot(times, [sample[column] for sample in samples], label=f"{name}, {samples[-1][0]:.0f} s")
        side.set(title=title, xlabel="share of the job's time", ylim=(0, None))
    sides[0].set_ylabel("unique memory, MiB")
    sides[0].legend(loc="lower right")
    plt.rcParams["svg.fonttype"] = "none"  # text stays text
    figure.savefig(path)
