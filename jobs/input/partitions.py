"""Columns whose values stand in directory names, as in Hive: `date=2026-11-01/lang=de/x.parquet` has two of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa

from jobs.errors import RefusedError

NULL = "__HIVE_DEFAULT_PARTITION__"
INT32_LIMIT = 1 << 31
WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partition columns of an input and how a path gives their values."""

    root: str = ""
    """The directories below it count."""
    types: Mapping[str, str] = field(default_factory=dict)
    """`int32` or `string` by column, the same for all files."""

    def fields(self, path: str, own: pa.Schema) -> list[pa.Field]:
        """The columns that the path adds to those the file has itself."""
        names = [name for name in directory_values(path, self.root) if name in self.types and name not in own.names]
        return [pa.field(name, pa.type_for_alias(self.types[name])) for name in names]

    def columns(self, path: str, own: pa.Schema, rows: int) -> list[tuple[pa.Field, pa.Array]]:
        """The same columns with the path's value in each row."""
        texts = directory_values(path, self.root)
        return [
            (one, pa.repeat(pa.scalar(texts[one.name], pa.string()).cast(one.type), rows))
            for one in self.fields(path, own)
        ]


def infer_types(root: str, paths: Iterable[str]) -> dict[str, str]:
    """The columns of all paths together, typed as pyarrow does: int32 where all values are such, else string."""
    texts: dict[str, list[str]] = {}
    for path in paths:
        for name, text in directory_values(path, root).items():
            texts.setdefault(name, []).extend([] if text is None else [text])
    return {name: "int32" if found and all(map(is_int32, found)) else "string" for name, found in texts.items()}


def continued_types(root: str, before: Mapping[str, str], planned: Sequence[str], now: Sequence[str]) -> dict[str, str]:
    """The columns of a job that goes on: those it began with and those that new files add.

    Raises RefusedError when finished parts would differ from those to come: INPUT is given so that other directories
    count, or a new file's value does not have its column's type.
    """
    counted = infer_types(root, planned)
    if counted.keys() != before.keys():
        raise RefusedError(
            f"the partition columns were {list(before)}, and with this INPUT they are {list(counted)} for the same "
            "files; give INPUT as before, another OUTPUT, or --overwrite to start anew"
        )
    found = infer_types(root, now)
    for name, data_type in found.items():
        if before.get(name) == "int32" and data_type == "string":
            raise RefusedError(
                f"partition column {name!r} was int32, and new files have other values of it; "
                "rename their directories, or use --overwrite to start anew"
            )
    return {name: before.get(name, data_type) for name, data_type in found.items()}


def input_root(pattern: str, paths: Sequence[str]) -> str:
    """The part of INPUT below which directories count: a directory, that of a file, or a glob's up to its first
    wildcard.
    """
    directory = pattern.rstrip("/")
    if all(path.startswith(f"{directory}/") for path in paths):
        return directory
    wildcard = WILDCARDS.search(pattern)
    fixed = pattern if wildcard is None or pattern in paths else pattern[: wildcard.start()]
    return fixed.rpartition("/")[0]


def directory_values(path: str, root: str) -> dict[str, str | None]:
    """The values that the directories between `root` and a file name, by column; None is null."""
    if not path.startswith(f"{root}/"):
        return {}
    directories = path[len(root) + 1 :].split("/")[:-1]
    pairs = (directory.partition("=") for directory in directories)
    return {unquote(name): None if text == NULL else unquote(text) for name, sign, text in pairs if name and sign}


def is_int32(text: str) -> bool:
    """Whether pyarrow reads the text as an int32."""
    return re.fullmatch(r"-?[0-9]+", text) is not None and -INT32_LIMIT <= int(text) < INT32_LIMIT
