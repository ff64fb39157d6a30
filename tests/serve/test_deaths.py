"""A process that died is a line in the terminal."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from serve.deaths import HAProxyWatch, line_of, running

RAYS = """A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the \
problem, check the logs for the dead worker. Lease ID: 0100 Worker ID: 5e6f Node ID: 9a Worker IP address: 1.2.3.4 \
Worker port: 17 Worker PID: 4711 Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a \
connection error code 2. End of file. There are some potential root causes. (1) The process is killed by SIGKILL by \
OOM killer due to high memory usage. (2) ray stop --force is called.
"""


@pytest.mark.parametrize("causes", ["There are some potential root causes.", "Some common causes include:"])
def test_a_page_of_rays_becomes_a_line_that_says_who_died(causes: str) -> None:
    said = RAYS.replace("There are some potential root causes.", causes)
    line = line_of(said, lambda: {4711: "SERVE_REPLICA::crossray#Scorer#a1b2", 1: "other"})
    assert line == (
        "a process of Scorer died (process 4711) and is being replaced: "
        "Worker unexpectedly exits with a connection error code 2. End of file"
    )


def test_the_process_may_be_nobody_that_is_known() -> None:
    assert line_of(RAYS, dict).startswith("a process of Ray died (process 4711) and is being replaced: ")
    named = line_of(RAYS, lambda: {4711: "SERVE_CONTROLLER_ACTOR"})
    assert named.startswith("Serve's controller died (process 4711)")


def test_anything_else_that_ray_says_is_a_line_of_bounded_length() -> None:
    assert line_of("Too many\nthings.\n", dict) == "Ray: Too many things."
    assert len(line_of("word " * 1000, dict)) < 220


class Fake(psutil.Process):
    """A process of an age."""

    def __init__(self, pid: int, born: float) -> None:
        self._pid = pid
        self._ident = (pid, born)
        self.born = born

    def create_time(self) -> float:
        return self.born


def test_a_haproxy_that_died_is_said_once_and_a_reload_is_none() -> None:
    first, second, third = Fake(1, 1.0), Fake(2, 2.0), Fake(3, 3.0)
    watch = HAProxyWatch()
    seen = [[], [first], [first, second], [second], [second, third], [second], [second], [], []]  # 3 dies, 2 ends late
    lines = [watch.look(list(living)) for living in seen]
    assert [line for line in lines if line] == [
        "HAProxy died (process 3) and is being replaced: connections are refused meanwhile"
    ]
    assert lines[5]
    assert watch.look([Fake(4, 4.0)]) is None
    assert (watch.look([]) or "").startswith("HAProxy died (process 4)")


def test_a_process_that_died_and_was_not_taken_note_of_does_not_run() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = psutil.Process(child.pid).name()
        assert child.pid in [one.pid for one in running(name)]
        child.kill()
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        assert child.pid not in [one.pid for one in running(name)]
