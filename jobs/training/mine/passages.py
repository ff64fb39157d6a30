"""The passages in which `crossray mine` searches: the table that --corpus names, and an index of them in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.table.parsing import column_texts
from pipelines.errors import ConfigError
from pipelines.evaluation.bm25 import WordIndex

if TYPE_CHECKING:
    from pipelines.training.dense import DenseEncoder

QUERY_CHUNK = 64
"""Queries whose cosines to all passages are in memory at once."""


@dataclass(frozen=True, slots=True)
class PassageTable:
    """A table whose passages are searched instead of those of each source."""

    paths: tuple[str, ...]
    text: str
    """The column that has the passages."""

    def texts(self) -> Iterator[str]:
        """Yields the passages that are not blank; raises ConfigError for a table without the column."""
        for path in self.paths:

            def read(file: pq.ParquetFile, path: str = path) -> pa.Table:
                if file.schema_arrow.names.count(self.text) != 1:
                    raise ConfigError(f"--corpus-text is {self.text!r}, which {path} has not as its one column")
                return file.read([self.text])

            column = storage.read_parquet(path, read).column(self.text)
            yield from (text for text in column_texts(column) if isinstance(text, str) and text.strip())


def digest_of(passage: str) -> int:
    """The digest of a passage, 64 bits with a sign, as Arrow and numpy take it."""
    return int.from_bytes(hashlib.blake2b(passage.encode(), digest_size=8).digest(), signed=True)


class Passages:
    """Distinct passages, indexed by their words, and by their vectors where there is an encoder."""

    def __init__(self, texts: Iterable[str], encoder: DenseEncoder | None) -> None:
        self.texts = list(dict.fromkeys(texts))
        self.place = {digest_of(text): place for place, text in enumerate(self.texts)}
        self.words = WordIndex(self.texts)
        self.encoder = encoder
        self.vectors = None if encoder is None else encoder.encode_passages(self.texts)

    def rankings(self, queries: Sequence[str]) -> Iterator[list[tuple[np.ndarray, float]]]:
        """Yields for each query the scores of all passages by BM25, then by cosine if there is an encoder.

        With each kind of scores comes the value that the score of a candidate exceeds.
        """
        by_words = map(self.words.scores, queries)
        if self.encoder is None or self.vectors is None:
            yield from ([(scores, 0.0)] for scores in by_words)
            return
        for start in range(0, len(queries), QUERY_CHUNK):
            chunk = self.encoder.encode_queries(queries[start : start + QUERY_CHUNK])
            for cosines in chunk @ self.vectors.T:
                yield [(next(by_words), 0.0), (cosines, -np.inf)]
