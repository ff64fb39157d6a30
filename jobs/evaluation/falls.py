"""Whether a model is worse than it was in an earlier evaluation, by more than chance does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import UnreadableFileError
from pipelines.errors import ConfigError
from pipelines.evaluation.chance import holm, p_value

RESULTS, VALUES = "results.json", "values.parquet"
COLUMNS = ("set", "row", "measure", "query_id", "value")
VALUES_SCHEMA = pa.schema({**dict.fromkeys(COLUMNS[:-1], pa.string()), COLUMNS[-1]: pa.float64()})
SURE = 0.05
"""The corrected p-value below which a fall is more than chance."""

Values = Mapping[tuple[str, str, str], Mapping[str, float]]
"""By set, row and measure: the value of each query."""


@dataclass(frozen=True, slots=True)
class Before:
    """What an earlier evaluation measured."""

    location: str
    """Its `results.json`, as it was given."""
    values: Values

    def check(self, sets: Iterable[str], models: Iterable[str]) -> None:
        """Raises ConfigError where it says nothing of what is evaluated now: nothing could fall."""
        there = {(one, row) for one, row, _ in self.values}
        common = sorted({one for one, _ in there} & set(sets))
        if not common:
            known = ", ".join(sorted({one for one, _ in there}))
            raise ConfigError(f"--gate-against {self.location} has no SET of this evaluation; it has {known}")
        for model in models:
            if not any((one, model) in there for one in common):
                known = ", ".join(sorted({row for one, row in there if one in common}))
                raise ConfigError(f"--gate-against {self.location} has no row {model}; it has {known}")


def read_before(location: str) -> Before:
    """The evaluation whose `results.json` is given; raises ConfigError where its values cannot be read."""
    place = location if os.path.basename(location) == RESULTS else os.path.join(location, RESULTS)
    file = storage.absolute(os.path.join(os.path.dirname(place), VALUES), "--gate-against")
    try:
        return Before(location, read_values(file))
    except (UnreadableFileError, OSError) as error:
        raise ConfigError(f"--gate-against: {error}; give the {RESULTS} that an evaluation wrote") from None


def read_values(location: str) -> Values:
    """What `values.parquet` holds; raises UnreadableFileError."""
    return values_of(storage.read_parquet(location, lambda file: read_columns(file, location)))


def read_columns(file: pq.ParquetFile, location: str) -> pa.Table:
    """The columns of the values; raises UnreadableFileError for another file."""
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise UnreadableFileError(location, f"it has no column `{missing[0]}`, and is no values of an evaluation")
    table = file.read(list(COLUMNS)).cast(VALUES_SCHEMA)
    if any(column.null_count for column in table.columns):
        raise UnreadableFileError(location, "it has values that are null, and is no values of an evaluation")
    return table


def values_of(table: pa.Table) -> Values:
    """The values by set, row and measure."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for one, row, measure, query, value in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True):
        found.setdefault((one, row, measure), {})[query] = value
    return found


def falls(before: Before, now: Values, models: Iterable[str]) -> list[str]:
    """What fell for sure, a line for each: by paired permutation tests over the queries of both, corrected by Holm.

    A model of which nothing can be compared has a line, too: a gate that looks at nothing is no gate.
    """
    names = list(models)
    tested = []
    for place, values in now.items():
        earlier = before.values.get(place, {})
        common = sorted(values.keys() & earlier.keys())
        if place[1] in names and len(common) > 1:
            pair = [earlier[query] for query in common], [values[query] for query in common]
            tested.append((place, pair, p_value(*pair)))
    compared = {row for (_, row, _), *_ in tested}
    told = [
        f"{name}: {before.location} has no measure of two queries that are measured now, so nothing can be compared"
        for name in names
        if name not in compared
    ]
    for (place, (was, now_is), _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        if p < SURE and fmean(now_is) < fmean(was):
            name, row, measure = place
            told.append(
                f"{row}: {measure} of {name} fell from {fmean(was):.4f} to {fmean(now_is):.4f} over the same "
                f"{len(was):,} queries (p {p:.3f})"
            )
    return told
