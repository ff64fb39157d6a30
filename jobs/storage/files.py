"""What every kind of storage can do, and which files a pattern finds."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from glob import has_magic
from typing import NamedTuple, Protocol

from jobs.errors import AccessError, StoreError
from jobs.records import InputFile
from jobs.storage.parquet import OpenParquet
from pipelines.stores import parse_uri

PARQUET_SUFFIXES = (".parquet", ".pq", ".parq")
COMPRESSED_SUFFIXES = (".br", ".bz2", ".gz", ".lz4", ".lzo", ".snappy", ".xz", ".zst", ".zstd")
OTHER_FORMAT = re.compile(
    r"\.(arrow|avro|bak|bin|cfg|conf|crc|csv|db|docx?|duckdb|feather|h5|hdf5|html?|inprogress|ini|ipc|ipynb|jpe?g|jsonl?"
    r"|lock|log|md|ndjson|npy|npz|old|orc|orig|part|partial|pdf|pickle|pkl|png|py|sh|sql|sqlite|swp|tar|te?mp|temporary"
    r"|te?xt|toml|tsv|xlsx?|xml|ya?ml|zip)$"
)
"""Ends of names that say another format, or a file that is not finished or no longer counts."""
MAGIC = b"PAR1"
ENCRYPTED_MAGIC = b"PARE"
TEMPORARY_SUFFIX = ".tmp"


class Candidate(NamedTuple):
    """A file that a pattern finds."""

    file: InputFile
    is_named: bool
    """It matches the pattern itself, and does not only lie in a directory that does."""


class Listing(list[InputFile]):
    """The Parquet files that a pattern finds, sorted by path."""

    def __init__(self, files: Iterable[InputFile] = (), left_out: Iterable[InputFile] = ()) -> None:
        super().__init__(sorted(files, key=lambda file: file.path))
        self.left_out = sorted(left_out, key=lambda file: file.path)
        """The visible files beside them, which are no Parquet."""


class Store(Protocol):
    """A disk, a bucket or a container. For each method `jobs.storage` has a function that says what it does."""

    def candidates(self, pattern: str) -> Iterable[Candidate]: ...

    def find(self, location: str) -> InputFile | None: ...

    def inode(self, location: str) -> int | None: ...

    def is_directory(self, location: str) -> bool: ...

    def make_directory(self, location: str) -> None: ...

    def names(self, directory: str) -> list[str]: ...

    def read(self, location: str) -> bytes: ...

    def read_ends(self, file: InputFile) -> tuple[bytes, bytes]: ...

    def open_parquet(self, location: str, check_pages: bool, dictionaries: Sequence[str] = ()) -> OpenParquet: ...

    def write(self, location: str, content: bytes) -> None: ...

    def swap(self, location: str, before: bytes | None, after: bytes) -> bool: ...

    def remove(self, locations: Sequence[str]) -> None: ...

    def remove_below(self, directory: str) -> None: ...


class ObjectStore(ABC):
    """What all object stores do in the same way: they have objects with names, and no directories."""

    @abstractmethod
    def find(self, location: str) -> InputFile | None: ...

    @abstractmethod
    def starting_with(self, prefix: str) -> Iterator[InputFile]:
        """The objects whose uris start with a prefix."""

    @abstractmethod
    def read_version(self, location: str) -> tuple[bytes, str]:
        """An object's content and its etag, or what else the store puts conditions on."""

    @abstractmethod
    def read_range(self, location: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` to before `end`."""

    @abstractmethod
    def put(self, location: str, content: bytes, etag: str | None) -> None:
        """Writes an object that has this etag now, or that is not there (None); else raises FileExistsError."""

    @abstractmethod
    def remove(self, locations: Sequence[str]) -> None: ...

    def candidates(self, pattern: str) -> list[Candidate]:
        return object_candidates(self, pattern)

    def inode(self, location: str) -> int | None:  # noqa: ARG002 - an object's version tells all
        return None

    def make_directory(self, location: str) -> None:  # noqa: B027 - nothing is to be done, and not to be forgotten
        """Does nothing: an object needs no directory."""

    def read(self, location: str) -> bytes:
        return self.read_version(location)[0]

    def read_ends(self, file: InputFile) -> tuple[bytes, bytes]:
        width = len(MAGIC)
        head, tail = (self.read_range(file.path, start, start + width) for start in (0, file.size - width))
        return head, tail

    def swap(self, location: str, before: bytes | None, after: bytes) -> bool:
        return swap_object(self, location, before, after)

    def remove_below(self, directory: str) -> None:
        self.remove([file.path for file in self.starting_with(f"{directory}/")])


def error_of_status(status: int | None, location: str, code: str, why: str) -> OSError:
    """The OSError that an answer's status stands for in every store; who may not do what is for each store to say.

    `code` is the store's own word for what is wrong, `why` its whole message.
    """
    if status == 404:
        return FileNotFoundError(f"{location} is not there")
    if status in (409, 412):
        return FileExistsError(f"{location}: {code}")
    return StoreError(f"{location}: {why}")


def key_of(location: str) -> str:
    """An object's name in its bucket or container."""
    return parse_uri(location).key


def first_line(error: Exception) -> str:
    """The first line of a client's message; after it come ids of the request, and the answer's body."""
    return str(error).partition("\n")[0]


def object_candidates(store: ObjectStore, pattern: str) -> list[Candidate]:
    """The visible files of an object, a directory or a glob, as `glob.glob` and the local disk understand it.

    The first one is asked for by its name, since a store may let somebody list what they may not read.
    """
    if (file := store.find(pattern)) is not None:
        return [Candidate(file, is_named=True)]
    below = (file for file in store.starting_with(f"{pattern}/"))
    found = [Candidate(file, False) for file in below if is_visible(file.path[len(pattern) + 1 :].split("/"))]
    if not found and has_magic(pattern):
        matches = ((file, how_matched(file.path, pattern)) for file in store.starting_with(fixed_start(pattern)))
        found = [Candidate(file, is_named) for file, is_named in matches if is_named is not None]
    if found:
        store.find(found[0].file.path)
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


def is_visible(parts: Sequence[str]) -> bool:
    """Whether the parts of a file's path below a directory make it visible, as in Spark and Hive."""
    return not is_hidden(parts[-1]) and not any(is_hidden_directory(part) for part in parts[:-1])


def is_hidden(name: str) -> bool:
    """Whether a file of this name is no data: a marker, a checksum, or not finished."""
    return name.startswith(("_", "."))


def is_hidden_directory(name: str) -> bool:
    """Whether a directory of this name holds no data; `_day=1` is a partition, and does."""
    return is_hidden(name) and (name.startswith(".") or "=" not in name)


def is_named_parquet(path: str) -> bool:
    """Whether a file's name says that it is Parquet."""
    return path.lower().endswith(PARQUET_SUFFIXES)


def may_be_parquet(path: str) -> bool:
    """Whether a file's name leaves open what it is: it names no other format."""
    name = path.rpartition("/")[2].lower()
    while name.endswith(COMPRESSED_SUFFIXES):
        name = name.rpartition(".")[0]
    return OTHER_FORMAT.search(name) is None and not name.endswith("~")


def has_parquet_magic(store: Store, file: InputFile) -> bool:
    """Whether a file begins and ends as Parquet does; one that is gone or that we may not read does not."""
    if file.size < 3 * len(MAGIC):
        return False
    try:
        return store.read_ends(file) == (MAGIC, MAGIC)
    except (FileNotFoundError, PermissionError, AccessError):
        return False


def begins_as_parquet(store: Store, file: InputFile) -> bool:
    """Whether a file begins as Parquet does, or may have done: one that is cut off is damaged, and no other format."""
    if file.size < len(MAGIC):
        return file.size == 0
    try:
        return store.read_ends(file)[0] in (MAGIC, ENCRYPTED_MAGIC)
    except (FileNotFoundError, PermissionError, AccessError):
        return True


def fixed_start(pattern: str) -> str:
    """The part of a pattern before its first wildcard."""
    return pattern[: min(pattern.index(character) for character in "*?[" if character in pattern)]


def how_matched(path: str, pattern: str) -> bool | None:
    """True where a pattern matches the file, False where it matches a directory in which it is visible, else None."""
    parts, patterns = path.split("/"), pattern.split("/")
    if not is_hidden(parts[-1]) and is_match(parts, patterns):
        return True
    for length in range(1, len(parts)):
        matched, below = parts[:length], parts[length:]
        if not is_hidden_directory(matched[-1]) and is_match(matched, patterns) and is_visible(below):
            return False
    return None


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
