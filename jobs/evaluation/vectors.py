"""The vectors of a corpus and of queries, computed by workers part by part: what is there is not computed again.

texts-000000.parquet       the texts of a part, until its vectors are there
vectors-000000.parquet     their vectors, in the same order
vectors-queries.parquet    those of the queries
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from jobs import storage
from jobs.settings import RerankSettings
from jobs.training.encoders import EncoderSettings
from jobs.training.pools import run_stage_on_replicas

PART_CHARACTERS = 1 << 18
"""Some 500 passages: half a minute of a small encoder on a CPU core, which is what a kill costs."""
MOST_PARTS = 8192
"""Of a large corpus; its parts are larger then."""
PART_TEXTS = 1 << 13
QUERIES = "queries"


@dataclass(frozen=True, slots=True)
class Embedding:
    """What workers are told."""

    room: str
    encoder: EncoderSettings

    def texts(self, part: str) -> str:
        return os.path.join(self.room, f"texts-{part}.parquet")

    def vectors(self, part: str) -> str:
        return os.path.join(self.room, f"vectors-{part}.parquet")

    def read(self, part: str) -> np.ndarray:
        """The vectors of a part, float32 [texts, width]."""
        column = storage.read_parquet(self.vectors(part), lambda file: file.read()).column("vector")
        vectors = column.combine_chunks()
        return np.asarray(vectors.flatten()).reshape(len(vectors), vectors.type.list_size)


class EmbedStage:
    """Writes the vectors of a part, and removes its texts."""

    def __init__(self, embedding: Embedding) -> None:
        self.embedding = embedding
        self.encoder = embedding.encoder.load()

    def __call__(self, item: dict[str, Any]) -> None:
        part = item["part"]
        if storage.exists(self.embedding.vectors(part)):  # by a worker that died before it could say so
            return
        texts = storage.read_parquet(self.embedding.texts(part), lambda file: file.read()).column("text").to_pylist()
        encode = self.encoder.encode_queries if part == QUERIES else self.encoder.encode_passages
        vectors = encode(texts)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        storage.write_table(self.embedding.vectors(part), pa.table({"vector": column}))
        storage.remove(self.embedding.texts(part))


def embed(
    embedding: Embedding, queries: Sequence[str], documents: Iterable[str], characters: int, job: RerankSettings
) -> list[str]:
    """Sees to it that all vectors are there, and returns the parts of the corpus, which has about so many characters.

    Raises StoppedError when a part comes to no end; the others stay.
    """
    storage.make_directory(embedding.room)
    there = set(storage.names(embedding.room)) if storage.is_directory(embedding.room) else set()
    parts, missing = [], []
    numbered = ((f"{number:06d}", texts) for number, texts in enumerate(in_parts(documents, characters)))
    for part, texts in chain([(QUERIES, queries)], numbered):
        parts.append(part)
        if os.path.basename(embedding.vectors(part)) in there:
            continue
        missing.append({"part": part})
        if os.path.basename(embedding.texts(part)) not in there:
            storage.write_table(embedding.texts(part), pa.table({"text": pa.array(texts, pa.large_string())}))
    run_stage_on_replicas(EmbedStage, embedding, missing, job, loads_model=True)
    return parts[1:]


def in_parts(documents: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Cuts a corpus of about so many characters, the same way each time."""
    most = max(PART_CHARACTERS, characters // MOST_PARTS)
    texts: list[str] = []
    size = 0
    for text in documents:
        texts.append(text)
        size += len(text)
        if size >= most or len(texts) == PART_TEXTS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts
