"""`_lease.json`: lets only one driver at a time into an output directory, as long as its heart beats.

A driver that was killed leaves its lease behind. Its death is seen at once on the same machine (its process is gone),
and by whoever shares the machine's kernel (its lock on LOCK is gone). From elsewhere the lease counts as abandoned when
it stands still while the watcher waits for STALE_SECONDS. No two clocks are ever compared.

Each beat takes the place of the beat before it, and of nothing else. So a driver that was suspended, and whose lease
another has taken meanwhile, finds that out with its next beat, or before the next thing that it would write: it stops
and touches nothing more.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from filelock import FileLock, Timeout

from jobs.errors import RefusedError, StoppedError
from jobs.output.holder import Holder, content_of, holder_in, lives_here, this_driver
from jobs.runtime.signals import Interruption, interrupt_main
from jobs.storage import read, remove, swap
from pipelines.errors import ConfigError
from pipelines.stores import is_uri

NAME = "_lease.json"
LOCK = "_lease.lock"
"""On disks, a file that the driver holds locked as long as its process lives."""
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
WRITING_SECONDS = 0.2
BEATS_TO_WATCH = 3
"""For how many beats `crossray inspect` watches the lease of another machine."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a lease is renewed, and how long it has to stand still until another driver may take it."""

    heartbeat_seconds: float = HEARTBEAT_SECONDS
    stale_seconds: float = STALE_SECONDS


USUAL_PACE = Pace()


class LostLease(Interruption):
    """Another driver has this one's lease, or it is gone."""


class Lease:
    """A lease that is held; `on_heartbeat` is called every few seconds and once at the end."""

    on_heartbeat: Callable[[], None] | None = None

    def __init__(self, path: str, holder: Holder, pace: Pace) -> None:
        self.path = path
        self.holder = holder
        self.pace = pace
        self.written = content_of(holder)
        """What stands in the file, as far as this driver knows."""
        self.renewed = seconds_since_boot()
        self.lost: str | None = None
        """Why it is no longer this driver's."""
        self.turn = threading.Lock()

    def beat(self) -> None:
        """Renews the lease. A beat that cannot be written is left out: of a full disk the job itself tells."""
        self._renew()
        if self.lost is None and self.on_heartbeat is not None:
            with suppress(OSError, LostLease):
                self.on_heartbeat()

    def check(self) -> None:
        """Raises LostLease when the lease is another's by now. To be called before what only one driver may write."""
        if self.lost is None and not self.is_fresh():
            self._renew()
        if self.lost is not None:
            raise LostLease(self.lost)
        if not self.is_fresh():
            raise LostLease("this driver could not renew its lease for too long, and another may have taken it")

    def is_fresh(self) -> bool:
        """Whether it was renewed so lately that no other driver can have taken it."""
        return seconds_since_boot() - self.renewed < self.pace.stale_seconds / 2

    def _renew(self) -> None:
        with self.turn, suppress(OSError):
            if self.lost is not None:
                return
            began = seconds_since_boot()
            content = content_of(self.holder, time.time())
            if not swap(self.path, self.written, content):
                self._understand(read_if_there(self.path))
            elif seconds_since_boot() - began > self.pace.stale_seconds / 2:
                self.lost = "this driver stood still while it renewed its lease, and another may have taken it"
            else:
                self.written, self.renewed = content, began

    def _understand(self, found: bytes | None) -> None:
        """Finds out why the file does not hold what this driver wrote last, and whether the lease is lost."""
        holder = None
        with suppress(RefusedError):
            holder = holder_in(found, self.path)
        if found is not None and holder is not None and holder.id == self.holder.id:
            self.written = found  # an earlier beat of ours, of whose success we never heard
        elif holder is not None:
            self.lost = f"process {holder.pid} on {holder.host} took it over while this driver could not renew it"
        else:
            self.lost = f"{self.path} is gone: another driver has come and gone, or somebody removed it"


@contextmanager
def hold_lease(directory: str, tell: Callable[[str], None] | None = None, pace: Pace = USUAL_PACE) -> Iterator[Lease]:
    """Holds the output directory; `tell` hears why that takes a while.

    Raises RefusedError when another driver has it, StoppedError when another driver took it over meanwhile.
    """
    path = os.path.join(directory, NAME)
    with locked(directory) as lock:
        if lock is Locked.BY_ANOTHER:
            raise in_use(directory, holder_in(read_if_there(path), path))
        holder = this_driver(has_lock=lock is Locked.HERE)
        acquire(path, holder, pace, tell)
        lease = Lease(path, holder, pace)
        stop = threading.Event()
        thread = threading.Thread(target=keep_beating, args=(lease, stop), name="lease", daemon=True)
        thread.start()
        try:
            yield lease
        except (LostLease, SystemExit) as lost:  # an exit is what Ray makes of a SIGTERM while it starts
            if isinstance(lost, SystemExit) and lease.lost is None:
                raise
            raise StoppedError(f"{directory} is no longer this driver's: {lease.lost or lost}") from None
        finally:
            stop.set()
            thread.join()
            let_go(lease)


