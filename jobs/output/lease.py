"""`_lease.json`: lets only one driver at a time into an output directory, as long as its heart beats.

A driver that was killed leaves its lease behind. On the same machine its death is seen at once (process id and start
time); from another machine the lease counts as abandoned when its heartbeat stands still for STALE_SECONDS.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from jobs.errors import RefusedError
from jobs.storage import read, remove, swap, to_json, write_json

NAME = "_lease.json"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
SETTLE_SECONDS = 0.2
CLOCK_SECONDS = 2.0
"""A process's start is told by the clock at boot, which moves a little when the clock is set."""


class Lease:
    """A lease that is held; `on_heartbeat` is called every few seconds and once at the end."""

    on_heartbeat: Callable[[], None] | None = None

    def beat(self, path: str, content: dict[str, Any]) -> None:
        """Writes the lease anew. A beat that cannot be written is left out: of a full disk the job itself tells."""
        with suppress(OSError):
            write_json(path, content | {"heartbeat": time.time()})
            if self.on_heartbeat is not None:
                self.on_heartbeat()


@contextmanager
def hold_lease(directory: str) -> Iterator[Lease]:
    """Holds the output directory; raises RefusedError when another driver has it."""
    path = os.path.join(directory, NAME)
    content = {
        "id": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
    }
    acquire(path, content)
    lease = Lease()
    stop = threading.Event()

    def keep_beating() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            lease.beat(path, content)

    thread = threading.Thread(target=keep_beating, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join()
        lease.beat(path, content)
        with suppress(OSError):
            remove(path)


def acquire(path: str, content: dict[str, Any]) -> None:
    """Writes the lease unless a living driver holds one. Of several drivers that find it abandoned, one gets it.

    Raises RefusedError for the others, and while a living driver holds it.
    """
    mine = to_json(content | {"heartbeat": time.time()})
    if swap(path, None, mine):
        return
    found = read_if_there(path)
    if parsed(found) is None:
        time.sleep(SETTLE_SECONDS)  # it may be created at this moment
        found = read_if_there(path)
    holder = parsed(found)
    if holder is not None and is_alive(holder):
        raise RefusedError(
            f"another driver is writing to {os.path.dirname(path)} (process {holder['pid']} on {holder['host']}); "
            f"wait for it or stop it; if that machine is gone, try again in {STALE_SECONDS:.0f} s"
        )
    if not swap(path, found, mine):
        raise RefusedError(f"another driver took over {os.path.dirname(path)} at this moment; wait for it")


def read_if_there(path: str) -> bytes | None:
    """The content of the lease; None when there is none."""
    try:
        return read(path)
    except FileNotFoundError:
        return None


def parsed(content: bytes | None) -> dict[str, Any] | None:
    """The holder of the lease; None when there is none, or when it was never written whole."""
    try:
        holder = json.loads(content or b"")
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the driver of this lease still runs, as far as can be seen from here."""
    if holder["host"] == socket.gethostname():
        try:
            process = psutil.Process(holder["pid"])
            same = abs(process.create_time() - holder["process_started"]) < CLOCK_SECONDS
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False
    return time.time() - float(holder["heartbeat"]) < STALE_SECONDS
