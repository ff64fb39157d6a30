"""Local disks, and those that nodes share: a file is written under a hidden name, synced and renamed."""

from __future__ import annotations

import glob
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from jobs.records import InputFile
from jobs.storage.files import MAGIC, TEMPORARY_SUFFIX, Candidate, is_hidden, is_hidden_directory, is_visible
from jobs.storage.parquet import OpenParquet

SETTLE_SECONDS = 0.2
"""Within which a file that two drivers write at once has its last content."""


class LocalDisk:
    """All local disks, and those that nodes share: whatever has a path."""

    def candidates(self, pattern: str) -> list[Candidate]:
        path = Path(pattern)
        if path.is_file():
            found = {str(path): True}
        elif path.is_dir():
            found = dict.fromkeys(files_below(path), False)
        else:
            matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
            directories = [match for match in matches if match.is_dir() and not is_hidden_directory(match.name)]
            found = dict.fromkeys((file for directory in directories for file in files_below(directory)), False)
            found |= {str(match): True for match in matches if match.is_file() and not is_hidden(match.name)}
        described = ((describe_if_there(file), is_named) for file, is_named in found.items())
        return [Candidate(file, is_named) for file, is_named in described if file is not None]

    def find(self, location: str) -> InputFile | None:
        return describe(location) if os.path.isfile(location) else None

    def is_directory(self, location: str) -> bool:
        return os.path.isdir(location)

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
            describe_if_there(location),
            page_checksum_verification=check_pages,
            read_dictionary=list(dictionaries),
        )

    def write(self, location: str, content: bytes) -> None:
        """Writes a file that has its old content or the new one whenever the process dies; an error leaves no trace."""
        temporary = temporary_name(location)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, location)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def swap(self, location: str, before: bytes | None, after: bytes) -> bool:
        """Does what `jobs.storage.swap` says, without a condition that disks do not have.

        Who replaces `before` writes, waits, and looks whose content is there: the last writer's.
        """
        if before is None:
            try:
                with open(location, "xb") as file:
                    file.write(after)
            except FileExistsError:
                return False
            return True
        self.write(location, after)
        time.sleep(SETTLE_SECONDS)
        try:
            return self.read(location) == after
        except FileNotFoundError:
            return False

    def remove(self, locations: Sequence[str]) -> None:
        for location in locations:
            Path(location).unlink(missing_ok=True)

    def remove_below(self, directory: str) -> None:
        shutil.rmtree(directory, ignore_errors=True)


def describe(path: str) -> InputFile:
    """Size and modification time of a file now."""
    stat = os.stat(path)
    return InputFile(path, stat.st_size, str(stat.st_mtime_ns))


def describe_if_there(path: str) -> InputFile | None:
    """Size and modification time of a file now; None when it was removed since it was listed."""
    try:
        return describe(path)
    except FileNotFoundError:
        return None


def files_below(root: Path) -> list[str]:
    """The visible files of a directory, at any depth."""
    return [str(file) for file in root.rglob("*") if is_visible(file.relative_to(root).parts) and file.is_file()]


def temporary_name(path: str) -> str:
    """A hidden name beside `path` that no other writer takes."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
