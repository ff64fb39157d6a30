"""`ray job submit` of the repository to a cluster on which nothing of it is installed or prepared."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from tests.jobs.drive import ROOT
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    names,
    read_json,
    write_input,
)

pytestmark = pytest.mark.slow

RAY = Path(sys.executable).with_name("ray")
SECONDS = 180.0


def free_ports() -> Iterator[int]:
    """Between those of Ray's workers (10002 to 19999) and those that systems hand out, which other Rays take."""
    for port in random.sample(range(20_000, 32_000), 12_000):
        with closing(socket.socket()) as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            yield port


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The job address of a cluster of this machine; every process of it is gone afterwards, and no other."""
    names_of_ports = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    ports = dict(zip(names_of_ports, free_ports(), strict=False))
    flags = [f"--{name}={port}" for name, port in ports.items()]
    environment = os.environ | {"RAY_raylet_start_wait_time_s": "120"}
    # Not pytest's directory: the paths of Ray's sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        started = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={directory}", *flags],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for_port(ports["dashboard-port"], started)
            yield f"http://127.0.0.1:{ports['dashboard-port']}"
        finally:
            end_all([started.pid, *processes_naming(directory)])
            started.wait()


def wait_for_port(port: int, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        assert started.poll() is None, "ray start ended"
        assert time.monotonic() < deadline, "the dashboard did not open its port"
        with closing(socket.socket()) as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


def processes_naming(directory: str) -> list[int]:
    """Processes that have the cluster's own directory in their command line."""
    found = psutil.process_iter(["pid", "cmdline"])
    return [one.pid for one in found if any(directory in word for word in one.info["cmdline"] or [])]


def end_all(pids: list[int]) -> None:
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    processes += [child for process in processes for child in process.children(recursive=True)]
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command needs of the repository."""
    directory = tmp_path_factory.mktemp("checkout")
    for package in ("jobs", "pipelines"):
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("embedded", "__pycache__"))
    return directory


def submit(head: str, checkout: Path, *arguments: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.rerank", *map(str, arguments)]
    return subprocess.run(
        [str(RAY), "job", "submit", "--address", head, "--working-dir", str(checkout), "--", *command],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def test_a_submitted_job_reranks_and_says_so_the_second_time(
    head: str, checkout: Path, tmp_path: Path, bert_directory: Path
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(20))
    for told in ("Reranked into", "is complete, and INPUT has nothing new"):
        done = submit(head, checkout, source, tmp_path / "out", "--model", bert_directory)
        assert done.returncode == 0, done.stdout + done.stderr
        assert told in done.stdout
    assert_summary_adds_up(tmp_path / "out", read_json(tmp_path / "out" / "_summary.json"), 20)
    assert_nothing_left_over(tmp_path / "out")


def test_a_submitted_job_with_a_relative_path_is_refused(
    head: str, checkout: Path, tmp_path: Path, bert_directory: Path
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(20))
    failed = submit(head, checkout, source, "out", "--model", bert_directory)
    assert failed.returncode != 0
    assert "OUTPUT is 'out'; inside a submitted job it must be absolute" in failed.stdout
    assert names(tmp_path) == ["in", "in/a.parquet"]
