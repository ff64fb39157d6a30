"""`_manifest.json`: what a job was asked to do. It is written before anything else; a later run has to ask the same.

Its plan of a file stands as long as the file does, whatever replicas and budgets a later run has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.errors import RefusedError
from jobs.output.options import JobOptions
from jobs.records import PlannedFile, Unit
from jobs.storage import read_json, write_json
from jobs.table.columns import FLAG_OF_COLUMN

FORMAT = 1
ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a job was asked to do, and its plan."""

    fingerprint: Mapping[str, Any]
    """Hash and readable parts."""
    options: JobOptions
    """What else changes the result."""
    unit_bytes: int
    files: tuple[PlannedFile, ...]
    created: str
    versions: Mapping[str, str]
    followed: bool = False
    """Whether a follower had a part in it: then finished files may go or change, and a file's units depend on it alone.
    """
    grouped: str = ""
    """With `--group-by`, the name of the directory in which this job groups, and no other; empty in jobs that an
    earlier version began."""

    def units(self) -> list[Unit]:
        """All units, file by file."""
        return [unit for file in self.files for unit in file.units()]

    @property
    def rows(self) -> int:
        """Rows of all readable files, as far as this run takes them."""
        return sum(file.rows for file in self.files)

    @property
    def rows_left_out(self) -> int:
        """Rows among them that are in no unit, since `--where` leaves out their row groups unread."""
        return sum(file.rows - sum(rows for _, rows in file.ranges) for file in self.files if file.error is None)

    def with_files(self, files: Iterable[PlannedFile]) -> Manifest:
        """The manifest with these files in order, each with an id; those that have one keep it."""
        begun = any(one.ranges and not one.id for one in self.files)  # by an earlier version, which wrote no ids
        named = (one if one.id or begun else replace(one, id=self.id_of(one)) for one in files)
        return replace(self, files=tuple(sorted(named, key=lambda one: one.file.path)))

    def id_of(self, planned: PlannedFile) -> str:
        """The id in the names of a file's parts; with another job or another version of the file it is another.

        A plan that is only read, as `crossray pairs` makes one, has no fingerprint.
        """
        about = [self.fingerprint.get("hash"), self.options.as_dict(), asdict(planned.file)]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]

    def write(self, path: str) -> None:
        write_json(
            path,
            {
                "format": FORMAT,
                "created": self.created,
                "fingerprint": self.fingerprint,
                "options": self.options.as_dict(),
                "unit_bytes": self.unit_bytes,
                "versions": self.versions,
                "followed": self.followed,
                **({"grouped": self.grouped} if self.grouped else {}),
                "files": [file.as_dict() for file in self.files],
            },
        )

    @classmethod
    def read(cls, path: str) -> Manifest:
        """Raises RefusedError for a manifest that another format wrote."""
        try:
            raw = read_json(path)
            if raw["format"] != FORMAT:
                raise RefusedError(f"{path} has format {raw['format']}, this version writes {FORMAT}; use --overwrite")
            return cls(
                fingerprint=raw["fingerprint"],
                options=JobOptions.from_dict(raw["options"]),
                unit_bytes=raw["unit_bytes"],
                files=tuple(PlannedFile.from_dict(file) for file in raw["files"]),
                created=raw["created"],
                versions=raw["versions"],
                followed=raw.get("followed", False),
                grouped=raw.get("grouped", ""),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(
                f"{path} is damaged ({error!r}); remove the output directory or use --overwrite"
            ) from None


def check_same_job(manifest: Manifest, fingerprint: Mapping[str, Any], options: JobOptions) -> None:
    """Raises RefusedError, naming both values, when the output belongs to another job."""
    told = differences(manifest, fingerprint, options)
    if told:
        raise RefusedError(
            f"OUTPUT was begun with other settings: {'; '.join(told)}; give the same settings to go on, another "
            "OUTPUT, or --overwrite to start anew"
        )


def differences(manifest: Manifest, fingerprint: Mapping[str, Any], options: JobOptions) -> list[str]:
    """What another fingerprint and other options have otherwise, each by the name of its flag with both values."""
    of_model = changes(manifest.fingerprint, fingerprint)
    if len(of_model) > 1:
        of_model.pop("hash", None)  # what it is made of says more
    of_options = changes(manifest.options.as_dict(), options.as_dict())
    told = [f"{NAMES_OF_MODEL.get(name, name)} {change}" for name, change in of_model.items()]
    return told + [f"{NAMES_OF_OPTIONS.get(name, name)} {change}" for name, change in of_options.items()]


NAMES_OF_MODEL = {
    "hash": "fingerprint of the model",
    "files": "--model (SHA-256 of its files)",
    "layout": "layout of the model's checkpoint",
    "dtype": "--dtype",
    "calibration": "calibration (scale and bias)",
    "max_length": "--max-length",
    "max_query_length": "--max-query-length",
    "overlap_tokens": "--overlap-tokens",
    "max_chunks_per_doc": "--max-chunks-per-doc",
    "instruction": "--instruction",
}
"""How a message calls parts of a fingerprint; those without a name here have no flag."""
NAMES_OF_OPTIONS = {
    **FLAG_OF_COLUMN,
    "layout": "--layout",
    "top_n": "--top-n",
    "score_threshold": "--score-threshold",
    "raw_scores": "--raw-scores",
    "limit": "--limit",
    "shard": "--shard",
    "where": "--where",
    "group_by": "--group-by",
    "corpus": "--corpus",
    "partitions": "columns that the paths of INPUT add:",
    "grouped_files": "files of INPUT:",
}
"""How a message calls options; those without a name here are of another version."""


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Both values of each name whose values differ."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return {name: f"was {before.get(name)!r}, is {now.get(name)!r}" for name in names}
