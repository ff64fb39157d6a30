"""One driver at a time per output directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import RefusedError
from jobs.output import lease
from jobs.output.lease import NAME, STALE_SECONDS, hold_lease

HOLD = """
import sys, time
from jobs.output.lease import hold_lease
with hold_lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def elsewhere(directory: Path, **changes: Any) -> None:
    """A lease of a driver on another machine."""
    content = {"id": "theirs", "host": "another-machine", "pid": 1, "process_started": 0.0, "heartbeat": time.time()}
    (directory / NAME).write_text(json.dumps(content | changes))


def held(directory: Path) -> Any:
    return json.loads((directory / NAME).read_text())


def test_a_lease_is_there_while_it_is_held_and_gone_afterwards(tmp_path: Path) -> None:
    with hold_lease(str(tmp_path)):
        assert (held(tmp_path)["pid"], held(tmp_path)["host"]) == (os.getpid(), socket.gethostname())
    assert os.listdir(tmp_path) == []


def test_a_lease_is_gone_after_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold_lease(str(tmp_path)):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_second_driver_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with hold_lease(str(tmp_path)):
        before = held(tmp_path)
        with (
            pytest.raises(RefusedError, match=f"another driver is writing to {tmp_path} \\(process {os.getpid()} on "),
            hold_lease(str(tmp_path)),
        ):
            pass
        assert held(tmp_path)["id"] == before["id"]


def test_of_many_drivers_that_come_at_once_one_is_let_in(tmp_path: Path) -> None:
    for attempt in range(5):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        start, done = threading.Barrier(8), threading.Barrier(8)

        def compete(directory: Path = directory, start: Any = start, done: Any = done) -> bool:
            start.wait()
            try:
                with hold_lease(str(directory)):
                    done.wait()
                    return True
            except RefusedError:
                done.wait()
                return False

        with ThreadPoolExecutor(8) as drivers:
            let_in = [one.result() for one in [drivers.submit(compete) for _ in range(8)]]
        assert let_in.count(True) == 1


def test_the_lease_of_a_killed_driver_is_taken_over_at_once(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    with driver:
        assert driver.stdout.readline() == "held\n"
        with pytest.raises(RefusedError, match=f"process {driver.pid}"), hold_lease(str(tmp_path)):
            pass
        driver.kill()
    assert held(tmp_path)["pid"] == driver.pid
    with hold_lease(str(tmp_path)):
        assert held(tmp_path)["pid"] == os.getpid()


def test_a_process_that_has_the_number_of_a_dead_driver_is_not_taken_for_it(tmp_path: Path) -> None:
    elsewhere(tmp_path, host=socket.gethostname(), pid=os.getpid(), process_started=1_000_000.0)
    with hold_lease(str(tmp_path)):
        assert held(tmp_path)["id"] != "theirs"


def test_a_clock_that_is_set_does_not_kill_a_driver(tmp_path: Path) -> None:
    """psutil derives a process's start from the time of boot, which moves with the clock."""
    with hold_lease(str(tmp_path)):
        content = held(tmp_path)
        elsewhere(tmp_path, **content | {"process_started": content["process_started"] + 0.5})
        with pytest.raises(RefusedError), hold_lease(str(tmp_path)):
            pass


def test_a_beating_lease_of_another_machine_is_respected(tmp_path: Path) -> None:
    elsewhere(tmp_path, heartbeat=time.time() - STALE_SECONDS / 2)
    with pytest.raises(RefusedError, match="on another-machine"), hold_lease(str(tmp_path)):
        pass
    assert held(tmp_path)["id"] == "theirs"


def test_a_silent_lease_of_another_machine_is_taken_over(tmp_path: Path) -> None:
    elsewhere(tmp_path, heartbeat=time.time() - STALE_SECONDS - 1)
    with hold_lease(str(tmp_path)):
        assert held(tmp_path)["host"] == socket.gethostname()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_lease_that_was_never_written_whole_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with hold_lease(str(tmp_path)):
        assert held(tmp_path)["pid"] == os.getpid()


def test_the_heart_beats_and_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    calls: list[float] = []
    with hold_lease(str(tmp_path)) as mine:
        mine.on_heartbeat = lambda: calls.append(held(tmp_path)["heartbeat"])
        wait_until(lambda: len(calls) >= 3)
    assert calls == sorted(calls)
    assert len(set(calls)) == len(calls)


def test_the_heart_goes_on_after_a_beat_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    calls: list[int] = []

    def full_disk_at_first() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise OSError(28, "No space left on device")

    with hold_lease(str(tmp_path)) as mine:
        mine.on_heartbeat = full_disk_at_first
        wait_until(lambda: len(calls) >= 5)


def test_an_error_is_not_hidden_by_a_lease_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def fail_while_the_disk_is_full() -> None:
        with hold_lease(str(tmp_path)):
            monkeypatch.setattr(lease, "write_json", full_disk)
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_the_disk_is_full()


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
