"""One driver at a time per output directory."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import RefusedError, StoppedError
from jobs.output.lease import NAME, USUAL_PACE, Pace, hold_lease

HOLD = """
import os, sys, time
from jobs.output.lease import Pace, hold_lease
from jobs.runtime.signals import signals_as_exceptions
from jobs.errors import StoppedError
try:
    with signals_as_exceptions(), hold_lease(sys.argv[1], pace=Pace(*map(float, sys.argv[2:]))):
        print("held", flush=True)
        time.sleep(600)
except StoppedError as error:
    print(error)
"""
FAST = Pace(heartbeat_seconds=0.05, stale_seconds=2.0)


@contextmanager
def driver(directory: Path, pace: Pace = USUAL_PACE) -> Iterator[subprocess.Popen[str]]:
    """A driver in a process of its own."""
    command = [sys.executable, "-c", HOLD, str(directory), str(pace.heartbeat_seconds), str(pace.stale_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "held\n"
            yield started
        finally:
            started.kill()


def pause(started: subprocess.Popen[str]) -> None:
    """Suspends a driver."""
    started.send_signal(signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def elsewhere(directory: Path, **changes: Any) -> None:
    """A lease of a driver on another machine."""
    content = {"id": "theirs", "host": "another-machine", "pid": 1, "heartbeat": time.time(), "boot": "another"}
    (directory / NAME).write_text(json.dumps(content | changes))


@contextmanager
def beating_elsewhere(directory: Path, **changes: Any) -> Iterator[None]:
    """A driver on another machine, alive."""
    stop = threading.Event()

    def beat() -> None:
        beats = itertools.count()
        while not stop.wait(0.05):
            elsewhere(directory, beat=next(beats), **changes)

    elsewhere(directory, **changes)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
    with driver(tmp_path) as other:
        with pytest.raises(RefusedError, match=f"process {other.pid}"), hold_lease(str(tmp_path)):
            pass
        other.kill()
    assert held(tmp_path)["pid"] == other.pid
    with hold_lease(str(tmp_path), never_told):
        assert held(tmp_path)["pid"] == os.getpid()


def never_told(message: str) -> None:
    raise AssertionError(f"waits: {message}")


def test_a_killed_driver_of_another_container_is_known_by_its_lock(tmp_path: Path) -> None:
    """Process numbers say nothing across containers, but one kernel knows who holds a lock."""
    with hold_lease(str(tmp_path)):
        theirs = held(tmp_path) | {"id": "theirs", "processes": "pid:[1]"}
    elsewhere(tmp_path, **theirs)
    with hold_lease(str(tmp_path), never_told):
        assert held(tmp_path)["id"] != "theirs"


def test_a_process_that_has_the_number_of_a_dead_driver_is_not_taken_for_it(tmp_path: Path) -> None:
    with hold_lease(str(tmp_path)):
        theirs = held(tmp_path) | {"id": "theirs", "started": 1}
    elsewhere(tmp_path, **theirs)
    with hold_lease(str(tmp_path), never_told):
        assert held(tmp_path)["id"] != "theirs"


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_a_beating_lease_of_another_machine_is_respected_whatever_its_clock_says(tmp_path: Path, ahead: float) -> None:
    with (
        beating_elsewhere(tmp_path, heartbeat=time.time() + ahead),
        pytest.raises(RefusedError, match="on another-machine"),
        hold_lease(str(tmp_path), pace=FAST),
    ):
        pass
    assert held(tmp_path)["id"] == "theirs"


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_a_lease_of_another_machine_that_stands_still_is_taken_over(tmp_path: Path, ahead: float) -> None:
    elsewhere(tmp_path, heartbeat=time.time() + ahead)
    told: list[str] = []
    with hold_lease(str(tmp_path), told.append, FAST):
        assert held(tmp_path)["host"] == socket.gethostname()
    assert told == ["process 1 on another-machine; watching its lease for 2 s"]


def test_a_machine_of_the_same_name_is_another_machine(tmp_path: Path) -> None:
    """Containers and clones share a name, so that a process number of theirs means nothing here."""
    with (
        beating_elsewhere(tmp_path, host=socket.gethostname(), pid=2**22 + 1),
        pytest.raises(RefusedError),
        hold_lease(str(tmp_path), pace=FAST),
    ):
        pass
    assert held(tmp_path)["id"] == "theirs"


def test_a_driver_whose_lease_was_taken_stops_and_touches_nothing(tmp_path: Path) -> None:
    with driver(tmp_path, FAST) as paused:
        pause(paused)
        elsewhere(tmp_path)
        before = (tmp_path / NAME).read_bytes()
        paused.send_signal(signal.SIGCONT)
        said, _ = paused.communicate(timeout=30)
    assert said.startswith(f"{tmp_path} is no longer this driver's: process 1 on another-machine took it over")
    assert (tmp_path / NAME).read_bytes() == before


def test_a_driver_whose_lease_is_gone_stops_and_writes_none(tmp_path: Path) -> None:
    """Another has come, has done the job and has gone."""
    with driver(tmp_path, FAST) as paused:
        pause(paused)
        (tmp_path / NAME).unlink()
        paused.send_signal(signal.SIGCONT)
        said, _ = paused.communicate(timeout=30)
    assert f"{tmp_path / NAME} is gone" in said
    assert not (tmp_path / NAME).exists()


def test_what_only_one_driver_may_write_is_not_written_after_a_pause(tmp_path: Path) -> None:
    """The main thread may be the first that runs again; no beat has told it yet."""

    def wake_up_and_write() -> None:
        with hold_lease(str(tmp_path), pace=Pace(heartbeat_seconds=600.0, stale_seconds=0.2)) as mine:
            time.sleep(0.2)
            elsewhere(tmp_path)
            mine.check()

    with pytest.raises(StoppedError, match="on another-machine took it over"):
        wake_up_and_write()
    assert held(tmp_path)["id"] == "theirs"


def test_a_beat_that_succeeded_without_an_answer_is_no_loss(tmp_path: Path) -> None:
    with hold_lease(str(tmp_path), pace=Pace(600.0, 60.0)) as mine:
        mine.written = b"what stood there before"
        mine.beat()
        mine.beat()
        assert mine.lost is None
        assert (tmp_path / NAME).read_bytes() == mine.written


@pytest.mark.parametrize("content", ["", "{"])
def test_a_lease_that_was_never_written_whole_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with hold_lease(str(tmp_path)):
        assert held(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["{}", "[]", '{"id": 1, "host": "a", "pid": "b", "heartbeat": 0}'])
def test_a_file_that_is_no_lease_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with (
        pytest.raises(RefusedError, match=f"{NAME} is no lease of a driver: .*; remove it if"),
        hold_lease(str(tmp_path)),
    ):
        pass
    assert (tmp_path / NAME).read_text() == content


def test_a_lease_is_whole_from_its_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks while it is created sees nothing or all of it, also where the driver dies in between."""
    seen: list[str] = []
    link = os.link

    def look_then_link(source: str, target: str) -> None:
        seen.extend(os.listdir(tmp_path))
        link(source, target)

    monkeypatch.setattr(os, "link", look_then_link)
    with hold_lease(str(tmp_path)):
        assert NAME not in seen
        assert held(tmp_path)["pid"] == os.getpid()


