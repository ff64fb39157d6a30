"""Looks at the footer and some rows of every input file, and plans the units that each is cut into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from jobs.errors import UnreadableFileError
from jobs.input.cutting import (
    UNIT_BYTES,
    FilePlan,
    planned_ranges,
    read_plan,
    unit_bytes,
    unit_bytes_alone,
)
from jobs.input.sampling import BytesBesides, nothing_besides
from jobs.input.selection import EVERYTHING, Selection
from jobs.records import InputFile, PlannedFile
from jobs.runtime.threads import in_threads


@dataclass(frozen=True, slots=True)
class Survey:
    """What the input files hold, as far as their footers and samples can be read."""

    selection: Selection
    plans: Mapping[InputFile, FilePlan]
    errors: Mapping[InputFile, str]

    @property
    def total_bytes(self) -> float:
        """Decoded bytes of all rows that `--where` does not exclude, estimated."""
        return sum(rows * plan.bytes_per_row for plan in self.plans.values() for _, rows in plan.kept)

    def without(self, why_not: Callable[[pa.Schema], str | None]) -> Survey:
        """The survey in which the files that cannot be used have an error; `why_not` tells why a schema cannot be."""
        refused = {file: why for file, plan in self.plans.items() if (why := why_not(plan.schema)) is not None}
        plans = {file: plan for file, plan in self.plans.items() if file not in refused}
        return replace(self, plans=plans, errors={**self.errors, **refused})

    def planned(self, files: Sequence[InputFile], target_bytes: int | None, taken: int = 0) -> tuple[PlannedFile, ...]:
        """The plan of each file, with units of `target_bytes`, or (None) of a size that each file decides for itself.

        `taken` rows of other files count towards the limit already.
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
        ranges = tuple(planned_ranges(plan, size, start, end))
        return PlannedFile(file, end - start, ranges, cut_timestamps=plan.cut_timestamps)


def survey(
    files: Sequence[InputFile], selection: Selection = EVERYTHING, besides: BytesBesides = nothing_besides
) -> Survey:
    """Reads the footer and a sample of each file. A file that cannot be read is noted, and raises nothing.

    Raises ConfigError when a condition does not fit the columns of a file.
    """
    results = in_threads(lambda file: _plan_or_error(file, selection, besides), files)
    plans = {file: result for file, result in zip(files, results, strict=True) if isinstance(result, FilePlan)}
    errors = {file: result for file, result in zip(files, results, strict=True) if isinstance(result, str)}
    return Survey(selection, plans, errors)


def _plan_or_error(file: InputFile, selection: Selection, besides: BytesBesides) -> FilePlan | str:
    if file.fault is not None:
        return file.fault
    try:
        return read_plan(file.path, selection, besides)
    except UnreadableFileError as error:
        return error.why


def plan_files(
    found: Survey, files: Sequence[InputFile], *, followed: bool = False
) -> tuple[int, tuple[PlannedFile, ...]]:
    """The size of units, in bytes, and the plan of all files of a new job."""
    if followed:
        return UNIT_BYTES, found.planned(files, None)
    target = unit_bytes(found.total_bytes)
    return target, found.planned(files, target)
