"""`_manifest.json`: what a job was asked to do, written before anything else; a later run has to ask for the same.

It binds: the plan of a file stands as long as the file does, whatever replicas and budgets a resumption has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from jobs.errors import RefusedError, StoreError
from jobs.storage import InputFile, read_json, write_json
from jobs.units import FilePlan, Unit, cut, read_plan, unit_bytes

FORMAT = 1
FOOTER_THREADS = 16


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One input file: how it looked when it was planned, and its units."""

    file: InputFile
    rows: int
    ranges: tuple[tuple[int, int], ...]
    """(start, rows) of each unit."""
    error: str | None = None
    """Why the file could not be read; it has no units then."""

    def units(self) -> Iterator[Unit]:
        return (Unit(self.file.path, start, rows) for start, rows in self.ranges)


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

    def units(self) -> list[Unit]:
        """All units, file by file."""
        return [unit for file in self.files for unit in file.units()]

    @property
    def rows(self) -> int:
        """Rows of all readable files."""
        return sum(file.rows for file in self.files)

    def write(self, path: str) -> None:
        files = [
            {**asdict(file.file), "rows": file.rows, "units": file.ranges, "error": file.error} for file in self.files
        ]
        fields = {name: getattr(self, name) for name in ("created", "fingerprint", "options", "unit_bytes", "versions")}
        write_json(path, {"format": FORMAT, **fields, "files": files})

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
        return cls(files=files, **fields)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the input files hold, as far as their footers and samples can be read."""

    plans: Mapping[InputFile, FilePlan]
    errors: Mapping[InputFile, str]

    @property
    def total_bytes(self) -> float:
        """Decoded, estimated."""
        return sum(plan.rows * plan.bytes_per_row for plan in self.plans.values())

    def planned(self, file: InputFile, target_bytes: int) -> PlannedFile:
        plan = self.plans.get(file)
        if plan is None:
            return PlannedFile(file, 0, (), self.errors[file])
        return PlannedFile(file, plan.rows, tuple(cut(plan, target_bytes)))


def survey(files: Sequence[InputFile]) -> Survey:
    """Reads the footer and a sample of each file; what cannot be read is an error, not an exception."""
    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        results = list(pool.map(_plan_or_error, files))
    plans = {file: result for file, result in zip(files, results, strict=True) if isinstance(result, FilePlan)}
    errors = {file: result for file, result in zip(files, results, strict=True) if isinstance(result, str)}
    return Survey(plans, errors)


def _plan_or_error(file: InputFile) -> FilePlan | str:
    try:
        return read_plan(file.path)
    except StoreError:
        raise  # no file is at fault
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def plan_files(found: Survey, files: Sequence[InputFile]) -> tuple[int, tuple[PlannedFile, ...]]:
    """Unit size and plan of a new job."""
    target = unit_bytes(found.total_bytes)
    return target, tuple(found.planned(file, target) for file in files)


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


def reconcile(manifest: Manifest, files: Sequence[InputFile], finished: set[str]) -> tuple[Manifest, bool]:
    """The manifest for the input as it is now, and whether it differs from the one before.

    A file with finished units must be what it was (RefusedError); any other may change, and new files are planned.
    """
    now = {file.path: file for file in files}
    kept: list[PlannedFile] = []
    for planned in manifest.files:
        current = now.get(planned.file.path)
        if current == planned.file and planned.error is None:
            kept.append(planned)
            del now[current.path]
        elif any(unit.name in finished for unit in planned.units()):
            state = "was removed" if current is None else "has changed"
            raise RefusedError(
                f"input file {planned.file.path} {state} after units of it were finished; "
                "restore it, or use --overwrite to start anew"
            )
    fresh = list(now.values())
    found = survey(fresh)
    planned_anew = [found.planned(file, manifest.unit_bytes) for file in fresh]
    result = replace(manifest, files=tuple(sorted([*kept, *planned_anew], key=lambda one: one.file.path)))
    return result, result.files != manifest.files
