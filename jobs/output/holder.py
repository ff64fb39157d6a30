"""The driver that a lease names: how that is written into `_lease.json`, and whether its kernel still runs it."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from jobs.errors import RefusedError
from jobs.storage import parse_json, to_json


@dataclass(frozen=True, slots=True)
class Holder:
    """The driver that a lease names."""

    id: str
    host: str
    pid: int
    heartbeat: float
    """By its own clock: for people. Whether it lives is told by whether this moves."""
    boot: str = ""
    """Of the kernel that it runs on; empty where that is not known, as in leases of earlier versions."""
    processes: str = ""
    """The namespace in which its process number counts."""
    started: int = 0
    """When its process started, in the kernel's own ticks since boot."""
    locked: bool = False
    """Whether it holds the file `_lease.lock` locked."""


def holder_in(content: bytes | None, path: str) -> Holder | None:
    """The holder of the lease; None when there is none, or when it was never written whole.

    Raises RefusedError for a file that is whole and no lease.
    """
    try:
        raw = parse_json(content or b"")
    except ValueError:
        return None
    try:
        known = {one.name for one in fields(Holder)}
        holder = Holder(**{name: value for name, value in raw.items() if name in known})
        if any(not isinstance(value, TYPES[name]) for name, value in asdict(holder).items()):
            raise TypeError
    except (TypeError, AttributeError):
        raise RefusedError(
            f"{path} is no lease of a driver: {(content or b'')[:100]!r}; remove it if no driver is at work there"
        ) from None
    return holder


TYPES = {
    "id": str,
    "host": str,
    "pid": int,
    "heartbeat": int | float,
    "boot": str,
    "processes": str,
    "started": int,
    "locked": bool,
}
"""Of a lease's fields, by name."""


def content_of(holder: Holder, now: float | None = None) -> bytes:
    """The lease as it is written; the same time never comes twice, so that each beat is like no other."""
    beat = {} if now is None else {"heartbeat": now, "beat": uuid.uuid4().hex}
    return to_json(asdict(holder) | beat)


def this_driver(*, has_lock: bool) -> Holder:
    """This process, as its lease names it."""
    boot, processes = kernel()
    return Holder(
        id=uuid.uuid4().hex,
        host=socket.gethostname(),
        pid=os.getpid(),
        heartbeat=time.time(),
        boot=boot,
        processes=processes,
        started=started_at(os.getpid()) or 0,
        locked=has_lock,
    )


def lives_here(holder: Holder, *, has_lock: bool) -> bool | None:
    """Whether the driver of a lease runs, as far as its kernel can tell; None where it may run elsewhere.

    `has_lock` says that the one who asks has the lock, which a living driver would not let go.
    """
    here = this_driver(has_lock=has_lock)
    if not holder.boot or holder.boot != here.boot:
        return None
    if holder.processes == here.processes:
        return is_running(holder.pid, holder.started)
    return False if has_lock and holder.locked else None


def kernel() -> tuple[str, str]:
    """Which boot of which kernel this is, and in which namespace process numbers count; empty where it cannot be told.

    A host's name tells neither: containers and clones of a machine share it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""


def is_running(pid: int, started: int) -> bool:
    """Whether the process of this number is the one that started then."""
    now = started_at(pid)
    if now is not None:
        return now == started
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # another user's, and hidden
    except OSError:
        return False
    return False  # a zombie


def started_at(pid: int) -> int | None:
    """When a process started, in ticks since boot; None for one that is not there, cannot be seen or is a zombie."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(others[18])
