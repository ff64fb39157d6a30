"""Ends a server: HAProxy refuses new requests, and those under way are answered."""

from __future__ import annotations

import csv
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

DRAIN_SECONDS = 60.0
"""Time in which requests under way are answered when the server ends."""


def drain(app: str) -> None:
    """Returns when all that was asked of the app is answered; new connections are refused from the first moment."""
    from ray import serve

    proxies = list(processes("haproxy"))
    if not proxies:  # not our Ray, or one without HAProxy
        serve.delete(app)
        serve.shutdown()  # type: ignore[no-untyped-call]
        return
    # Serve's own way takes 30 s and answers 404 meanwhile. After SIGUSR1 HAProxy refuses connections and closes each
    # after its answer; Serve's controller must not see that, since it would start another one.
    for controller in processes("ray::ServeController"):
        with suppress(psutil.NoSuchProcess):
            controller.suspend()
    path = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    with suppress(ConnectionError), socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(next(path.parent.rglob(path.name))))  # in a folder per node
        ask_haproxy(admin, "prompt")  # keeps the connection, which there is no other way to after SIGUSR1
        for proxy in proxies:
            with suppress(psutil.NoSuchProcess):  # one that a reload replaced may end at this moment
                proxy.send_signal(signal.SIGUSR1)
        end = time.monotonic() + DRAIN_SECONDS
        while under_way(ask_haproxy(admin, "show stat")) and time.monotonic() < end:
            time.sleep(0.1)


def processes(name: str) -> Iterator[psutil.Process]:
    """This process's descendants whose name begins with `name`; Ray appends to it what an actor does at the moment."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(name):
                yield process


def ask_haproxy(admin: socket.socket, command: str) -> str:
    """HAProxy's answer up to its next prompt."""
    admin.sendall(f"{command}\n".encode())
    answer = b""
    while not answer.endswith(b"\n> "):
        part = admin.recv(65_536)
        if not part:
            raise ConnectionError("HAProxy has ended")
        answer += part
    return answer.decode()


def under_way(statistics: str) -> int:
    """Requests that wait for their answer, by HAProxy's table; connections without one are not counted."""
    rows = csv.DictReader(statistics.removeprefix("# ").splitlines())
    return sum(int(row["scur"]) for row in rows if row["svname"] == "BACKEND")
