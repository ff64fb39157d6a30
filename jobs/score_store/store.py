"""`--scores PATH`: logits that runs leave for later runs, so that a pair is paid for once.

    PATH/logits-<hash of what decides a pair's logit>/<when the run began>-<hash of the keys>.parquet

A file is named by what is in it, so a retry writes the same file again and no two writers are in each other's way. It
is there before the part whose scores it has: a death in between costs nothing. A file that gets lost costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import UnreadableFileError
from jobs.runtime.threads import read_ahead
from pipelines.memory import KEY_BYTES, StoredLogits, halves

FORMAT = 1
METADATA_KEY = b"crossray_logits"
"""Key of format and model in a file's Parquet metadata."""
SCHEMA = pa.schema(
    [
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),  # see `pipelines.memory.pair_digest`
        pa.field("logit", pa.float32(), nullable=False),
    ]
)
PAIR_BYTES = 20
"""Of a pair in memory, on every node that scores; five times that in the driver while it loads them."""
READING_THREADS = 16
LOOKS = 5
PREFIX, SUFFIX = "logits-", ".parquet"


@dataclass(frozen=True, slots=True)
class ScoreStore:
    """The logits of one model in a store, as a run reads and writes them."""

    path: str
    """What the user gave, absolute."""
    model: Mapping[str, Any]
    """Of `pipelines.fingerprint.logits_fingerprint`."""
    begun: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y%m%dT%H%M%S"))
    """When the run began: names sort by age."""

    @property
    def directory(self) -> str:
        """The directory of this model's files: logits of different models never mix."""
        return os.path.join(self.path, f"{PREFIX}{self.model['hash']}")

    def files(self) -> list[str]:
        """The files of this model, the newest first."""
        if not storage.is_directory(self.directory):
            return []
        names = [name for name in storage.names(self.directory) if is_file_of_logits(name)]
        return [os.path.join(self.directory, name) for name in sorted(names, reverse=True)]

    def write(self, logits: pa.Table) -> str:
        """Keeps a table of SCHEMA, sorted by key; returns where. Raises OSError when the storage does."""
        storage.make_directory(self.directory)
        path = os.path.join(self.directory, f"{self.begun}-{digest_of_keys(logits)}{SUFFIX}")
        footer = {METADATA_KEY: json.dumps(self._footer, sort_keys=True)}
        storage.write_table(path, logits.replace_schema_metadata(footer))
        return path

    def read(self, path: str) -> StoredLogits:
        """The logits of one file; raises UnreadableFileError, also for a file of another model."""
        return storage.read_parquet(path, self._checked, check_pages=True)

    @property
    def _footer(self) -> dict[str, Any]:
        return {"format": FORMAT, "model": dict(self.model)}

    def _checked(self, file: pq.ParquetFile) -> StoredLogits:
        if storage.parse_json((file.metadata.metadata or {}).get(METADATA_KEY, b"{}")) != self._footer:
            raise ValueError(f"holds no logits of format {FORMAT} and of this model")
        table = file.read()
        if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
            raise ValueError("has other columns than key and logit, or nulls in them")
        logits = table["logit"].to_numpy()
        if not np.isfinite(logits).all():
            raise ValueError("has a logit that is not finite")
        return StoredLogits.of(*halves(keys_of(table)), logits)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The logits that a run takes from a store, and what became of its files."""

    logits: StoredLogits
    files: int
    """How many there are."""
    files_left_out: int
    """The oldest of them, which did not fit."""
    unusable: Mapping[str, str]
    """Why files are skipped, by path."""


def load(store: ScoreStore, most: int) -> Loaded:
    """The logits in a store, `most` at most, those of the newest files first.

    Where another process replaced files meanwhile (see `jobs.score_store.compaction`), it looks again for what took
    their place.
    Raises StoreError when the storage fails as a whole.
    """
    usable: dict[str, StoredLogits] = {}
    unusable: dict[str, str] = {}
    for _ in range(LOOKS):
        files = store.files()
        unseen = [path for path in files if path not in usable and path not in unusable]
        if not read_newest(store, unseen, most, usable, unusable):
            break
    logits = joined(list(usable.values()), most)
    return Loaded(logits, len(files), len(set(files) - usable.keys() - unusable.keys()), unusable)


def read_newest(
    store: ScoreStore, files: Sequence[str], most: int, usable: dict[str, StoredLogits], unusable: dict[str, str]
) -> bool:
    """Reads files into `usable` until it holds `most` pairs, or into `unusable`; returns whether one was gone."""
    gone = False
    pairs = sum(map(len, usable.values()))
    for path, found in read_all(store, files):
        if isinstance(found, UnreadableFileError):
            if found.is_gone:
                gone = True
            else:
                unusable[path] = found.why
        elif pairs < most:
            usable[path] = found
            pairs += len(found)
        else:
            break
    return gone


def read_all(store: ScoreStore, files: Sequence[str]) -> Iterator[tuple[str, StoredLogits | UnreadableFileError]]:
    """Reads files, some at a time: yields each with its logits, or with why it cannot be read."""

    def attempt(path: str) -> StoredLogits | UnreadableFileError:
        try:
            return store.read(path)
        except UnreadableFileError as error:
            return error

    yield from zip(files, read_ahead(attempt, files, READING_THREADS), strict=True)


def joined(some: Sequence[StoredLogits], most: int | None = None) -> StoredLogits:
    """Joins logits, `most` of them at most; a pair that is there twice has its first logit."""
    columns = ([getattr(one, name) for one in (*some, StoredLogits())] for name in ("heads", "tails", "logits"))
    return StoredLogits.of(*(np.concatenate(column)[:most] for column in columns))


def table_of(logits: Mapping[bytes, float]) -> pa.Table:
    """Logits as a table of SCHEMA, sorted by key."""
    keys = sorted(logits)
    return pa.table([keys, [logits[key] for key in keys]], schema=SCHEMA)


def digest_of_keys(table: pa.Table) -> str:
    """The digest that names a file of logits: of all its keys."""
    return hashlib.blake2b(keys_of(table), digest_size=16).hexdigest()


def keys_of(table: pa.Table) -> memoryview:
    """All keys laid end to end."""
    keys = table["key"].combine_chunks()
    if isinstance(keys, pa.ChunkedArray):  # of a table without rows
        return memoryview(b"")
    content = memoryview(keys.buffers()[1] or b"")
    return content[KEY_BYTES * keys.offset : KEY_BYTES * (keys.offset + len(keys))]


def is_file_of_logits(name: str) -> bool:
    """Whether `ScoreStore.write` gives files such a name."""
    return name.endswith(SUFFIX) and not name.startswith((".", "_"))
