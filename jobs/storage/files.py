"""What every kind of storage can do, and which files a pattern finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import has_magic
from typing import Protocol

import pyarrow.parquet as pq

from jobs.records import InputFile

PARQUET_SUFFIXES = (".parquet", ".pq")
TEMPORARY_SUFFIX = ".tmp"


class Store(Protocol):
    """A disk, a bucket or a container. For each method `jobs.storage` has a function that says what it does."""

    def files(self, pattern: str) -> Sequence[InputFile]: ...

    def find(self, location: str) -> InputFile | None: ...

    def inode(self, location: str) -> int | None: ...

    def is_directory(self, location: str) -> bool: ...

    def make_directory(self, location: str) -> None: ...

    def names(self, directory: str) -> list[str]: ...

    def read(self, location: str) -> bytes: ...

    def open_parquet(self, location: str, check_pages: bool) -> pq.ParquetFile: ...

    def write(self, location: str, content: bytes) -> None: ...

    def swap(self, location: str, before: bytes | None, after: bytes) -> bool: ...

    def remove(self, locations: Sequence[str]) -> None: ...

    def remove_below(self, directory: str) -> None: ...


class ObjectStore(Store, Protocol):
    """A store that has objects with names, and no directories."""

    def starting_with(self, prefix: str) -> Iterator[InputFile]:
        """The objects whose uris start with a prefix."""

    def read_version(self, location: str) -> tuple[bytes, str]:
        """An object's content and its etag."""

    def put(self, location: str, content: bytes, etag: str | None) -> None:
        """Writes an object that has this etag now, or that is not there (None); else raises FileExistsError."""


def object_files(store: ObjectStore, pattern: str) -> list[InputFile]:
    """The files of an object, a directory or a glob, as `glob.glob` and the local disk understand it.

    The first one is asked for by its name, since a store may let somebody list what they may not read.
    """
    if (file := store.find(pattern)) is not None:
        return [file]
    found = [file for file in store.starting_with(f"{pattern}/") if is_data(file.path[len(pattern) + 1 :].split("/"))]
    if not found and has_magic(pattern):
        found = [file for file in store.starting_with(fixed_start(pattern)) if is_matched(file.path, pattern)]
    if found:
        store.find(found[0].path)
    return found


def swap_object(store: ObjectStore, location: str, before: bytes | None, after: bytes) -> bool:
    """Does what `jobs.storage.swap` says in an object store, by a condition on the object's etag."""
    etag = None
    try:
        if before is not None:
            now, etag = store.read_version(location)
            if now != before:
                return False
        store.put(location, after, etag)
    except FileNotFoundError:
        return False
    except FileExistsError:
        return store.read(location) == after  # ours all the same, when it was the answer that got lost
    return True


def is_data(parts: Sequence[str]) -> bool:
    """Whether the parts of a path below a directory make it a visible Parquet file."""
    return parts[-1].endswith(PARQUET_SUFFIXES) and not any(part.startswith(("_", ".")) for part in parts)


def fixed_start(pattern: str) -> str:
    """The part of a pattern before its first wildcard."""
    return pattern[: min(pattern.index(character) for character in "*?[" if character in pattern)]


def is_matched(path: str, pattern: str) -> bool:
    """Whether a pattern matches the file, or a directory that the file is data of."""
    parts, patterns = path.split("/"), pattern.split("/")
    for length in range(1, len(parts) + 1):
        matched, below = parts[:length], parts[length:]
        if not matched[-1].startswith(("_", ".")) and is_match(matched, patterns) and (not below or is_data(below)):
            return True
    return False


def is_match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path matches part by part; `**` is any number of them, and no wildcard starts with a dot."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        hidden = next((i for i, part in enumerate(parts) if part.startswith(".")), len(parts))
        return any(is_match(parts[i:], patterns[1:]) for i in range(hidden + 1))
    if not parts or not fnmatchcase(parts[0], patterns[0]):
        return False
    return not (parts[0].startswith(".") and not patterns[0].startswith(".")) and is_match(parts[1:], patterns[1:])


def is_temporary(name: str) -> bool:
    """Whether a writer made this file name for a file that it had not finished."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)
