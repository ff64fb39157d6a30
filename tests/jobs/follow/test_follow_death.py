"""A follower as a command: it is killed and stopped while files come, and each row is ranked once all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from io import StringIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.audit.facts import look
from jobs.audit.integrity import verify
from jobs.input.cutting import UNIT_BYTES
from tests.jobs import drive
from tests.jobs.tables import assert_nothing_left_over, assert_summary_adds_up, parts, read_json, rows_of_output
from tests.jobs.workers.test_death import SECONDS, wait_until, written

ROWS = 40
ROWS_A_UNIT = 4


class Producer:
    """Drops files into a directory, as they are written: a byte at a time, or renamed when they are whole."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.ids: list[str] = []
        source.mkdir()

    def drop(self, name: str, *, in_pieces: bool = False) -> None:
        ids = [f"{name}{i}" for i in range(ROWS)]
        padding = pa.array(["x" * (UNIT_BYTES // ROWS_A_UNIT - 200)] * ROWS)
        table = pa.table({"query_id": ids, "query": ids, "documents": [["a b", "c d"]] * ROWS, "padding": padding})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
        path = self.source / f"{name}.parquet"
        if in_pieces:
            with path.open("wb") as file:
                for start in range(0, len(content), len(content) // 8 + 1):
                    file.write(content[start : start + len(content) // 8 + 1])
                    file.flush()
                    threading.Event().wait(0.1)
        else:
            path.with_suffix(".tmp").write_bytes(content)
            path.with_suffix(".tmp").rename(path)
        self.ids += ids


class Reader:
    """Reads what a process says, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.told = StringIO()
        self.process = process
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.write(line)

    def ended(self) -> tuple[int, str]:
        code = self.process.wait(SECONDS)
        self.thread.join()
        return code, self.told.getvalue()


def done(output: Path) -> bool:
    return (output / "_summary.json").exists()


@pytest.mark.slow
def test_files_that_come_between_kills_and_stops_are_ranked_once(
    tmp_path: Path, cluster: str, bert_directory: Path
) -> None:
    output = tmp_path / "out"
    producer = Producer(tmp_path / "in")
    arguments = ["SlowScorer", producer.source, output, "--model", bert_directory, "--address", cluster]
    arguments += ["--replicas", "1"]
    follow = ["--follow", "--poll-seconds", "0.3"]

    with drive.start(*arguments, *follow) as driver:  # killed at work
        reader = Reader(driver)
        producer.drop("a")
        wait_until(lambda: len(parts(output)) >= 3)
        producer.drop("b")
        driver.kill()
        reader.ended()
    assert not done(output)
    before = written(output)

    with drive.start(*arguments, *follow) as driver:  # stopped while it waits
        reader = Reader(driver)
        producer.drop("c", in_pieces=True)
        wait_until(lambda: len(parts(output)) == 30 and done(output))
        (producer.source / "a.parquet").unlink()
        producer.drop("d")
        wait_until(lambda: len(parts(output)) == 40 and done(output))
        driver.send_signal(signal.SIGTERM)
        code, told = reader.ended()
    assert code == 0, told
    assert "Traceback" not in told
    assert_nothing_left_over(output)
    now = written(output)
    assert {name: now[name] for name in before} == before

    with drive.start(*arguments, *follow) as driver:  # stopped at work
        reader = Reader(driver)
        producer.drop("e")
        wait_until(lambda: len(parts(output)) >= 43)
        driver.send_signal(signal.SIGTERM)
        code, told = reader.ended()
    assert code == 143, told
    assert "stopped by SIGTERM; what is finished stays. To resume:" in told
    assert "--follow" in told
    assert "Traceback" not in told
    assert 43 <= len(parts(output)) < 50
    assert not done(output)
    assert not (output / "_lease.json").exists()

    with drive.start(*arguments) as driver:  # finished, without --follow
        code, told = Reader(driver).ended()
    assert code == 0, told
    assert sorted(row["query_id"] for row in rows_of_output(output)) == sorted(producer.ids)
    assert_summary_adds_up(output, read_json(output / "_summary.json"), 5 * ROWS)
    assert_nothing_left_over(output)
    assert verify(look(str(output))) == []


@pytest.mark.parametrize(
    "to_group",
    [pytest.param(False, marks=pytest.mark.endurance), pytest.param(True, marks=pytest.mark.slow)],
    ids=["driver", "everything"],
)
def test_a_signal_ends_a_follower_with_its_private_ray(tmp_path: Path, bert_directory: Path, to_group: bool) -> None:
    """`everything` is what a terminal's Ctrl-C reaches."""
    output = tmp_path / "out"
    producer = Producer(tmp_path / "in")
    producer.drop("a")
    flags = ["--model", bert_directory, "--replicas", "1", "--follow", "--poll-seconds", "0.3"]
    with drive.start("StubScorer", producer.source, output, *flags) as driver:
        reader = Reader(driver)
        wait_until(lambda: done(output))
        if to_group:
            os.killpg(driver.pid, signal.SIGINT)
        else:
            driver.send_signal(signal.SIGINT)
        code, told = reader.ended()
    assert code == 0, told
    assert "Traceback" not in told
    assert_nothing_left_over(output)
