"""Reads, writes and lists files on local disks and in object stores; nothing else in `jobs` tells the two apart.

A location is an absolute local path or a uri, as `absolute` gives it. Whatever is written is there whole or not at all.

A table that cannot be read is an UnreadableFileError, the one error that its readers catch. A store or a disk that is
away is a StoreError, which readers let pass: it stops the job. What else goes wrong is an OSError.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from jobs.errors import RefusedError, StoreError, UnreadableFileError
from jobs.records import NAME_IS_NOT_UTF8, InputFile
from jobs.storage.files import (
    MAGIC,
    Listing,
    Store,
    begins_as_parquet,
    has_parquet_magic,
    is_named_parquet,
    is_temporary,
    may_be_parquet,
)
from jobs.storage.local import FAULTS_OF_FILES, LocalDisk, is_away, temporary_name
from jobs.storage.locations import absolute, contain_one_another, real_path
from jobs.storage.parquet import OpenParquet
from pipelines.errors import ConfigError, CrossrayError, missing_packages
from pipelines.stores import (
    AzureAccess,
    GoogleAccess,
    StoreUri,
    azure_access,
    google_access,
    is_uri,
    parse_uri,
    s3_endpoint,
    without_signature,
)

__all__ = [
    "Listing",
    "absolute",
    "check_apart",
    "contain_one_another",
    "exists",
    "faults_of_file",
    "find_input",
    "is_directory",
    "is_temporary",
    "is_unchanged",
    "list_input",
    "make_directory",
    "names",
    "open_parquet",
    "parse_json",
    "read",
    "read_as_planned",
    "read_json",
    "read_parquet",
    "real_path",
    "remove",
    "remove_below",
    "remove_temporaries",
    "swap",
    "temporary_name",
    "to_json",
    "write_json",
    "write_table",
]

Read = TypeVar("Read")

MAGIC_THREADS = 16
"""Files whose first and last bytes are looked at together."""
READINGS = 2
"""Of a file in a store, each with all the attempts that its requests have in pyarrow, which are few for Azure."""


def find_input(pattern: str) -> Listing:
    """The Parquet files of a file, a directory (recursive) or a glob; none where nothing is there.

    Below a directory names that start with `_` or `.` are not data, as in Spark and Hive. Of the others those are
    Parquet whose names say so, or whose names leave it open and whose first and last bytes say so.
    """
    found = [one._replace(file=with_printable_name(one.file)) for one in store_of(pattern).candidates(pattern)]
    doubtful = [one.file for one in found if not one.is_named and not is_named_parquet(one.file.path)]
    with ThreadPoolExecutor(MAGIC_THREADS) as pool:
        left_out = {file for file, is_one in zip(doubtful, pool.map(is_parquet, doubtful), strict=True) if not is_one}
    return Listing((one.file for one in found if one.file not in left_out), left_out)


def with_printable_name(file: InputFile) -> InputFile:
    """The file under a name that can be written down: one that is not UTF-8 can be reported, but not read."""
    try:
        file.path.encode()
    except UnicodeEncodeError:
        return InputFile(os.fsencode(file.path).decode(errors="backslashreplace"), file.size, NAME_IS_NOT_UTF8)
    return file


@lru_cache(maxsize=1 << 17)
def is_parquet(file: InputFile) -> bool:
    """Whether a file is Parquet although its name does not say so. A follower asks this of the same file many times."""
    if file.fault is not None:  # no byte of it can be seen
        return file.version != NAME_IS_NOT_UTF8 and may_be_parquet(file.path)
    return may_be_parquet(file.path) and has_parquet_magic(store_of(file.path), file)


def list_input(pattern: str, what: str = "INPUT") -> Listing:
    """The files that `find_input` finds; raises ConfigError when none of them is Parquet."""
    files = find_input(pattern)
    if all(file.fault is not None for file in files):
        others = f" ({len(files.left_out)} other file(s), as {files.left_out[0].path})" if files.left_out else ""
        others += f"; {files[0].path} cannot be read: {files[0].fault}" if files else ""
        raise ConfigError(f"{what} {pattern!r} has no Parquet files; give a file, a directory or a quoted glob{others}")
    readable = [file for file in files if file.fault is None]
    if not any(begins_as_parquet(store_of(file.path), file) for file in readable):
        raise ConfigError(
            f"{what} {pattern!r}: only Parquet is read, and {readable[0].path} is none; make a Parquet file of it "
            f"first, such as with DuckDB: COPY (FROM '{readable[0].path}') TO 'log.parquet'"
        )
    return files


def exists(location: str) -> bool:
    """Whether there is a file at the location."""
    return store_of(location).find(location) is not None


def is_unchanged(file: InputFile) -> bool:
    """Whether the file is still what it was when it was listed."""
    return store_of(file.path).find(file.path) == file


def is_directory(location: str) -> bool:
    """Whether the location is a directory; in an object store, whether anything lies below it."""
    return store_of(location).is_directory(location)


def make_directory(location: str) -> None:
    """Makes a directory and its parents where they are missing; object stores have no need of that."""
    store_of(location).make_directory(location)


def names(directory: str) -> list[str]:
    """The names of the files and directories that lie directly in a directory."""
    return store_of(directory).names(directory)


def read(location: str) -> bytes:
    """The content of a small file; raises FileNotFoundError when it is not there."""
    return store_of(location).read(location)


def read_json(location: str) -> Any:
    """The value in a JSON file; raises FileNotFoundError when it is not there, ValueError when it is no JSON."""
    return parse_json(read(location))


def parse_json(content: bytes) -> Any:
    """The value that JSON of whomever stands for; raises ValueError when it is none, or nested too deeply."""
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_parquet(
    location: str,
    reader: Callable[[OpenParquet], Read],
    *,
    check_pages: bool = False,
    dictionaries: Sequence[str] = (),
) -> Read:
    """Opens a Parquet file and returns what `reader` makes of it; for an object, `reader` may be called twice.

    With `check_pages` each page that it reads is compared with its checksum, where the file has them. The columns of
    values (by their paths) in `dictionaries` are read as dictionaries and indices.

    Raises UnreadableFileError when the file is at fault, also where `reader` raises ValueError for what it finds in it;
    StoreError when its store or its disk is away.
    """

    def attempt() -> Read:
        with store_of(location).open_parquet(location, check_pages, dictionaries) as file:
            return reader(file)

    with faults_of_file(location):
        return read_twice(attempt, location) if is_uri(location) else attempt()


def open_parquet(location: str) -> OpenParquet:
    """A Parquet file, open for as long as the caller has it; raises what pyarrow raises, for `faults_of_file`."""
    return store_of(location).open_parquet(location, check_pages=False)


def read_as_planned(location: str, state: str, reader: Callable[[pq.ParquetFile], Read]) -> Read:
    """What `reader` makes of a Parquet file that is still what it was: `state` is its `InputFile.state` of then.

    Raises UnreadableFileError also for a file that is another by now, or became another while it was read.
    """
    if not state:
        return read_parquet(location, reader)
    with faults_of_file(location):
        before = store_of(location).inode(location)
    try:
        read_now = read_parquet(location, reader)
    except UnreadableFileError:
        check_state(location, state, before)  # the better reason
        raise
    check_state(location, state, before)
    return read_now


def check_state(location: str, state: str, inode: int | None) -> None:
    """Raises UnreadableFileError when a file is not, or no longer, what it was."""
    store = store_of(location)
    with faults_of_file(location):
        found = store.find(location)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "it was removed after it was planned", location)
        if found.state != state or store.inode(location) != inode:
            raise UnreadableFileError(location, "it has changed since it was planned; the next run plans it anew")


@contextmanager
def faults_of_file(location: str) -> Iterator[None]:
    """For a block that reads a file or works on its rows: tells faults of the file from those of its storage.

    What pyarrow raises (ArrowException, OSError), and ValueError, becomes UnreadableFileError; what a disk raises that
    is away becomes StoreError. Errors that this project raises on purpose pass through.
    """
    try:
        yield
    except (CrossrayError, MemoryError):  # too little memory says nothing of the file
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        why = without_signature(f"{type(error).__name__}: {error}")
        if isinstance(error, OSError) and error.errno is not None and error.errno not in FAULTS_OF_FILES:
            raise StoreError(f"{location}: {why}") from None
        is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
        if is_gone and not is_uri(location) and is_away(location):
            raise StoreError(f"{location} and all that was beside it are away; is its disk mounted?") from None
        raise UnreadableFileError(location, why, is_gone) from None


def read_twice(attempt: Callable[[], Read], location: str) -> Read:
    """The result of `attempt`, which reads an object; it is made again when it failed in a way that may pass.

    Raises StoreError when the store is away, else what the last attempt raised.
    """
    retrying = Retrying(
        stop=stop_after_attempt(READINGS),
        wait=wait_random_exponential(max=20),
        retry=retry_if_exception(may_pass),
        reraise=True,
    )
    try:
        return retrying(attempt)
    except StoreError:
        raise
    except OSError:  # which pyarrow says of a damaged page, too
        store = store_of(location)
        found = store.find(location)
        if found is not None and found.size >= len(MAGIC):
            store.read_ends(found)  # raises StoreError where the store says what is there, and gives no bytes
        raise


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed when it is made again, as after a broken connection."""
    return isinstance(error, OSError) and not isinstance(error, StoreError | FileNotFoundError)


