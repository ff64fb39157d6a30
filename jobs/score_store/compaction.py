"""`crossray scores compact PATH`: the many small files of a score store become few large ones; jobs may run meanwhile.

Nothing is removed before a file that holds the same is there. A job that had listed a file which is gone when it reads
looks once more; one that writes adds files of other names. Two compactions at once do work twice and lose nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.errors import UnreadableFileError
from jobs.score_store.store import (
    METADATA_KEY,
    PREFIX,
    SCHEMA,
    ScoreStore,
    is_file_of_logits,
    joined,
    read_all,
)
from pipelines.errors import ConfigError
from pipelines.memory import KEY_BYTES, StoredLogits

FILE_PAIRS = 2_000_000
"""Pairs of a large file: 40 MB. A file of half as many is left alone, so that work does not grow with the store."""


@dataclass(slots=True)
class Compacted:
    """What a compaction made of a store."""

    files_before: int = 0
    files_after: int = 0
    unusable: dict[str, str] = field(default_factory=dict)
    """Why files are left alone, by path."""


def stores_in(path: str) -> Iterator[ScoreStore]:
    """The stores below a path, one for each model; raises ConfigError where there is none."""
    names = storage.names(path) if storage.is_directory(path) else []
    directories = [os.path.join(path, name) for name in sorted(names) if name.startswith(PREFIX)]
    if not directories:
        raise ConfigError(f"PATH {path} holds no scores; give what --scores was")
    for directory in filter(storage.is_directory, directories):
        model = model_of(directory)
        if model is not None:
            yield ScoreStore(path, model)


def model_of(directory: str) -> dict[str, Any] | None:
    """The model of a store's directory, by the first footer that names it; None where none does."""
    for name in filter(is_file_of_logits, storage.names(directory)):
        try:
            metadata = storage.read_parquet(os.path.join(directory, name), lambda file: file.metadata.metadata)
            model: dict[str, Any] = storage.parse_json((metadata or {})[METADATA_KEY])["model"]
            if directory.endswith(f"{PREFIX}{model['hash']}"):
                return model
        except (UnreadableFileError, ValueError, KeyError, TypeError):
            continue
    return None


def compact(store: ScoreStore, file_pairs: int = FILE_PAIRS) -> Compacted:
    """Joins small files to files of `file_pairs`, the oldest first. Raises OSError when the storage does."""
    files = store.files()[::-1]
    done = Compacted(len(files))
    group: dict[str, StoredLogits] = {}
    for path, found in read_all(store, files):
        if isinstance(found, UnreadableFileError):
            if not found.is_gone:  # else another compaction was there first
                done.unusable[path] = found.why
        elif len(found) < file_pairs / 2:
            group[path] = found
        if sum(map(len, group.values())) >= file_pairs:
            replace(store, group)
            group = {}
    replace(store, group)
    done.files_after = len(store.files())
    return done


def replace(store: ScoreStore, group: dict[str, StoredLogits]) -> None:
    """Writes one file for several, as old as the newest of them, then removes these."""
    if len(group) < 2:
        return
    newest_first = list(group)[::-1]
    logits = joined([group[path] for path in newest_first])
    begun = os.path.basename(newest_first[0]).partition("-")[0]
    written = ScoreStore(store.path, store.model, begun).write(table_of_arrays(logits))
    storage.remove(*(path for path in group if path != written))


def table_of_arrays(logits: StoredLogits) -> pa.Table:
    """Logits as a table of SCHEMA, sorted by key."""
    keys = np.stack([logits.heads, logits.tails], axis=1).astype(">u8").tobytes()
    column = pa.Array.from_buffers(pa.binary(KEY_BYTES), len(logits), [None, pa.py_buffer(keys)])
    return pa.table([column, pa.array(logits.logits)], schema=SCHEMA)
