"""What a job loses when its processes die: time, and nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs.workers.quarantine
from jobs.errors import StoppedError
from jobs.input.cutting import MIN_UNIT_BYTES
from jobs.records import Unit
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from jobs.workers.assignment import Assignment
from jobs.workers.quarantine import read_apart
from tests.jobs import drive
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import (
    BREAK_DISK,
    FAILURE,
    POISON,
    BrokenDiskScorer,
    FailingScorer,
    MeetingScorer,
    NothingSurvivesScorer,
    PoisonScorer,
    RecordingScorer,
    StubScorer,
    UnstartableScorer,
    recorded_calls,
)
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    parts,
    queries,
    read_json,
    rows_of_output,
    wide_table,
    write_input,
)

SECONDS = 120.0
"""How long a test waits for what takes a second or two on an idle machine."""


def wait_until(condition: Callable[[], Any], driver: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert driver is None or driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Runs `action` beside the block; what it raises is raised at the end."""
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def written(output: Path) -> dict[str, tuple[int, int]]:
    """When and where each part was written."""
    return {part.name: (part.stat().st_mtime_ns, part.stat().st_ino) for part in parts(output)}


def four_rows_a_unit(texts: list[str]) -> pa.Table:
    """List rows with these queries."""
    padding = pa.array(["x" * (MIN_UNIT_BYTES // 5)] * len(texts))
    table = lists_table(len(texts)).append_column("padding", padding)
    return table.set_column(table.column_names.index("query"), "query", pa.array(texts))


def blamed(output: Path) -> dict[int, str]:
    """Errors by the position of their row."""
    return {i: row["error"] for i, row in enumerate(rows_of_output(output)) if row["error"] is not None}


def kill_and_finish(source: Path, output: Path, rows: int, model: Path, flags: list[str], seed: int) -> None:
    """Kills three drivers at random moments; the fourth, with other replicas, has to find everything in order."""
    moments = random.Random(seed)
    finished: dict[str, tuple[int, int]] = {}
    arguments = [source, output, "--model", model, *flags]
    for attempt in range(3):
        driver = drive.start("SlowScorer", *arguments, "--replicas", "2" if attempt % 2 else "1")
        with driver:
            goal = len(finished) + moments.randint(1, 3)
            wait_until(lambda goal=goal: len(parts(output)) >= goal, driver)  # type: ignore[misc]
            time.sleep(moments.random() / 2)
            driver.kill()
        assert not (output / "_summary.json").exists()
        assert (output / "_lease.json").exists()
        now = written(output)
        assert {name: now[name] for name in finished} == finished
        finished = now
    with drive.start("SlowScorer", *arguments, "--replicas", "1:2", "--num-cpus", "1") as driver:
        told, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, told
    now = written(output)
    assert {name: now[name] for name in finished} == finished
    assert_summary_adds_up(output, read_json(output / "_summary.json"), rows)
    assert_nothing_left_over(output)


@pytest.mark.slow
def test_a_driver_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, cluster: str, bert_directory: Path
) -> None:
    table = wide_table(400)
    source = write_input(tmp_path / "in", a=table)
    kill_and_finish(source, tmp_path / "out", 400, bert_directory, ["--address", cluster], seed=1)
    assert [row["query_id"] for row in rows_of_output(tmp_path / "out")] == table["query_id"].to_pylist()


@pytest.mark.endurance
@pytest.mark.parametrize("seed", [2, 3])
def test_a_driver_killed_with_its_private_ray_loses_and_doubles_nothing(
    tmp_path: Path, bert_directory: Path, seed: int
) -> None:
    source = write_input(tmp_path / "in", a=wide_table(300, "a"), b=wide_table(100, "b"))
    kill_and_finish(source, tmp_path / "out", 400, bert_directory, [], seed)


@pytest.mark.parametrize("victims", ["one", "all"])
def test_killed_replicas_cost_no_row_and_get_no_row_blamed(
    tmp_path: Path, cluster: str, run_job: RunJob, victims: str
) -> None:
    output = tmp_path / "out"
    source = write_input(tmp_path / "in", a=wide_table(700))
    killed: set[int] = set()

    def kill() -> None:
        wait_until(lambda: len({pid for pid, _ in recorded_calls(output)}) == 2)
        pids = sorted({pid for pid, _ in recorded_calls(output)})
        for pid in pids[:1] if victims == "one" else pids:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    with meanwhile(kill):
        summary = run_job(source, output, scorer_class=RecordingScorer, replicas=(2, 2))
    calls = recorded_calls(output)
    assert killed
    assert {pid for pid, _ in calls} - killed
    assert len(calls) >= summary["parts"]
    assert_summary_adds_up(output, summary, 700)
    assert blamed(output) == {}
    assert_nothing_left_over(output)


@pytest.mark.slow
def test_rows_that_kill_their_replica_are_found_and_the_others_scored(
    tmp_path: Path, cluster: str, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them in one unit, one in another."""
    monkeypatch.setattr(jobs.workers.quarantine, "PAUSE_SECONDS", 0.0)
    output = tmp_path / "out"
    texts = queries(20)
    poisonous = [5, 6, 17]
    for i in poisonous:
        texts[i] += POISON
    source = write_input(tmp_path / "in", a=four_rows_a_unit(texts))
    summary = run_job(source, output, scorer_class=PoisonScorer, replicas=(2, 2))
    assert summary["parts"] == 5
    assert sorted(blamed(output)) == poisonous
    assert all(error.startswith("killed_replica: scoring this row alone ") for error in blamed(output).values())
    assert summary["errors"] == {"killed_replica": 3}
    assert [row["ranking"] is None for row in rows_of_output(output)] == [i in poisonous for i in range(20)]
    assert [(one["units"], one["rows"]) for one in summary["attempts"]] == [(5, 20)]
    assert_summary_adds_up(output, summary, 20)
    assert_nothing_left_over(output)


def test_a_row_on_which_the_scorer_raises_gets_the_error(tmp_path: Path, cluster: str, run_job: RunJob) -> None:
    texts = queries(8)
    texts[2] += FAILURE
    source = write_input(tmp_path / "in", a=four_rows_a_unit(texts))
    summary = run_job(source, tmp_path / "out", scorer_class=FailingScorer)
    assert blamed(tmp_path / "out") == {2: "scoring_failed: ValueError: no score for this one"}
    assert summary["errors"] == {"scoring_failed": 1}
    assert_summary_adds_up(tmp_path / "out", summary, 8)


def test_a_disk_that_fails_under_the_replicas_stops_the_job_resumably(
    tmp_path: Path, cluster: str, run_job: RunJob
) -> None:
    output = tmp_path / "out"
    texts = queries(40)
    texts[33] += BREAK_DISK  # two units: few enough for the job to try them again
    source = write_input(tmp_path / "in", a=four_rows_a_unit(texts))
    with pytest.raises(StoppedError, match="NotADirectoryError"):
        run_job(source, output, scorer_class=BrokenDiskScorer)
    output.unlink()
    (tmp_path / "out.gone").rename(output)
    (output / "_lease.json").unlink()  # its driver could not remove it and lives on as the process of this test
    before = written(output)
    assert len(before) < 10
    summary = run_job(source, output)
    assert {name: written(output)[name] for name in before} == before
    assert_summary_adds_up(output, summary, 40)
    assert_nothing_left_over(output)


def test_a_job_does_not_score_on_while_nothing_can_be_written(tmp_path: Path, cluster: str, run_job: RunJob) -> None:
    output = tmp_path / "out"
    texts = queries(400)
    texts[0] += BREAK_DISK
    source = write_input(tmp_path / "in", a=four_rows_a_unit(texts))
    with pytest.raises(StoppedError, match="4 parts could not be written: NotADirectoryError"):
        run_job(source, output, scorer_class=BrokenDiskScorer)


def test_a_replica_that_cannot_start_stops_the_job_with_its_reason(
    tmp_path: Path, cluster: str, run_job: RunJob
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    with pytest.raises(StoppedError, match="the model on this node is not the one"):
        run_job(source, tmp_path / "out", scorer_class=UnstartableScorer)
    assert run_job(source, tmp_path / "out")["rows"] == 5


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_job_resumably(
    tmp_path: Path, cluster: str, bert_directory: Path, run_job: RunJob, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "out"
    source = write_input(tmp_path / "in", a=wide_table(400))
    flags = ["--model", bert_directory, "--replicas", "1", "--address", cluster]
    with drive.start("SlowScorer", source, output, *flags) as driver:
        wait_until(lambda: parts(output), driver)
        driver.send_signal(number)
        told, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == code, told
    command = f"python -m jobs.rerank {source} {output} --model {bert_directory} --replicas 1 --address {cluster}"
    assert f"stopped by {number.name}; what is finished stays. To resume:\n  {command}\n" in told
    assert "Traceback" not in told
    assert not (output / "_lease.json").exists()
    before = written(output)
    summary = run_job(source, output)
    assert {name: written(output)[name] for name in before} == before
    assert_summary_adds_up(output, summary, 400)
    assert_nothing_left_over(output)


def test_a_signal_before_the_first_score_stops_the_job_just_so(
    tmp_path: Path, cluster: str, bert_directory: Path
) -> None:
    output = tmp_path / "out"
    source = write_input(tmp_path / "in", a=wide_table(400))
    flags = ["--model", bert_directory, "--replicas", "1", "--address", cluster]
    with drive.start("SlowScorer", source, output, *flags) as driver:
        wait_until((output / "_manifest.json").exists, driver)
        driver.terminate()
        told, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 143, told
    assert "stopped by SIGTERM" in told
    assert not (output / "_lease.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to_group", [False, True], ids=["driver", "everything"])
def test_a_signal_stops_a_job_with_its_private_ray(tmp_path: Path, bert_directory: Path, to_group: bool) -> None:
    """`everything` is what a terminal's Ctrl-C reaches."""
    output = tmp_path / "out"
    source = write_input(tmp_path / "in", a=wide_table(400))
    with drive.start("SlowScorer", source, output, "--model", bert_directory, "--replicas", "1") as driver:
        wait_until(lambda: parts(output), driver)
        if to_group:
            os.killpg(driver.pid, signal.SIGINT)
        else:
            driver.send_signal(signal.SIGINT)
        told, _ = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 130, told
    assert "To resume:" in told


def test_parts_are_written_while_scoring_goes_on(tmp_path: Path, cluster: str, run_job: RunJob) -> None:
    """With replicas on all CPUs no part may wait for the last score: a kill would lose everything."""
    output = tmp_path / "out"
    source = write_input(tmp_path / "in", a=wide_table(700))
    summary = run_job(source, output, scorer_class=RecordingScorer, replicas=(2, 2))
    calls = recorded_calls(output)
    assert len(calls) == summary["parts"] > 20
    first_part = min(part.stat().st_mtime_ns for part in parts(output))
    assert first_part < calls[len(calls) // 2][1]


def test_a_pool_grows_to_its_bound(tmp_path: Path, cluster: str, run_job: RunJob) -> None:
    source = write_input(tmp_path / "in", a=wide_table(400))
    run_job(source, tmp_path / "out", scorer_class=MeetingScorer, replicas=(1, 2))
    assert len({pid for pid, _ in recorded_calls(tmp_path / "out")}) == 2


def test_a_unit_is_read_in_a_process_apart(
    tmp_path: Path, cluster: str, settings_of: Callable[..., RerankSettings]
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(lists_table(10), path)
    assignment = Assignment(settings_of(path, tmp_path / "out"), Layout.LISTS, "f", StubScorer)
    assert read_apart(Unit(str(path), 2, 3), assignment).equals(lists_table(10).slice(2, 3))
    path.write_bytes(b"PAR1 and nothing else")
    assert str(read_apart(Unit(str(path), 2, 3), assignment)).startswith("ArrowInvalid: ")


@pytest.mark.slow
def test_a_machine_on_which_every_pair_kills_stops_the_job_and_blames_no_row(
    tmp_path: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.workers.quarantine, "FRUITLESS_STARTS", 2)
    source, output = write_input(tmp_path / "in", a=lists_table(8)), tmp_path / "out"
    with pytest.raises(StoppedError, match="2 replicas in a row could not score a pair that is known to be harmless"):
        run_job(source, output, NothingSurvivesScorer)
    assert parts(output) == []
    assert not (output / "_summary.json").exists()
    assert_summary_adds_up(output, run_job(source, output), 8)
