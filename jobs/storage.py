"""Where tables lie: listing the input, reading, writing a file so that it is there whole or not at all.

Local paths only; object stores will be further functions of this module and of no other.
"""

from __future__ import annotations

import glob
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigError

PARQUET_SUFFIXES = (".parquet", ".pq")
TEMPORARY_SUFFIX = ".tmp"


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file and what tells whether it is still the same."""

    path: str
    size: int
    """Bytes."""
    modified_ns: int


def absolute(path: str, what: str, *, allow_relative: bool = True) -> str:
    """The absolute local path; raises ConfigError for other storage, and for relative paths inside a submitted job."""
    if "://" in path:
        scheme, rest = path.split("://", 1)
        if scheme != "file":
            raise ConfigError(f"{what} is {path!r}; {scheme}:// is not supported yet, only local paths are")
        path = rest
    if not allow_relative and not os.path.isabs(path):
        raise ConfigError(
            f"{what} is {path!r}; inside a submitted job it must be absolute (on a disk that all nodes share), "
            "since the job's working directory is a cache that Ray deletes"
        )
    return os.path.abspath(os.path.expanduser(path))


def list_input(pattern: str) -> list[InputFile]:
    """The Parquet files of a file, a directory (recursive) or a glob, sorted by path.

    Names that start with `_` or `.` are not data, as in Spark and Hive. Raises ConfigError when nothing is there.
    """
    path = Path(pattern)
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = files_below(path)
    else:
        matches = [Path(match) for match in glob.glob(pattern, recursive=True)]
        matches = [match for match in matches if not match.name.startswith(("_", "."))]
        found = [file for match in matches for file in (files_below(match) if match.is_dir() else [match])]
    files = sorted({str(file) for file in found if file.is_file()})
    if not files:
        raise ConfigError(f"INPUT {pattern!r} has no Parquet files; give a file, a directory or a quoted glob")
    return [describe(file) for file in files]


def describe(path: str) -> InputFile:
    """Size and modification time of a file now."""
    stat = os.stat(path)
    return InputFile(path, stat.st_size, stat.st_mtime_ns)


def files_below(root: Path) -> list[Path]:
    """The visible Parquet files of a directory, at any depth."""
    return [file for file in root.rglob("*") if file.suffix in PARQUET_SUFFIXES and is_visible(file, root)]


def is_visible(file: Path, root: Path) -> bool:
    """Whether no part of the path below `root` starts with `_` or `.`."""
    return not any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)


def write_json(path: str, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    content = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(content))


def write_table(path: str, table: pa.Table) -> None:
    """A Parquet file, atomically."""
    write_atomically(
        path, lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    )


def write_atomically(path: str, write: Callable[[str], object]) -> None:
    """The file holds what `write` wrote or what it held before, whenever the process dies; an error leaves no trace."""
    temporary = temporary_name(path)
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def temporary_name(path: str) -> str:
    """A hidden name beside `path` that no other writer takes."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")


def remove_temporaries(directory: str) -> None:
    """Removes what killed writers left behind."""
    for name in os.listdir(directory):
        if is_temporary(name):
            Path(directory, name).unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Whether a file name is one of `temporary_name`."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)
