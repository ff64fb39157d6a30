"""What rows say of passages, in all files: which are right for a query and which are of one group, so no negatives.

    _known/known-SOURCE    of one file: the digest of a query beside that of its positive, and the digest of a group
                           beside that of each passage of its rows
    _known/shared.parquet  the same of all files, for queries and groups that several of them have

Digests have 64 bits. Two passages that share one by chance cost a candidate.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.records import Unit
from jobs.training.mine.passages import Passages, digest_of
from jobs.training.mine.rows import SourceRow

SHARED = "shared.parquet"


def query_key(query: str) -> int:
    """The digest of a query, which is no passage's."""
    return key_of("query", query)


def group_key(group: str) -> int:
    """The digest of a group, which is no query's."""
    return key_of("group", group)


def key_of(kind: str, text: str) -> int:
    """The digest of a text of some kind."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=kind.encode()).digest()
    return int.from_bytes(digest, signed=True)


def known_of(rows: Iterable[SourceRow]) -> Iterator[tuple[int, int]]:
    """Yields (key of a query or group, digest of a passage that is right for it or of it)."""
    for row in rows:
        yield query_key(row.query), digest_of(row.positive)
        if row.group:
            yield from ((group_key(row.group), digest_of(text)) for text in (row.positive, *row.negatives))


def known_name(path: str) -> str:
    """Name of the file with what the rows of a source say."""
    return Unit(path, 0, 0).name.replace("part-", "known-", 1)


def write_known(location: str, rows: Iterable[SourceRow]) -> None:
    """Writes what the rows of a source say of passages."""
    keys, passages = np.array(list(dict.fromkeys(known_of(rows))), np.int64).reshape(-1, 2).T
    Known(keys, passages).write(location)


def write_shared(room: str, names: Sequence[str]) -> None:
    """Writes what several of these files say, of the queries and groups that more than one of them has."""
    files = [Known(), *(Known.read(os.path.join(room, name)) for name in names)]
    keys, times = np.unique(np.concatenate([np.unique(file.keys) for file in files]), return_counts=True)
    lines = np.concatenate([(file.keys, file.passages) for file in files], axis=1)
    lines = lines[:, np.isin(lines[0], keys[times > 1])]
    Known(*lines[:, np.argsort(lines[0], kind="stable")]).write(os.path.join(room, SHARED))


@dataclass(frozen=True, slots=True)
class Known:
    """Keys of queries and groups, and beside each the digest of a passage."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    passages: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def read(cls, location: str) -> Known:
        """What was written to a location."""
        table = storage.read_parquet(location, lambda file: file.read())
        return cls(table.column("key").to_numpy(), table.column("passage").to_numpy())

    def write(self, location: str) -> None:
        storage.write_table(location, pa.table({"key": self.keys, "passage": self.passages}))

    def of(self, key: int) -> list[int]:
        """The digests beside a key, in a table that is in the order of its keys."""
        first, last = np.searchsorted(self.keys, key, "left"), np.searchsorted(self.keys, key, "right")
        return list(self.passages[first:last].tolist())


class Pool:
    """The passages that are searched for a source, and what its rows and those of other files say of them."""

    def __init__(self, passages: Passages, rows: Sequence[SourceRow], shared: Known) -> None:
        self.passages = passages
        self.known: dict[int, set[int]] = {}
        """By key of a query or group of the source, the digests of its passages."""
        for key, passage in known_of(rows):
            self.known.setdefault(key, set()).add(passage)
        for key, of_key in self.known.items():
            of_key.update(shared.of(key))

    def given(self, row: SourceRow) -> list[str]:
        """The row's own negatives, without those that are a positive of the same query in another row."""
        positives = self.known[query_key(row.query)]
        return [text for text in row.negatives if digest_of(text) not in positives]

    def barred(self, row: SourceRow) -> list[int]:
        """Places of passages that are no candidates: positives of the query, own negatives, members of the group."""
        barred = self.known[query_key(row.query)].union(map(digest_of, row.negatives))
        if row.group:
            barred |= self.known[group_key(row.group)]
        return sorted(self.passages.place[digest] for digest in barred if digest in self.passages.place)
