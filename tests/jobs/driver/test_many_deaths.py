"""A job in which everything dies, at random moments, many times: each row comes out once, as if nothing had died."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster

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

ROWS = 2_400
POISONOUS = (111, 112, 1_000, 2_399)
"""Two of them in one unit, one the last of all."""
DEATHS = 24
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
    """Where OUTPUT lies."""

    input: str
    output: str
    is_away: Callable[[], AbstractContextManager[Any]]
    """While it is entered, nothing can be read or written there."""
    fetch: Callable[[], Path]
    """A local directory with everything in it."""


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, table: pa.Table) -> Place:
    source, output = (
        write_input(tmp_path / "in", a=table.slice(0, ROWS // 3), b=table.slice(ROWS // 3)),
        tmp_path / "out",
    )
    if request.param == "disk":
        return Place(str(source), str(output), lambda: renamed(output), lambda: output)
    bucket: Bucket = request.getfixturevalue("s3_bucket")

    def fetch() -> Path:
        return download(bucket, "out", output)

    def failing() -> AbstractContextManager[Any]:
        return bucket.proxy.failing(1, kinds=("500", "503", "reset", "lost", "cut"))

    return Place(upload(source, bucket, "in"), f"{bucket.uri}/out", failing, fetch)


@contextmanager
def renamed(directory: Path) -> Iterator[None]:
    """The directory is gone, and what stands in its place is none."""
    if not directory.is_dir():
        yield
        return
    gone = directory.with_name(f"{directory.name}.gone")
    directory.rename(gone)
    directory.touch()
    try:
        yield
    finally:
        directory.unlink()
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

    def ensure_driver(self) -> subprocess.Popen[str]:
        """One that runs, or the one that is done."""
        if self.driver is not None and self.driver.poll() not in (None, 0):
            self.ends[self.driver.returncode] += 1
            self.driver.communicate()
            self.driver = None
        self.driver = self.driver or drive.start("SlowPoisonScorer", *self.command)
        return self.driver

    def strike(self) -> None:
        """One death, of anything."""
        name = self.chance.choice(("replica", "replica", "replica", "driver", "node", "outage"))
        if getattr(self, f"kill_{name}")():
            self.befell[name] += 1

    def kill_replica(self) -> bool:
        """One of those that score, if there are any."""
        found = [process for process in psutil.process_iter(["cmdline"]) if is_replica(process.info["cmdline"] or [""])]
        if not found:
            return False
        self.chance.choice(found).kill()
        return True

    def kill_driver(self) -> bool:
        self.ensure_driver().send_signal(signal.SIGKILL)
        return True

    def kill_node(self) -> bool:
        self.nodes.kill_worker()
        return True

    def kill_outage(self) -> bool:
        """Of the disk or the store."""
        with self.place.is_away():
            time.sleep(self.chance.uniform(*OUTAGES))
        return True


def is_replica(cmdline: list[str]) -> bool:
    return cmdline[0].startswith("ray::") and "Replica" in cmdline[0]


@pytest.mark.endurance
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", [int(os.environ.get("CROSSRAY_SEED", "1"))])
def test_whatever_dies_each_row_comes_out_once(
    place: Place, nodes: TwoNodes, table: pa.Table, bert_directory: Path, seed: int
) -> None:
    """Replicas, worker nodes, drivers and the disk or store, at random, also while poisonous rows are looked for."""
    flags = ("--model", str(bert_directory), "--address", nodes.address, "--replicas", "1:2")
    torment = Torment((place.input, place.output, *flags), place, nodes, random.Random(seed))
    while torment.befell.total() < DEATHS:
        assert torment.ensure_driver().poll() != 0, f"done after {torment.befell}: this needs more rows"
        time.sleep(torment.chance.uniform(*PAUSES))
        torment.strike()
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
    assert checksum(rows_of_output(output)) == checksum(expected_rows(table))
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


def checksum(rows: list[dict[str, Any]]) -> str:
    """Over all columns of all rows, in order; of an error its reason counts, of a score what a float32 can hold."""
    digest = hashlib.sha256()
    for row in rows:
        error = row["error"] and row["error"].partition(":")[0]
        ranking = row["ranking"] and [
            one | {"relevance_score": pa.scalar(one["relevance_score"], pa.float32()).as_py()} for one in row["ranking"]
        ]
        digest.update(json.dumps(row | {"error": error, "ranking": ranking}, sort_keys=True).encode())
    return digest.hexdigest()
