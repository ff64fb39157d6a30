"""Local disks, and those that nodes share: a file is written under a hidden name, synced and renamed."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from jobs.errors import StoreError
from jobs.records import FAULT, InputFile
from jobs.storage.files import (
    MAGIC,
    TEMPORARY_SUFFIX,
    Candidate,
    fixed_start,
    how_matched,
    is_hidden,
    is_hidden_directory,
)
from jobs.storage.parquet import OpenParquet

MAY_NOT_BE_LISTED = f"{FAULT}we may not list this directory; change its permissions, or leave it out of INPUT"
SETTLE_SECONDS = 0.2
"""Within which a file that two drivers write at once has its last content."""
FAULTS_OF_FILES = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
"""What an operating system says of a file. All else, as EIO or ESTALE, is said of the disk or of a full process."""
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What disks say that know no hard links."""
WITHOUT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""What disks say that know no sync of a directory."""


class LocalDisk:
    """All local disks, and those that nodes share: whatever has a path."""

    def candidates(self, pattern: str) -> list[Candidate]:
        path, closed = Path(pattern), set[str]()
        if self.find(pattern) is not None:
            found = {str(path): True}
        elif self.is_directory(pattern):
            found = dict.fromkeys(names_below(str(path), closed), False)
        elif "**" in path.parts and not any(map(is_hidden, path.parts)):
            # Not by `glob`, to which links that lead in circles are directories without end.
            below = names_below(os.path.dirname(fixed_start(str(path))), closed, hidden_too=True)
            found = {name: how for name in below if (how := how_matched(name, str(path))) is not None}
        else:
            closed |= closed_on_the_way(path)
            matches = {str(one): one.name for one in map(Path, glob.glob(pattern, recursive=True))}
            directories = {match for match in matches if self.is_directory(match)}
            visible = [one for one in matches if one in directories and not is_hidden_directory(matches[one])]
            found = dict.fromkeys((name for one in visible for name in names_below(one, closed)), False)
            files = [match for match in matches if match not in directories and not is_hidden(matches[match])]
            found |= dict.fromkeys(files, True)
            found = {name: found[name] for name in once_each(found)}
        described = [(name, self.find(name) or unseen(name), is_named) for name, is_named in found.items()]
        for name, file, _ in described:
            if file is None and not os.path.lexists(name) and is_away(name):
                raise StoreError(f"{name} and all that was beside it went away while {pattern} was listed")
        seen = [Candidate(file, is_named) for _, file, is_named in described if file is not None]
        return seen + [Candidate(InputFile(name, 0, MAY_NOT_BE_LISTED), is_named=True) for name in closed]

    def find(self, location: str) -> InputFile | None:
        found = stat_if_there(location)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        return InputFile(location, found.st_size, str(found.st_mtime_ns))

    def inode(self, location: str) -> int | None:
        found = stat_if_there(location)
        return None if found is None else found.st_ino

    def is_directory(self, location: str) -> bool:
        found = stat_if_there(location)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def make_directory(self, location: str) -> None:
        os.makedirs(location, exist_ok=True)

    def names(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def read(self, location: str) -> bytes:
        return Path(location).read_bytes()

    def read_ends(self, file: InputFile) -> tuple[bytes, bytes]:
        with open(file.path, "rb") as content:
            head = content.read(len(MAGIC))
            content.seek(-len(MAGIC), os.SEEK_END)
            return head, content.read()

    def open_parquet(self, location: str, check_pages: bool, dictionaries: Sequence[str] = ()) -> OpenParquet:
        return OpenParquet(
            lambda: location,
            self.find(location),
            page_checksum_verification=check_pages,
            read_dictionary=list(dictionaries),
        )

    def write(self, location: str, content: bytes) -> None:
        """Writes a file: whenever the process dies, the file holds `content` or what it held before."""
        with written_aside(location, content) as temporary:
            os.replace(temporary, location)
        sync_directory(os.path.dirname(location))

    def swap(self, location: str, before: bytes | None, after: bytes) -> bool:
        """Does what `jobs.storage.swap` says; of two processes that find `before`, the last to write is told True."""
        if before is None:
            return self._create(location, after)
        with written_aside(location, after) as temporary:  # so that there is next to no time between look and rename
            if not self._holds(location, before):
                return False
            os.replace(temporary, location)
        time.sleep(SETTLE_SECONDS)
        return self._holds(location, after)

    def _holds(self, location: str, content: bytes) -> bool:
        try:
            return self.read(location) == content
        except FileNotFoundError:
            return False

    def _create(self, location: str, content: bytes) -> bool:
        """Makes a file that is whole from its first moment; returns False where there is one already."""
        with written_aside(location, content) as temporary:
            try:
                os.link(temporary, location)
            except FileExistsError:
                return os.stat(temporary).st_nlink > 1  # made all the same, when only a server's answer got lost
            except OSError as error:
                if error.errno not in WITHOUT_LINKS:
                    raise
                return create_by_name(location, content)
        return True

    def remove(self, locations: Sequence[str]) -> None:
        for location in locations:
            Path(location).unlink(missing_ok=True)

    def remove_below(self, directory: str) -> None:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def written_aside(location: str, content: bytes) -> Iterator[str]:
    """Writes the content under a hidden name beside `location`, which it gives to a block and removes after it."""
    temporary = temporary_name(location)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        Path(temporary).unlink(missing_ok=True)


def create_by_name(location: str, content: bytes) -> bool:
    """Makes a file on a disk without hard links; returns False where there is one already."""
    try:
        with open(location, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def sync_directory(directory: str) -> None:
    """Brings the names in a directory to the disk: a renamed file keeps its new name when the power fails."""
    try:
        descriptor = os.open(directory or ".", os.O_RDONLY)
    except PermissionError:
        return  # one may write into a directory that one may not list
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in WITHOUT_SYNC:
            raise
    finally:
        os.close(descriptor)


def stat_if_there(path: str) -> os.stat_result | None:
    """What the disk says of a file or directory now; None for one that is not there or that we may not see.

    Raises OSError when the disk is away, of which nobody knows what is there.
    """
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in FAULTS_OF_FILES:
            raise
        return None


def unseen(name: str) -> InputFile | None:
    """A name that was listed, and of which the disk says nothing: a link that leads nowhere, or what we may not see."""
    try:
        os.stat(name)
    except OSError as error:
        is_loop = error.errno == errno.ELOOP and os.path.exists(os.path.realpath(name))  # forty times round a circle
        if isinstance(error, PermissionError) or (os.path.islink(name) and not is_loop):
            why = "we may not look at it" if isinstance(error, PermissionError) else "its link leads nowhere"
            return InputFile(name, 0, f"{FAULT}{why} ({error.strerror})")
    return None


def names_below(root: str, closed: set[str], *, hidden_too: bool = False) -> list[str]:
    """The visible names of files in a directory, at any depth; directories that may not be listed go into `closed`.

    Links to directories are followed, but each directory is read once: under its own name, if it lies below `root`.
    """
    found: list[str] = []
    read: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        for directory, inner, names in os.walk(waiting.pop(0), onerror=partial(note_closed, closed)):
            status = stat_if_there(directory)
            if status is None or (status.st_dev, status.st_ino) in read:
                inner.clear()
                continue
            read.add((status.st_dev, status.st_ino))
            inner[:] = sorted(name for name in inner if hidden_too or not is_hidden_directory(name))
            found += [os.path.join(directory, name) for name in names if hidden_too or not is_hidden(name)]
            waiting += [path for name in inner if os.path.islink(path := os.path.join(directory, name))]
    return found


def note_closed(closed: set[str], error: OSError) -> None:
    """Notes a directory that may not be listed, and raises what a disk says that is away."""
    if error.errno not in FAULTS_OF_FILES:
        raise error
    if isinstance(error, PermissionError):
        closed.add(str(error.filename))


def once_each(names: Iterable[str]) -> list[str]:
    """Of the names that links give one file in one directory the best: without a link, else the shortest."""
    real = {directory: os.path.realpath(directory) for directory in {os.path.dirname(name) for name in names}}
    best: dict[tuple[str, str], str] = {}
    for name in sorted(names, key=lambda one: (real[os.path.dirname(one)] != os.path.dirname(one), len(one), one)):
        directory, base = os.path.split(name)
        best.setdefault((real[directory], base), name)
    return list(best.values())


def closed_on_the_way(pattern: Path) -> set[str]:
    """The directories that a pattern leads through and that may not be listed, which `glob` would take for empty.

    Raises OSError when one of them is away.
    """
    closed: set[str] = set()
    parts = pattern.parts
    first = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    for length in range(first, len(parts)):
        for directory in glob.glob(os.path.join("", *parts[:length]), recursive=True):
            try:
                if glob.has_magic(parts[length]):
                    os.scandir(directory).close()
                else:
                    os.stat(os.path.join(directory, parts[length]))
            except OSError as error:
                note_closed(closed, error)
    return closed


def is_away(path: str) -> bool:
    """Whether a missing file lay in a directory that is gone or empty, as when a disk is not mounted."""
    try:
        with os.scandir(os.path.dirname(path)) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def temporary_name(path: str) -> str:
    """A hidden name beside `path` that no other writer takes; it is short, since `path` may be as long as can be."""
    return os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
