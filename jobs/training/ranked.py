"""Scores list files of `label` and `mine` with the offline job, which resumes by itself, and reads the scores back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
from rich.console import Console

from jobs import storage
from jobs.errors import StoppedError
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.settings import RerankSettings
from jobs.table.columns import ColumnMapping
from jobs.table.reasons import reason_of
from jobs.training.bad_rows import BadRow

LISTS = pa.schema({"row": pa.int64(), "query": pa.string(), "documents": pa.list_(pa.string())})
"""The columns of a list file; a file may have more."""
MAPPING = ColumnMapping(drop=("query", "documents"), strict_documents=True)


class ScoredDocument(NamedTuple):
    """A document of a list with its score."""

    place: int
    """Place of the document in the list, from 0."""
    score: float


def rank_lists(lists: str, output: str, settings: RerankSettings, console: Console) -> dict[str, Any] | None:
    """Scores all list files in a directory, in a Ray session; the same call resumes. Raises StoppedError.

    Returns the job's summary; None where there is nothing to score.
    """
    from jobs.driver.run import run

    if not storage.find_input(lists):
        return None
    summary = run(replace(settings, input=lists, output=output, mapping=MAPPING, overwrite=False), console=console)
    if summary["unreadable"]:
        path, why = next(iter(summary["unreadable"].items()))
        raise StoppedError(f"{path} cannot be read ({why}); remove it and {output}, and run the same command again")
    return summary


@dataclass(frozen=True, slots=True)
class Rankings:
    """The output of the offline job, to be read by list file."""

    output: str
    parts: Mapping[str, tuple[str, ...]]
    """Names of the parts that hold the rows of each list file, in order."""

    @classmethod
    def of(cls, output: str) -> Rankings:
        """Finds the parts in the job's manifest; there are none where there was nothing to rank."""
        directory = OutputDirectory(output)
        if not directory.is_begun:
            return cls(output, {})
        files = Manifest.read(directory.manifest).files
        return cls(output, {file.file.path: tuple(unit.name for unit in file.units()) for file in files})

    def read(self, list_file: str) -> dict[int, list[ScoredDocument] | BadRow]:
        """The documents of each row, best first, or why it has no scores; by the column `row`."""
        found: dict[int, list[ScoredDocument] | BadRow] = {}
        for name in self.parts.get(list_file, ()):
            location = os.path.join(self.output, name)
            table = storage.read_parquet(location, lambda file: file.read(["row", "ranking", "error"]))
            for row in table.to_pylist():
                found[row["row"]] = ranked_documents(row)
        return found


def ranked_documents(row: Mapping[str, Any]) -> list[ScoredDocument] | BadRow:
    """The documents of one row of the job's output, or why it has no scores."""
    if row["error"] is not None:
        return BadRow(reason_of(row["error"]), row["error"].partition(": ")[2])
    return [ScoredDocument(one["index"], one["relevance_score"]) for one in row["ranking"]]
