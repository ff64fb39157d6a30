"""Document frequencies over the distinct documents of many files, in two passes whose workers hold a piece at a time.

    _frequencies/seen-PIECE      digests of the distinct documents of a piece
    _frequencies/owned-PIECE     those that no piece before it has: the driver tells, by 8 bytes a document
    _frequencies/counted-PIECE   how many of these have each word
    _frequencies/all.parquet     the sum

Two documents that share a digest of 64 bits would count as one; of 10 million documents some pair does in 1 of 400,000
collections.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.training.bm25 import Frequencies, words_of

ALL = "all.parquet"
TOTALS_KEY = b"crossray_totals"


def digest_of(text: str) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def write_seen(room: str, piece: str, texts: Iterable[str]) -> None:
    """The first pass over a piece."""
    digests = sorted({digest_of(text) for text in texts})
    storage.write_table(os.path.join(room, f"seen-{piece}"), pa.table({"digest": pa.array(digests, pa.uint64())}))


def write_owned(room: str, pieces: Sequence[str]) -> None:
    """Tells each piece which documents it counts."""
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
    """Sorted."""
    table = storage.read_parquet(location, lambda file: file.read())
    return np.asarray(table.column("digest").to_numpy(), np.uint64)


def write_counted_words(room: str, piece: str, texts: Iterable[str]) -> None:
    """The second pass over a piece."""
    owned = set(read_digests(os.path.join(room, f"owned-{piece}")).tolist())
    mine = [text for text in dict.fromkeys(texts) if digest_of(text) in owned]
    found = Frequencies()
    found.add(words_of(mine) if mine else [])
    write_frequencies(os.path.join(room, f"counted-{piece}"), found)


def write_sum(room: str, pieces: Sequence[str]) -> None:
    """What all pieces have together."""
    total = Frequencies()
    for piece in pieces:
        found = read_frequencies(os.path.join(room, f"counted-{piece}"))
        total.documents += found.documents
        total.words += found.words
        total.containing.update(found.containing)
    write_frequencies(os.path.join(room, ALL), total)


def write_frequencies(location: str, found: Frequencies) -> None:
    """As a table of words."""
    words = sorted(found.containing)
    table = pa.table(
        {"word": pa.array(words, pa.string()), "documents": pa.array([found.containing[w] for w in words], pa.int64())}
    )
    totals = {TOTALS_KEY: f"{found.documents} {found.words}".encode()}
    storage.write_table(location, table.replace_schema_metadata(totals))


def read_frequencies(location: str) -> Frequencies:
    """The inverse."""
    table = storage.read_parquet(location, lambda file: file.read())
    documents, words = map(int, table.schema.metadata[TOTALS_KEY].split())
    pairs = zip(table.column("word").to_pylist(), table.column("documents").to_pylist(), strict=True)
    return Frequencies(documents, words, Counter(dict(pairs)))
