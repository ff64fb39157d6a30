"""A job in which everything dies, is away or stands still, at random moments, many times, while other drivers come.

Each row comes out once, as if nothing had happened.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster

from jobs import storage
from jobs.errors import REFUSED, STOPPED
from jobs.output.lease import NAME
from pipelines.records import CandidateList
from tests.jobs import drive
from tests.jobs.stubs import POISON, stub_ranking
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    queries,
    read_json,
    rows_of_output,
    wide_table,
    write_input,
)
from tests.stores import Bucket, download, upload

ROWS = 3_000
POISONOUS = (111, 112, 1_000, 2_999)
"""Two of them in one unit, one the last of all."""
BLOWS = {"replica": 8, "driver_dies": 5, "node": 4, "outage": 7, "pause": 2, "second": 2, "heir": 2}
"""How often something happens, by its name among the methods of Torment."""
PACE = (1.0, 20.0)
"""Seconds between a lease's beats, and until it is abandoned: more than twice as long as an outage."""
PAUSES = (0.5, 4.0)
"""Seconds between two deaths, at least and at most."""
OUTAGES = (0.5, 8.0)
"""Seconds that a disk or store is away."""
PATIENCE = 600.0
"""Seconds for what is left once nothing dies any more."""


class TwoNodes:
    """A head and a worker, two real nodes of Ray on this machine, of one CPU each."""

    def __init__(self) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.worker = self.cluster.add_node(num_cpus=1)

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_worker(self) -> None:
        """With kill -9, and everything on it; another one takes its place."""
        self.cluster.remove_node(self.worker, allow_graceful=False)
        self.worker = self.cluster.add_node(num_cpus=1)


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    two = TwoNodes()
    yield two
    two.cluster.shutdown()