def test_a_disk_without_hard_links_has_leases_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with hold_lease(str(tmp_path)):
        with pytest.raises(RefusedError), hold_lease(str(tmp_path)):
            pass
        assert held(tmp_path)["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_the_heart_beats_and_calls(tmp_path: Path) -> None:
    calls: list[float] = []
    with hold_lease(str(tmp_path), pace=FAST) as mine:
        mine.on_heartbeat = lambda: calls.append(held(tmp_path)["heartbeat"])
        wait_until(lambda: len(calls) >= 3)
    assert calls == sorted(calls)
    assert len(set(calls)) == len(calls)


def test_the_heart_goes_on_after_a_beat_that_could_not_be_written(tmp_path: Path) -> None:
    calls: list[int] = []

    def full_disk_at_first() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise OSError(28, "No space left on device")

    with hold_lease(str(tmp_path), pace=FAST) as mine:
        mine.on_heartbeat = full_disk_at_first
        wait_until(lambda: len(calls) >= 5)


def test_an_error_is_not_hidden_by_a_lease_that_cannot_be_written(tmp_path: Path) -> None:
    def fail_without_a_disk() -> None:
        with hold_lease(str(tmp_path)):
            shutil.rmtree(tmp_path)
            raise KeyError

    with pytest.raises(KeyError):
        fail_without_a_disk()


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
