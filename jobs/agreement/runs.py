"""One side of a comparison: the output of a job, as far as it is there."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import RefusedError, UnreadableFileError
from jobs.output.directory import MANIFEST, OutputDirectory
from jobs.output.manifest import Manifest, differences
from jobs.records import Unit
from jobs.storage import absolute
from jobs.table.columns import GroupBy, Layout, output_names
from pipelines.errors import ConfigError

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Run:
    """The output of a job."""

    path: str
    manifest: Manifest
    units: tuple[Unit, ...]
    """Those that have their part, in the order of the plan."""
    is_complete: bool

    @property
    def answer(self) -> str:
        """The name of the column with rankings, or with scores."""
        return output_names(self.manifest.options.mapping, self.manifest.options.layout)[0]

    @property
    def error(self) -> str:
        """The name of the column with errors."""
        return output_names(self.manifest.options.mapping, self.manifest.options.layout)[1]

    def read_part(self, number: int, reader: Callable[[pq.ParquetFile], Read]) -> Read:
        """What the reader makes of the part of a unit; raises UnreadableFileError."""
        return storage.read_parquet(os.path.join(self.path, self.units[number].name), reader)

    def columns(self, number: int, names: Sequence[str]) -> pa.Table:
        """Those of the columns that the part of a unit has."""
        return self.read_part(number, lambda file: file.read([one for one in names if one in file.schema_arrow.names]))

    def answers(self, number: int, more: Sequence[str] = ()) -> pa.Table:
        """The answers and errors in the part of a unit, and those of the columns `more` that it has.

        Raises UnreadableFileError, also where something else stands in the place of the part.
        """
        table = self.columns(number, [self.answer, self.error, *more])
        for name in (self.answer, self.error):
            if name not in table.column_names:
                part = os.path.join(self.path, self.units[number].name)
                raise UnreadableFileError(part, f"it has no column `{name}`, and is no part of a job")
        return table


def read_run(location: str, what: str) -> Run:
    """The run in an output directory; raises ConfigError where there is none that can be read."""
    output = OutputDirectory(absolute(location, what))
    if not output.is_begun:
        raise ConfigError(f"{what} is {location!r}, where no job has written; give the OUTPUT of `crossray rerank`")
    try:
        manifest = Manifest.read(output.manifest)
    except RefusedError:  # whose advice is that of a job that would write here
        raise ConfigError(
            f"{what} is {location!r}, whose {MANIFEST} is damaged or of another command; give the OUTPUT of "
            "`crossray rerank`"
        ) from None
    finished = output.finished()
    units = tuple(unit for unit in manifest.units() if unit.name in finished)
    if not units:
        raise ConfigError(f"{what} is {location!r}, where no part is finished yet")
    return Run(output.path, manifest, units, output.is_complete)


def check_comparable(first: Run, second: Run, key: str | None) -> None:
    """Raises ConfigError where rows of the one cannot be those of the other."""
    one, other = first.manifest.options, second.manifest.options
    if one.layout is not other.layout:
        raise ConfigError(f"RUN_A has {one.layout}, RUN_B has {other.layout}; compare runs of one layout")
    if key is not None:
        return
    group = one.group_by or other.group_by
    if group is not None:
        raise ConfigError(f"with --group-by rows have no place in a file; give {advice_for(group)}")
    if one.where != other.where:
        raise ConfigError(
            f"RUN_A has --where {listed(one.where)}, RUN_B {listed(other.where)}: their rows cannot be counted alike; "
            "give --key COLUMN, a column whose values say which row it is"
        )
    states = {planned.file.path: planned.file.state for planned in first.manifest.files}
    common = [planned.file for planned in second.manifest.files if planned.file.path in states]
    if not common:
        raise ConfigError(
            f"the runs have no input file in common (such as {first.manifest.files[0].file.path} and "
            f"{second.manifest.files[0].file.path}); give --key COLUMN, a column whose values say which row it is"
        )
    for file in common:
        if states[file.path] != file.state:
            raise ConfigError(f"{file.path} changed between the runs; give --key COLUMN to match rows by a column")
    if one.where:
        check_units_begin_alike(first.units, second.units)


def check_units_begin_alike(first: Sequence[Unit], second: Sequence[Unit]) -> None:
    """Raises ConfigError where units of both runs share rows, and do not begin with the same one.

    Of rows that --where takes, a part tells their places among each other, and not those in the file.
    """
    for units, others in ((first, second), (second, first)):
        starts: dict[str, list[int]] = {}
        for unit in sorted(units, key=lambda unit: unit.start):
            starts.setdefault(unit.path, []).append(unit.start)
        for other in others:
            begun = starts.get(other.path, [])
            following = bisect_right(begun, other.start)
            if following < len(begun) and begun[following] < other.start + other.rows:
                raise ConfigError(
                    f"the runs have --where, and cut {other.path} into units that begin at different rows, so that "
                    "their rows cannot be counted alike; give --key COLUMN, a column whose values say which row it is"
                )


def advice_for(group: GroupBy) -> str:
    """The flag that matches grouped lists."""
    return f"--key {group.column}"


def listed(conditions: Sequence[str]) -> str:
    """Conditions as a message has them."""
    return " and ".join(map(repr, conditions)) or "nothing"


def changed_settings(first: Run, second: Run) -> list[str]:
    """What the runs were asked differently, as far as it changes their results."""
    return differences(first.manifest, second.manifest.fingerprint, second.manifest.options)


def described(run: Run) -> dict[str, Any]:
    """What the results say of a run, as JSON types."""
    return {
        "path": run.path,
        "created": run.manifest.created,
        "fingerprint": run.manifest.fingerprint,
        "is_complete": run.is_complete,
        "parts": len(run.units),
        "parts_planned": len(run.manifest.units()),
        "layout": str(run.manifest.options.layout),
    }


def is_of_lists(run: Run) -> bool:
    """Whether its rows are lists, and not pairs."""
    return run.manifest.options.layout is Layout.LISTS
