"""The output directory of `label` and `mine`: the manifest is written first, then parts, and the summary last.

Parts lie side by side. What one stage writes for the next lies in folders whose names begin with `_`, called rooms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from rich.console import Console

from jobs import storage
from jobs.driver.planning import library_versions
from jobs.errors import RefusedError, StoppedError
from jobs.output.directory import OutputDirectory
from jobs.output.lease import Lease, hold_lease
from jobs.records import InputFile
from jobs.runtime.threads import in_threads
from jobs.screen import say

FORMAT = 1
METADATA_KEY = b"crossray_counts"
"""Key of a part's counts in its Parquet metadata."""
UNREADABLE = "_unreadable"
"""Room of the notes that say which file could not be read, and why."""


@dataclass(frozen=True, slots=True)
class TableOutput:
    """The output directory of one labelling or mining."""

    path: str
    command: str
    rooms: tuple[str, ...]
    """Names of the rooms that the command makes besides UNREADABLE."""

    @property
    def directory(self) -> OutputDirectory:
        return OutputDirectory(self.path)

    def room(self, name: str) -> str:
        """The folder in which a stage leaves its files."""
        return os.path.join(self.path, name)

    def part(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Makes the directory and keeps other drivers out of it.

        Raises RefusedError where others wrote it or another driver uses it, ConfigError where it cannot be made.
        """
        self.directory.create()
        with hold_lease(self.path) as lease:
            self.directory.remove_temporaries()
            yield lease

    def finish(self, lease: Lease, summary: Mapping[str, Any], *done: str) -> None:
        """Writes the summary, and removes the rooms that are `done` and what killed replicas left in the others.

        Raises LostLease when the directory is another driver's by now.
        """
        lease.check()
        for directory in filter(storage.is_directory, (self.path, *map(self.room, self.rooms))):
            storage.remove_temporaries(directory)
        storage.write_json(self.directory.summary, summary)
        self.leave_rooms(*done)

    def begin(
        self, options: Mapping[str, Any], files: Sequence[InputFile], plan: Mapping[str, Any], *, overwrite: bool
    ) -> dict[str, Any]:
        """The manifest of this job: that of an earlier run of it, or else a new one; what another job left is removed.

        Raises RefusedError where it was another job and `overwrite` is not given.
        """
        if not self.directory.is_begun:
            return self.write_manifest(options, files, plan)
        before = storage.read_json(self.directory.manifest)
        if before.get("command") != self.command or before.get("format") != FORMAT:
            raise RefusedError(f"OUTPUT {self.path} holds what another command wrote; give another directory")
        changes = differences(before, options, files)
        if not changes:
            return dict(before)
        if not overwrite:
            raise RefusedError(
                f"OUTPUT was begun with other settings: {'; '.join(changes)}; give the same to go on, another OUTPUT, "
                "or --overwrite to replace what is there"
            )
        self.clear()
        return self.write_manifest(options, files, plan)

    def write_manifest(
        self, options: Mapping[str, Any], files: Sequence[InputFile], plan: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Writes what was asked for and how the input is cut, which later runs keep; returns it as it is read."""
        manifest = {
            "format": FORMAT,
            "command": self.command,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": library_versions(),
            "options": options,
            "files": [astuple(file) for file in files],
            **plan,
        }
        storage.write_json(self.directory.manifest, manifest)
        return dict(storage.read_json(self.directory.manifest))

    def told_complete(self, console: Console) -> dict[str, Any]:
        """Says that the job is done, and returns its summary."""
        say(console, f"{self.path} is complete, and INPUT is what it was; another OUTPUT starts anew")
        return dict(storage.read_json(self.directory.summary))

    def enter_rooms(self) -> None:
        """Makes the rooms; removes the summary, half-written files, and the notes, so that files are tried again."""
        storage.remove(self.directory.summary)
        storage.remove_below(self.room(UNREADABLE))
        for name in (UNREADABLE, *self.rooms):
            storage.make_directory(self.room(name))
            if storage.is_directory(self.room(name)):
                storage.remove_temporaries(self.room(name))

    def there(self, room: str) -> set[str]:
        """Names of the files in a room; none where the room is not there."""
        return set(storage.names(self.room(room))) if storage.is_directory(self.room(room)) else set()

    def unreadable(self) -> dict[str, str]:
        """Why files could not be read, by path."""
        notes = [
            storage.read_json(os.path.join(self.room(UNREADABLE), name)) for name in sorted(self.there(UNREADABLE))
        ]
        return {note["path"]: note["error"] for note in notes}

    def clear(self) -> None:
        """Removes all that a job wrote, its manifest last."""
        self.leave_rooms(*self.rooms)
        self.directory.clear()

    def leave_rooms(self, *names: str) -> None:
        """Removes these rooms and the notes."""
        for name in (UNREADABLE, *names):
            storage.remove_below(self.room(name))


def differences(before: Mapping[str, Any], wanted: Mapping[str, Any], files: Sequence[InputFile]) -> list[str]:
    """Says in words how a job differs from the one whose manifest is `before`."""
    then, now = before["options"], json.loads(storage.to_json(wanted))
    changes = [
        f"{name} was {then.get(name)!r}, is {now.get(name)!r}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]
    old, new = {one[0]: tuple(one) for one in before["files"]}, {file.path: astuple(file) for file in files}
    changes += [f"input file {path} is new" for path in sorted(new.keys() - old.keys())]
    changes += [f"input file {path} was removed" for path in sorted(old.keys() - new.keys())]
    changes += [f"input file {path} has changed" for path in sorted(old.keys() & new.keys()) if old[path] != new[path]]
    return changes


def note_unreadable(output: str, name: str, path: str, error: BaseException | str) -> None:
    """Leaves a note that a file could not be read; each `name` has its own note."""
    why = error if isinstance(error, str) else f"{type(error).__name__}: {error}".splitlines()[0]
    storage.write_json(os.path.join(output, UNREADABLE, f"{name}.json"), {"path": path, "error": why})


def write_counted(location: str, table: pa.Table, counts: Mapping[str, Any]) -> None:
    """Writes a part, with its counts in the footer.

    The metadata of the input is left out: pandas, Spark and datasets list all columns there and would miss the new.
    """
    metadata = {METADATA_KEY: json.dumps(counts, sort_keys=True).encode()}
    storage.write_table(location, table.replace_schema_metadata(metadata))


def read_counts(locations: Sequence[str]) -> list[dict[str, Any]]:
    """The counts in the footers of parts; raises StoppedError for a file that this command did not write."""

    def counts_of(location: str) -> dict[str, Any]:
        metadata = storage.read_parquet(location, lambda file: file.metadata.metadata)
        try:
            return dict(storage.parse_json((metadata or {})[METADATA_KEY]))
        except (ValueError, KeyError, TypeError):
            raise StoppedError(
                f"{location} is not a part of this job; remove it and run the same command again"
            ) from None

    return in_threads(counts_of, locations)


def added_up(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts by name, the highest first."""
    total: dict[str, int] = {}
    for one in counts:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
