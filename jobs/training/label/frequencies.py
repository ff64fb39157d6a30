"""Counts how many distinct documents of all files have each word, in two passes; a worker holds one piece at a time.

    _frequencies/seen-PIECE      digests of the distinct documents of a piece
    _frequencies/owned-PIECE     those that no piece before it has, as the driver finds; 8 bytes a document
    _frequencies/counted-PIECE   how many of the owned documents have each word
    _frequencies/all.parquet     the sum over all pieces

Two documents that share a digest of 64 bits count as one. In a collection of 10 million documents the chance that any
two do is 1 in 400,000.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from jobs import storage
from pipelines.evaluation.analysis import words_of
from pipelines.evaluation.bm25 import Frequencies

ALL = "all.parquet"
TOTALS_KEY = b"crossray_totals"


def digest_of(text: str) -> int:
    """The digest of a text, 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def write_seen(room: str, piece: str, texts: Iterable[str]) -> None:
    """Writes the digests of the distinct documents of a piece: the first pass."""
    digests = sorted({digest_of(text) for text in texts})
    storage.write_table(os.path.join(room, f"seen-{piece}"), pa.table({"digest": pa.array(digests, pa.uint64())}))


def write_owned(room: str, pieces: Sequence[str]) -> None:
    """Writes for each piece which of its documents it counts: those that no piece before it has."""
    seen = [read_digests(os.path.join(room, f"seen-{piece}")) for piece in pieces]
    joined = np.concatenate([np.empty(0, np.uint64), *seen])
    is_first = np.zeros(len(joined), bool)
    is_first[np.unique(joined, return_index=True)[1]] = True
    start = 0
    for piece, digests in zip(pieces, seen, strict=True):
        owned = digests[is_first[start : start + len(digests)]]
        storage.write_table(os.path.join(room, f"owned-{piece}"), pa.table({"digest": pa.array(owned)}))
        start += len(digests)


def read_digests(location: str) -> np.ndarray:
    """The digests in a file that `write_seen` or `write_owned` wrote, sorted."""
    table = storage.read_parquet(location, lambda file: file.read())
    return np.asarray(table.column("digest").to_numpy(), np.uint64)


def write_counted_words(room: str, piece: str, texts: Iterable[str]) -> None:
    """Counts the words of the documents that a piece owns: the second pass."""
    owned = set(read_digests(os.path.join(room, f"owned-{piece}")).tolist())
    mine = [text for text in dict.fromkeys(texts) if digest_of(text) in owned]
    found = Frequencies()
    found.add(words_of(mine))
    write_frequencies(os.path.join(room, f"counted-{piece}"), found)


def write_sum(room: str, pieces: Sequence[str]) -> None:
    """Adds up the counts of all pieces, and writes the sum."""
    total = Frequencies()
    for piece in pieces:
        found = read_frequencies(os.path.join(room, f"counted-{piece}"))
        total.documents += found.documents
        total.words += found.words
        total.containing.update(found.containing)
    write_frequencies(os.path.join(room, ALL), total)


def write_frequencies(location: str, found: Frequencies) -> None:
    """Writes frequencies as a table of words; the totals are in its metadata."""
    words = sorted(found.containing)
    table = pa.table(
        {"word": pa.array(words, pa.string()), "documents": pa.array([found.containing[w] for w in words], pa.int64())}
    )
    totals = {TOTALS_KEY: f"{found.documents} {found.words}".encode()}
    storage.write_table(location, table.replace_schema_metadata(totals))


def read_frequencies(location: str) -> Frequencies:
    """Reads frequencies that `write_frequencies` wrote."""
    table = storage.read_parquet(location, lambda file: file.read())
    documents, words = map(int, table.schema.metadata[TOTALS_KEY].split())
    pairs = zip(table.column("word").to_pylist(), table.column("documents").to_pylist(), strict=True)
    return Frequencies(documents, words, Counter(dict(pairs)))
