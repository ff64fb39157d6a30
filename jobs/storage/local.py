"""Local disks, and those that nodes share: a file is written under a hidden name, synced and renamed."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import StoreError
from jobs.records import InputFile
from jobs.storage.files import MAGIC, TEMPORARY_SUFFIX, Candidate, is_hidden, is_hidden_directory, is_visible
from jobs.storage.parquet import OpenParquet

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
        path = Path(pattern)
        if path.is_file():
            found = {str(path): True}
        elif path.is_dir():
            found = dict.fromkeys(names_below(path), False)
        else:
            check_listable(path)
            matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
            directories = [match for match in matches if match.is_dir() and not is_hidden_directory(match.name)]
            found = dict.fromkeys((name for directory in directories for name in names_below(directory)), False)
            found |= {str(match): True for match in matches if match.is_file() and not is_hidden(match.name)}
        described = [(name, self.find(name), is_named) for name, is_named in found.items()]
        for name, file, _ in described:
            if file is None and not os.path.lexists(name) and is_away(name):
                raise StoreError(f"{name} and all that was beside it went away while {pattern} was listed")
        return [Candidate(file, is_named) for _, file, is_named in described if file is not None]

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


def names_below(root: Path) -> list[str]:
    """The visible names in a directory, at any depth: those of files, and of directories."""
    return [str(path) for path in root.rglob("*") if is_visible(path.relative_to(root).parts)]


def check_listable(pattern: Path) -> None:
    """Raises OSError when a directory that a pattern leads through is away, which `glob` would take for empty."""
    parts = pattern.parts
    first = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    for length in range(first, len(parts)):
        for directory in glob.glob(os.path.join("", *parts[:length]), recursive=True):
            try:
                os.scandir(directory).close()
                if not glob.has_magic(parts[length]):
                    os.stat(os.path.join(directory, parts[length]))
            except OSError as error:
                if error.errno not in FAULTS_OF_FILES:
                    raise


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