def to_json(value: Any) -> bytes:
    """A value as the JSON of our files, indented."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def write_json(location: str, value: Any) -> None:
    """Writes a value as JSON; the file has its old content or the new one, and nothing between."""
    store_of(location).write(location, to_json(value))


def write_text(location: str, text: str) -> None:
    """Writes a text as UTF-8, whole or not at all."""
    store_of(location).write(location, text.encode())


def write_table(location: str, table: pa.Table, row_group_size: int | None = None) -> None:
    """Writes a table as a Parquet file, whole or not at all; `row_group_size` is in rows, None is pyarrow's own."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size, compression="zstd", write_page_checksum=True)
    store_of(location).write(location, sink.getvalue().to_pybytes())


def swap(location: str, before: bytes | None, after: bytes) -> bool:
    """Replaces a file's content `before` by `after`, or makes the file (None); returns whether that happened.

    Where several processes try at once, one of them is told True. `after` must differ from what others write.
    """
    return store_of(location).swap(location, before, after)


def remove(*locations: str) -> None:
    """Removes files of one disk or store; one that is not there is no error."""
    if locations:
        store_of(locations[0]).remove(locations)


def remove_below(directory: str) -> None:
    """Removes a directory with everything in it, as far as that can be done."""
    store_of(directory).remove_below(directory)