@dataclass
class Place:
    """Where INPUT and OUTPUT lie."""

    input: str
    output: str
    outages: Mapping[str, Callable[[], AbstractContextManager[Any]]]
    """By what is away: while one is entered, nothing can be read or written there."""
    fetch: Callable[[], Path]
    """A local directory with everything in it."""


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, table: pa.Table) -> Place:
    source, output = (
        write_input(tmp_path / "in", a=table.slice(0, ROWS // 3), b=table.slice(ROWS // 3)),
        tmp_path / "out",
    )
    if request.param == "disk":
        outages = {
            "input": lambda: away(source, Path.mkdir, Path.rmdir),  # empty, as where a disk is no longer mounted
            "output": lambda: away(output, Path.touch, Path.unlink),
        }
        return Place(str(source), str(output), outages, lambda: output)
    bucket: Bucket = request.getfixturevalue("s3_bucket")

    def fetch() -> Path:
        return download(bucket, "out", output)

    def failing() -> AbstractContextManager[Any]:
        return bucket.proxy.failing(1, kinds=("500", "503", "reset", "lost", "cut"))

    return Place(upload(source, bucket, "in"), f"{bucket.uri}/out", {"store": failing}, fetch)


@contextmanager
def away(directory: Path, put: Callable[[Path], None], remove: Callable[[Path], None]) -> Iterator[None]:
    """The directory has another name, and `put` makes what stands in its place; without a directory nothing happens."""
    if not directory.is_dir():
        yield
        return
    gone = directory.with_name(f"{directory.name}.gone")
    directory.rename(gone)
    put(directory)
    try:
        yield
    finally:
        remove(directory)
        gone.rename(directory)


@pytest.fixture
def table() -> pa.Table:
    """List rows, some of which kill whoever scores them."""
    texts = [f"{text} {POISON}" if i in POISONOUS else text for i, text in enumerate(queries(ROWS))]
    table = wide_table(ROWS)
    return table.set_column(table.column_names.index("query"), "query", pa.array(texts))


@dataclass
class Torment:
    """A driver that is started again whenever it ends, and what befalls it."""

    command: tuple[str, ...]
    place: Place
    nodes: TwoNodes
    chance: random.Random
    befell: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    """Exit codes of drivers."""
    driver: subprocess.Popen[str] | None = None

    def start(self, **environment: str) -> subprocess.Popen[str]:
        pace = " ".join(map(str, PACE))
        return drive.start("SlowPoisonScorer", *self.command, LEASE_PACE=pace, **environment)

    def ensure_driver(self) -> subprocess.Popen[str]:
        """One that runs, or the one that is done."""
        if self.driver is not None and self.driver.poll() not in (None, 0):
            self.end_of(self.driver)
            self.driver = None
        self.driver = self.driver or self.start()
        return self.driver

    def end_of(self, driver: subprocess.Popen[str]) -> str:
        """Waits for the end of a driver, counts it, and returns what it said."""
        told, _ = driver.communicate(timeout=PATIENCE)
        self.ends[driver.returncode] += 1
        return told

    def has_lease(self, driver: subprocess.Popen[str]) -> bool:
        """Whether this driver is the one that may write into OUTPUT now."""
        try:
            return bool(storage.read_json(f"{self.place.output}/{NAME}")["pid"] == driver.pid)
        except (OSError, ValueError):
            return False

    def wait_for_lease(self, driver: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.has_lease(driver):
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.1)

    def strike(self, name: str) -> bool:
        """Lets something happen, and says whether it did: there may be nothing that it could happen to."""
        happened = bool(getattr(self, name)())
        if happened:
            self.befell[name] += 1
        return happened

    def replica(self) -> bool:
        """One of those that score dies, if there are any."""
        found = [process for process in psutil.Process().children(recursive=True) if is_replica(process)]
        if not found:
            return False
        self.chance.choice(found).kill()
        return True

    def driver_dies(self) -> bool:
        self.ensure_driver().send_signal(signal.SIGKILL)
        return True

    def node(self) -> bool:
        """All processes of a node die."""
        self.nodes.kill_worker()
        return True

    def outage(self) -> bool:
        """INPUT, OUTPUT or the store is away."""
        what = self.chance.choice(sorted(self.place.outages))
        with self.place.outages[what]():
            time.sleep(self.chance.uniform(*OUTAGES))
        self.befell[f"of {what}"] += 1
        return True

    def pause(self) -> bool:
        """The driver stands still for so long that one on another machine takes over; it stops when it goes on."""
        first = self.ensure_driver()
        if not self.has_lease(first):
            return False
        first.send_signal(signal.SIGSTOP)
        self.driver = self.start(ELSEWHERE="1")
        self.wait_for_lease(self.driver)
        time.sleep(self.chance.uniform(*PAUSES))
        first.send_signal(signal.SIGCONT)
        told = self.end_of(first)
        assert (first.returncode, "is no longer this driver's: " in told) == (STOPPED, True), told
        assert self.has_lease(self.driver) or self.driver.poll() is not None
        return True

    def second(self) -> bool:
        """Another driver comes, and is refused while the first one lives."""
        first = self.ensure_driver()
        if not self.has_lease(first):
            return False
        second = self.start()
        while second.poll() is None and first.poll() is None:
            time.sleep(0.1)
        if second.poll() is None:
            self.end_of(first)
            self.driver = second
            return False
        told = self.end_of(second)
        if first.poll() is None:
            assert (second.returncode, "another driver is writing to" in told) == (REFUSED, True), told
        return True

    def heir(self) -> bool:
        """The driver dies, and one on another machine, which cannot know that, waits for its lease and takes over."""
        first = self.ensure_driver()
        if not self.has_lease(first):
            return False
        self.driver = self.start(ELSEWHERE="1")
        first.kill()
        self.end_of(first)
        self.wait_for_lease(self.driver)
        return True


def is_replica(process: psutil.Process) -> bool:
    try:
        name = (process.cmdline() or [""])[0]
    except psutil.Error:  # it has ended
        return False
    return name.startswith("ray::") and "Replica" in name


@pytest.mark.endurance
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", [int(os.environ.get("CROSSRAY_SEED", "1"))])
def test_whatever_dies_each_row_comes_out_once(
    place: Place, nodes: TwoNodes, table: pa.Table, bert_directory: Path, seed: int
) -> None:
    """Replicas, worker nodes, drivers and disks or the store, at random, also while poisonous rows are looked for."""
    flags = ("--model", str(bert_directory), "--address", nodes.address, "--replicas", "1:2")
    torment = Torment((place.input, place.output, *flags), place, nodes, random.Random(seed))
    blows = [name for name, times in BLOWS.items() for _ in range(times)]
    torment.chance.shuffle(blows)
    while blows:
        assert torment.ensure_driver().poll() != 0, f"done after {torment.befell}: this needs more rows"
        time.sleep(torment.chance.uniform(*PAUSES))
        if torment.strike(blows[-1]):
            blows.pop()
    deadline = time.monotonic() + PATIENCE
    while torment.ensure_driver().poll() is None:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    assert torment.driver is not None
    told, _ = torment.driver.communicate()
    print(f"befell: {dict(torment.befell)}; drivers ended with: {dict(torment.ends)}")
    assert torment.driver.returncode == 0, told

    output = place.fetch()
    assert_summary_adds_up(output, read_json(output / "_summary.json"), ROWS)
    assert_nothing_left_over(output)
    assert differences(rows_of_output(output), expected_rows(table)) == {}
    inspection = [sys.executable, "-m", "jobs.cli", "inspect", place.output, "--verify"]
    verified = subprocess.run(inspection, capture_output=True, text=True, check=False, cwd=drive.ROOT)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def expected_rows(table: pa.Table) -> list[dict[str, Any]]:
    """What an undisturbed job would write."""
    rows = table.to_pylist()
    for i, row in enumerate(rows):
        ranked = stub_ranking(CandidateList(row["query"], row["documents"])).documents
        ranking = [{"id": None, "index": one.index, "relevance_score": one.relevance_score} for one in ranked]
        row |= {"ranking": None if i in POISONOUS else ranking, "error": "killed_replica" if i in POISONOUS else None}
    return rows


def differences(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> dict[int, tuple[str, Any]]:
    """The rows that are not as they should be, by their number: their query and error, or the columns that differ."""
    found: dict[int, tuple[str, Any]] = {}
    for i, (row, right) in enumerate(zip(map(comparable, rows), map(comparable, expected), strict=True)):
        if row != right:
            found[i] = (row["query"], row["error"] or [name for name in right if row.get(name) != right[name]])
    return found


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """All columns of a row; of an error its reason counts, of a score what a float32 can hold."""
    ranking = row["ranking"] and [
        one | {"relevance_score": pa.scalar(one["relevance_score"], pa.float32()).as_py()} for one in row["ranking"]
    ]
    return row | {"error": row["error"] and row["error"].partition(":")[0], "ranking": ranking}
