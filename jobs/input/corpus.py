"""`--corpus`: a table that has the texts of documents by their ids, for candidate lists that hold ids alone.

What there is of it is found in `jobs.joins.corpus.survey`. How ids come to texts lives in `jobs.joins.corpus.lookup`,
how the texts come to the rows of a unit in `jobs.joins.corpus.attaching`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import ConfigError

if TYPE_CHECKING:  # what reads and writes files takes half a second to load, spared to --help
    from jobs.records import InputFile, Unit


@dataclass(frozen=True, slots=True)
class CorpusPlan:
    """What is in the corpus, as far as the footers and samples of its files tell."""

    files: tuple[InputFile, ...]
    segments: tuple[Unit, ...]
    """Row ranges that cover it."""
    rows: int
    bytes: float
    """Decoded, estimated; ids and texts alone."""
    left_out: tuple[InputFile, ...] = ()
    """Files beside them that are no Parquet."""

    @property
    def bytes_per_row(self) -> float:
        return self.bytes / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class Corpus:
    """The corpus that the flags ask for. Raises ConfigError for a bound that cannot work."""

    path: str
    """A Parquet file, a directory or a glob; a local path or a uri."""
    id_column: str = "id"
    text_column: str = "text"
    memory: int | None = None
    """Bytes up to which each node gets the whole corpus; None is a share of its object store."""
    plan: CorpusPlan | None = None
    """What was found there, once somebody has looked."""

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < 0:
            raise ConfigError(f"--corpus-memory is {self.memory}; it is 0 bytes or more")

    @property
    def found(self) -> CorpusPlan:
        """The plan of a corpus at which `surveyed` has looked."""
        assert self.plan is not None
        return self.plan

    def identity(self) -> dict[str, Any]:
        """What tells one corpus from another, as JSON types: a digest over path, size and version of its files."""
        files = self.found.files
        digest = hashlib.sha256(json.dumps([astuple(file) for file in files]).encode()).hexdigest()[:16]
        size = sum(file.size for file in files)
        columns = {"id_column": self.id_column, "text_column": self.text_column}
        return {"path": self.path, **columns, "files": len(files), "bytes": size, "digest": digest}