def remove_temporaries(directory: str) -> None:
    """Removes the hidden files that killed writers left in a directory."""
    remove(*(f"{directory}/{name}" for name in names(directory) if is_temporary(name)))


def check_apart(
    pattern: str, output: str, files: Sequence[InputFile], what: str = "INPUT", place: str = "OUTPUT"
) -> None:
    """Raises RefusedError when the job would read what it writes: `output` inside what it reads, or the reverse."""
    paths = [file.path for file in files]
    if contain_one_another(pattern, output, paths, pattern_is_directory=is_directory(pattern)):
        raise RefusedError(f"{place} {output} and {what} {pattern} contain one another; keep them apart")


def store_of(location: str) -> Store:
    """The disk, bucket or container of a location. Each process makes its own clients, once."""
    if not is_uri(location):
        return LocalDisk()
    uri = parse_uri(location)
    place = StoreUri(uri.scheme, uri.container, host=uri.host)
    if uri.scheme == "s3":
        return s3_store(place, s3_endpoint())
    return google_store(place) if uri.scheme == "gs" else azure_store(place, azure_access())


@lru_cache(maxsize=64)
def s3_store(place: StoreUri, endpoint: str | None) -> Store:
    """The client of a bucket of S3."""
    from jobs.storage.s3 import S3Bucket  # boto3: not for jobs on local disks

    return S3Bucket(place, endpoint)


@lru_cache(maxsize=64)
def azure_store(place: StoreUri, access: AzureAccess) -> Store:
    """The client of a container of Azure; raises ConfigError without the extra."""
    try:
        from jobs.storage.azure import AzureContainer  # an optional dependency

        return AzureContainer(place, access)
    except ModuleNotFoundError:
        raise ConfigError(
            missing_packages(str(place), "azure-identity azure-storage-blob", "the extra azure")
        ) from None


def google_store(place: StoreUri) -> Store:
    """The client of a bucket of Google Cloud Storage; raises ConfigError without the extra."""
    try:
        from jobs.storage.gcs import errors_of  # an optional dependency
    except ModuleNotFoundError:
        raise ConfigError(missing_packages(str(place), "google-cloud-storage", "the extra gcs")) from None
    with errors_of(str(place)):
        return google_bucket(place, google_access())


@lru_cache(maxsize=64)
def google_bucket(place: StoreUri, access: GoogleAccess) -> Store:
    """The client of a bucket, made once for each way to be let in."""
    from jobs.storage.gcs import GoogleBucket  # an optional dependency

    return GoogleBucket(place, access)
