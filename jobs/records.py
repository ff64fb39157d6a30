"""The nouns of a job: files, units of work and what becomes of them. They know no storage, no table and no Ray."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.records import Usage


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file and what tells whether it is still the same."""

    path: str
    """A location."""
    size: int
    """Bytes."""
    version: str
    """Changes with the content: the etag in object stores, elsewhere the time of modification in ns."""

    @property
    def state(self) -> str:
        """Size and version: what a unit remembers of its file."""
        return f"{self.size} {self.version}"

    @property
    def fault(self) -> str | None:
        """Why nobody can read it, as far as a listing tells; None where nothing is known against it."""
        return self.version.removeprefix(FAULT) if self.version.startswith(FAULT) else None


FAULT = "cannot be read: "
"""Begins the version of what was listed and cannot be read. It is reported as any file is that cannot be read."""
NAME_IS_NOT_UTF8 = f"{FAULT}its name is not UTF-8; rename it"
"""Of a file whose name cannot be written down: its path says what the name is like."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows `start` to `start + rows` of one file."""

    path: str
    start: int
    rows: int
    file_state: str = ""
    """Of the file when it was planned (`InputFile.state`); empty where nobody has to compare it."""
    id: str = ""
    """Says of which job and of which version of the file the part is; empty in jobs that an earlier version began."""

    @property
    def name(self) -> str:
        """The part file of this unit: the same for the same rows of the same file in one job, whoever writes it."""
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in os.path.splitext(os.path.basename(self.path))[0])
        stem = stem[:60].encode()[:STEM_BYTES].decode(errors="ignore")
        digest = hashlib.sha256(self.path.encode()).hexdigest()[:10]
        job = f"-{self.id}" if self.id else ""
        return f"part-{stem}-{digest}-{self.start:012d}-{self.rows}{job}.parquet"


STEM_BYTES = 180
"""Of a part's name, whose other bytes are some 70; disks take 255. Earlier versions could write no longer ones."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One input file: how it looked when it was planned, and its units."""

    file: InputFile
    rows: int
    """Those that this run takes: its share, up to the limit."""
    ranges: tuple[tuple[int, int], ...]
    """(start, rows) of each unit; rows that `--where` leaves out unread are in none."""
    error: str | None = None
    """Why the file could not be read; it has no units then."""
    cut_timestamps: tuple[tuple[str, int], ...] = ()
    """Columns whose timestamps are cut to microseconds, and how many of the file's values that changes."""
    id: str = ""
    """See `Unit`."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        seen = {"path": self.file.path, "size": self.file.size, "version": self.file.version}
        cut = {"cut_timestamps": dict(self.cut_timestamps)} if self.cut_timestamps else {}
        return {**seen, "rows": self.rows, "units": self.ranges, "error": self.error, "id": self.id, **cut}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> PlannedFile:
        """The inverse of `as_dict`."""
        file = InputFile(raw["path"], raw["size"], raw["version"])
        ranges = tuple((start, rows) for start, rows in raw["units"])
        cut = tuple(raw.get("cut_timestamps", {}).items())
        return cls(file, raw["rows"], ranges, raw["error"], cut, raw.get("id", ""))

    def units(self) -> Iterator[Unit]:
        return (Unit(self.file.path, start, rows, self.file.state, self.id) for start, rows in self.ranges)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one unit holds and took: deterministic, so it says the same after any number of attempts. Adds up."""

    rows: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Rows by the reason of their error."""
    usage: Usage = field(default_factory=Usage)
    rows_left_out: int = 0
    """Rows of the unit that `--where` left out, on top of `rows`."""
    null_documents: int = 0
    """Documents that are null in lists whose other documents are ranked."""
    documents_below_threshold: int = 0
    """Documents that `--score-threshold` left out."""

    def __add__(self, other: Counts) -> Counts:
        errors = dict(Counter(self.errors) + Counter(other.errors))
        return Counts(
            rows=self.rows + other.rows,
            errors=dict(sorted(errors.items())),
            usage=self.usage + other.usage,
            rows_left_out=self.rows_left_out + other.rows_left_out,
            null_documents=self.null_documents + other.null_documents,
            documents_below_threshold=self.documents_below_threshold + other.documents_below_threshold,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON types: the counts of rows, errors, and the fields of Usage beside them."""
        names = ("rows", "rows_left_out", "null_documents", "documents_below_threshold")
        return {**{name: getattr(self, name) for name in names}, "errors": self.errors, **asdict(self.usage)}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Counts:
        """The inverse of `as_dict`; fields that it does not know are left out."""
        raw = {"rows_left_out": 0, **UNWRITTEN_COUNTS, **raw}
        usage = Usage(**{name: raw[name] for name in Usage.__dataclass_fields__})
        unwritten = {name: raw[name] for name in UNWRITTEN_COUNTS}
        return cls(raw["rows"], raw["errors"], usage, raw["rows_left_out"], **unwritten)


UNWRITTEN_COUNTS = {"null_documents": 0, "documents_below_threshold": 0}
"""What a part or summary of an earlier version does not say: to it, a list with a null document was an error, and there
was no threshold, or what it left out was not counted."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Who scored a unit, and when by the clock there."""

    replica: str
    began: float
    """With its rows at hand; seconds since the epoch."""
    ended: float
    """With its answer, not yet written."""
    peak_memory: int = 0
    """The most bytes that its process had in memory by then."""
    peak_gpu_memory: int = 0
    """The same of its GPU's memory; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class UnitReport:
    """How it went. A unit whose `error`, `failure` and `stop` are all None has its part."""

    unit: Unit
    counts: Counts = field(default_factory=Counts)
    error: str | None = None
    """Why its rows cannot be read: the file is at fault."""
    failure: str | None = None
    """Why its part could not be written although the rows were fine, such as a full disk."""
    stop: str | None = None
    """Why it would fail for all other units too."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: see `jobs.output.accounting`."""
    scored: Scored | None = None
    """By which replica and when; None where it was not."""
    chunks_reused: int = 0
    """Those that did not go through the model."""
    not_stored: str | None = None
    """Why its new logits are not in the score store."""
