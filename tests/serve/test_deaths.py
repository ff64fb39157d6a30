"""A process that died is a line in the terminal."""

from __future__ import annotations

from serve.deaths import line_of

RAYS = """A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the \
problem, check the logs for the dead worker. Lease ID: 0100 Worker ID: 5e6f Node ID: 9a Worker IP address: 1.2.3.4 \
Worker port: 17 Worker PID: 4711 Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a \
connection error code 2. End of file. There are some potential root causes. (1) The process is killed by SIGKILL by \
OOM killer due to high memory usage. (2) ray stop --force is called.
"""


def test_a_page_of_rays_becomes_a_line_that_says_who_died() -> None:
    line = line_of(RAYS, lambda: {4711: "SERVE_REPLICA::crossray#Scorer#a1b2", 1: "other"})
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
