"""`_manifest.json`: what a job was asked to do, written before anything else; a later run has to ask for the same.

It binds: the plan of a file stands as long as the file does, whatever replicas and budgets a resumption has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jobs.errors import RefusedError, StoreError
from jobs.records import InputFile, PlannedFile, Unit
from jobs.selection import EVERYTHING, Selection
from jobs.storage import FOOTER_THREADS, read_json, write_json
from jobs.units import UNIT_BYTES, FilePlan, planned_ranges, read_plan, unit_bytes, unit_bytes_alone
from pipelines.errors import ConfigError

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """The job as asked for."""

    fingerprint: Mapping[str, Any]
    """Hash and readable parts."""
    options: Mapping[str, Any]
    """What else changes the result."""
    unit_bytes: int
    files: tuple[PlannedFile, ...]
    created: str
    versions: Mapping[str, str]
    followed: bool = False
    """Whether a follower had a part in it: then finished files may go or change, and a file's units depend on it alone.
    """

    def units(self) -> list[Unit]:
        """All units, file by file."""
        return [unit for file in self.files for unit in file.units()]

    @property
    def rows(self) -> int:
        """Rows of all readable files, as far as this run takes them."""
        return sum(file.rows for file in self.files)

    @property
    def rows_left_out(self) -> int:
        """Those of them that are in no unit."""
        return sum(file.rows - sum(rows for _, rows in file.ranges) for file in self.files if file.error is None)

    def write(self, path: str) -> None:
        files = [file.as_dict() for file in self.files]
        fields = {name: getattr(self, name) for name in ("created", "fingerprint", "options", "unit_bytes", "versions")}
        write_json(path, {"format": FORMAT, **fields, "followed": self.followed, "files": files})

    @classmethod
    def read(cls, path: str) -> Manifest:
        """Raises RefusedError for a manifest that another format wrote."""
        try:
            raw = read_json(path)
            if raw["format"] != FORMAT:
                raise RefusedError(f"{path} has format {raw['format']}, this version writes {FORMAT}; use --overwrite")
            files = tuple(
                PlannedFile(
                    InputFile(file["path"], file["size"], file["version"]),
                    file["rows"],
                    tuple((start, rows) for start, rows in file["units"]),
                    file["error"],
                )
                for file in raw["files"]
            )
            fields = {name: raw[name] for name in ("created", "fingerprint", "options", "unit_bytes", "versions")}
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(
                f"{path} is damaged ({error!r}); remove the output directory or use --overwrite"
            ) from None
        return cls(files=files, followed=raw.get("followed", False), **fields)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the input files hold, as far as their footers and samples can be read."""

    selection: Selection
    plans: Mapping[InputFile, FilePlan]
    errors: Mapping[InputFile, str]

    @property
    def total_bytes(self) -> float:
        """Decoded, estimated; of what `--where` does not exclude."""
        return sum(rows * plan.bytes_per_row for plan in self.plans.values() for _, rows in plan.kept)

    def planned(self, files: Sequence[InputFile], target_bytes: int | None, taken: int = 0) -> tuple[PlannedFile, ...]:
        """The plan of each file, with units of this size, or (None) of one that goes by the file's own.

        `taken` rows of others count towards the limit already.
        """
        planned = []
        for file in files:
            planned.append(self._planned(file, target_bytes, taken))
            taken += planned[-1].rows
        return tuple(planned)

    def _planned(self, file: InputFile, target_bytes: int | None, taken: int) -> PlannedFile:
        plan = self.plans.get(file)
        if plan is None:
            return PlannedFile(file, 0, (), self.errors[file])
        start, end = self.selection.rows_of(file, plan.rows, plan.kept, taken)
        size = unit_bytes_alone(plan) if target_bytes is None else target_bytes
        return PlannedFile(file, end - start, tuple(planned_ranges(plan, size, start, end)))


def survey(files: Sequence[InputFile], selection: Selection = EVERYTHING) -> Survey:
    """Reads the footer and a sample of each file; what cannot be read is an error, not an exception.

    Raises ConfigError when a condition does not fit the columns of a file.
    """
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        results = list(pool.map(lambda file: _plan_or_error(file, selection), files))
    plans = {file: result for file, result in zip(files, results, strict=True) if isinstance(result, FilePlan)}
    errors = {file: result for file, result in zip(files, results, strict=True) if isinstance(result, str)}
    return Survey(selection, plans, errors)


def _plan_or_error(file: InputFile, selection: Selection) -> FilePlan | str:
    try:
        return read_plan(file.path, selection)
    except (ConfigError, StoreError):  # no file is at fault
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def plan_files(
    found: Survey, files: Sequence[InputFile], *, followed: bool = False
) -> tuple[int, tuple[PlannedFile, ...]]:
    """Unit size and plan of a new job."""
    if followed:
        return UNIT_BYTES, found.planned(files, None)
    target = unit_bytes(found.total_bytes)
    return target, found.planned(files, target)


def check_same_job(manifest: Manifest, fingerprint: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises RefusedError, naming both values, when the output belongs to another job."""
    before, now = {**manifest.fingerprint, **manifest.options}, {**fingerprint, **options}
    names = [name for name in {**before, **now} if name != "hash" and before.get(name) != now.get(name)]
    if names:
        changes = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names)
        raise RefusedError(
            f"OUTPUT was begun with other settings: {changes}; give the same settings to go on, another OUTPUT, "
            "or --overwrite to start anew"
        )


def reconcile(
    manifest: Manifest, files: Sequence[InputFile], finished: set[str], selection: Selection = EVERYTHING
) -> tuple[Manifest, bool]:
    """The manifest for the input as it is now, and whether it differs from the one before.

    A file with finished units must be what it was (RefusedError); any other may change, and new files are planned.
    Once a follower had a part in the job, finished files may go (log rotation), and other content under the name of one
    is left alone: what was not read before it came is an error of the file.
    """
    now = {file.path: file for file in files}
    kept: list[PlannedFile] = []
    for planned in manifest.files:
        current = now.get(planned.file.path)
        if current == planned.file and planned.error is None:
            kept.append(planned)
            del now[current.path]
        elif current != planned.file and any(unit.name in finished for unit in planned.units()):
            state = "was removed" if current is None else "has changed"
            if not manifest.followed:
                raise RefusedError(
                    f"input file {planned.file.path} {state} after units of it were finished; "
                    "restore it, or use --overwrite to start anew"
                )
            kept.append(without_lost_units(planned, finished, f"{state} before all of it was ranked"))
            now.pop(planned.file.path, None)
    fresh = list(now.values())
    size = None if manifest.followed else manifest.unit_bytes
    planned_anew = survey(fresh, selection).planned(fresh, size, taken=sum(one.rows for one in kept))
    result = replace(manifest, files=tuple(sorted([*kept, *planned_anew], key=lambda one: one.file.path)))
    return result, result.files != manifest.files


def without_lost_units(planned: PlannedFile, finished: set[str], why: str) -> PlannedFile:
    """The plan of a file that cannot be read any more: the units that have their part, and why there are no others."""
    ranges = tuple((unit.start, unit.rows) for unit in planned.units() if unit.name in finished)
    return planned if ranges == planned.ranges else replace(planned, ranges=ranges, error=planned.error or why)