def keep_beating(lease: Lease, stop: threading.Event) -> None:
    """Renews a lease until the end, and interrupts the main thread when it is lost."""
    while not stop.wait(lease.pace.heartbeat_seconds):
        lease.beat()
        if lease.lost is not None:
            interrupt_main(partial(LostLease, lease.lost))
            return


def let_go(lease: Lease) -> None:
    """Removes the lease, unless it is another's."""
    lease.beat()
    if lease.lost is None and lease.is_fresh():
        with suppress(OSError):
            remove(lease.path)


class Locked(StrEnum):
    """Who has the lock on LOCK."""

    HERE = "here"
    BY_ANOTHER = "by another"
    NOBODY = "nobody"
    """Object stores have no locks, and neither have some disks."""


@contextmanager
def locked(directory: str) -> Iterator[Locked]:
    """Locks the directory as far as its storage can, and says who has it."""
    if is_uri(directory):
        yield Locked.NOBODY
        return
    path = os.path.join(directory, LOCK)
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield Locked.BY_ANOTHER
        return
    except OSError:
        yield Locked.NOBODY
        return
    try:
        yield Locked.HERE
    finally:
        with suppress(OSError):
            os.unlink(path)  # while it is locked: who has opened it already finds that it has no name, and opens anew
        lock.release()


def acquire(path: str, mine: Holder, pace: Pace = USUAL_PACE, tell: Callable[[str], None] | None = None) -> None:
    """Writes the lease unless a living driver holds one. Of several drivers that find it abandoned, one gets it.

    Raises RefusedError for the others, and while a living driver holds it; ConfigError where we may not write.
    """
    content = content_of(mine)
    try:
        if swap(path, None, content):
            return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        why = f"{os.path.dirname(path)} may not be written by this user ({error.strerror})"
        raise ConfigError(f"{why}; let it, or give another directory") from error
    found = read_if_there(path)
    if found is not None and holder_in(found, path) is None:
        time.sleep(WRITING_SECONDS)  # an earlier version may be about to write it
        found = read_if_there(path)
    holder = holder_in(found, path)
    if holder is not None:
        lives = lives_here(holder, has_lock=mine.locked)
        if lives is None:
            if tell is not None:
                tell(f"process {holder.pid} on {holder.host}; watching its lease for {pace.stale_seconds:.0f} s")
            last = watched(path, found, pace.stale_seconds)
            lives, found = last is not None and last != found, last
        if lives:
            raise in_use(os.path.dirname(path), holder)
    if not swap(path, found, content):
        raise RefusedError(f"another driver took over {os.path.dirname(path)} at this moment; wait for it")


def in_use(directory: str, holder: Holder | None) -> RefusedError:
    """The error of a driver that comes second."""
    who = "" if holder is None else f" (process {holder.pid} on {holder.host})"
    return RefusedError(f"another driver is writing to {directory}{who}; wait for it or stop it")


def is_held(path: str, found: bytes | None, pace: Pace = USUAL_PACE) -> bool:
    """Whether the driver of the lease that was found there lives; one of another machine is watched for some beats.

    Raises RefusedError for a file that is no lease.
    """
    holder = holder_in(found, path)
    if holder is None:
        return False
    lives = lives_here(holder, has_lock=False)
    if lives is None:
        last = watched(path, found, BEATS_TO_WATCH * pace.heartbeat_seconds)
        return last is not None and last != found
    return lives


def watched(path: str, found: bytes | None, seconds: float) -> bytes | None:
    """Waits until a lease is no longer what was found, or for so many seconds, and returns what it is then."""
    end = seconds_since_boot() + seconds
    while (left := end - seconds_since_boot()) > 0:
        time.sleep(min(left, HEARTBEAT_SECONDS / 5))
        now = read_if_there(path)
        if now != found:
            return now
    return found


def read_if_there(path: str) -> bytes | None:
    """The content of the lease; None when there is none."""
    try:
        return read(path)
    except FileNotFoundError:
        return None


def seconds_since_boot() -> float:
    """A clock that nobody sets, and that goes on while a machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
