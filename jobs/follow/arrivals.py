"""Tells which files of a followed input are whole, and since when each is known. It sees listings and opens no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.records import InputFile


@dataclass(frozen=True, slots=True)
class Sighting:
    """A file that was seen in a listing and is not planned yet."""

    file: InputFile
    first_seen: float
    """When a file of this name was first listed, by the follower's clock."""
    unchanged_since: float


class Arrivals:
    """Files that have come and are not taken yet.

    On a local disk a file is whole when it has not changed for `settle_seconds`; an object store shows whole objects
    only (0).
    """

    def __init__(self, settle_seconds: float) -> None:
        self.settle_seconds = settle_seconds
        self.sightings: Mapping[str, Sighting] = {}

    def note(self, files: Iterable[InputFile], now: float) -> None:
        """Takes note of the files of a listing that are not planned yet."""
        self.sightings = {file.path: self._seen(file, now) for file in files}

    def _seen(self, file: InputFile, now: float) -> Sighting:
        before = self.sightings.get(file.path)
        if before is None:
            return Sighting(file, now, now)
        return before if before.file == file else Sighting(file, before.first_seen, now)

    def whole(self, now: float, most: int) -> list[InputFile]:
        """Up to `most` of the files that are whole, those first that are known longest."""
        settled = [one for one in self.sightings.values() if now - one.unchanged_since >= self.settle_seconds]
        settled.sort(key=lambda one: (one.first_seen, one.file.path))
        return [one.file for one in settled[:most]]
