"""Whether a model is worse than it was in an earlier evaluation, by more than chance does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import UnreadableFileError
from pipelines.errors import ConfigError
from pipelines.evaluation.chance import (
    SURE,
    holm,
    least_p_value_of_fall,
    p_value_of_fall,
    resamples_for,
    shown,
)
from pipelines.evaluation.sets import BenchmarkSet

RESULTS, VALUES = "results.json", "values.parquet"
COLUMNS = ("set", "row", "measure", "query_id", "asked", "value")
VALUES_SCHEMA = pa.schema({**dict.fromkeys(COLUMNS[:-1], pa.string()), COLUMNS[-1]: pa.float64()})

Measured = tuple[str, str]
"""The id of a query, and the digest of what was asked of it (`asked`): its text, its candidates, their grades."""
Values = Mapping[tuple[str, str, str], Mapping[Measured, float]]
"""By set, row and measure: the value of each query."""


def asked(one: BenchmarkSet) -> dict[str, str]:
    """By query, a digest of all that is asked of an order: two evaluations with the same one can be compared."""
    candidates = {row["query_id"]: row["documents"] for row in one.candidates.to_pylist()}
    return {
        query: hashlib.sha256(
            json.dumps([one.queries[query].text, candidates.get(query, []), sorted(grades.items())]).encode()
        ).hexdigest()[:16]
        for query, grades in one.grades.items()
    }


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
    found: dict[tuple[str, str, str], dict[Measured, float]] = {}
    for one, row, measure, query, digest, value in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True):
        found.setdefault((one, row, measure), {})[query, digest] = value
    return found


class Falls(NamedTuple):
    """What a comparison with an earlier evaluation says, a line for each."""

    told: list[str]
    """What fell for sure, and models of which nothing can be said: a gate that looks at nothing is no gate."""
    not_compared: list[str]
    """What else is not looked at."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The values of a measure then and now, over the queries that are the same."""

    was: Sequence[float]
    is_now: Sequence[float]

    @property
    def fell(self) -> bool:
        return fmean(self.is_now) < fmean(self.was)


def falls(before: Before, now: Values, models: Sequence[str]) -> Falls:
    """What fell for sure: by one-sided paired permutation tests over the queries of both, corrected by Holm for all."""
    mine = {place: values for place, values in now.items() if place[1] in models}
    pairs = {place: pairs_of(before.values.get(place, {}), values) for place, values in mine.items()}
    pairs = {place: both for place, both in pairs.items() if both.was}
    resamples = resamples_for(len(pairs))
    raw = [p_value_of_fall(both.was, both.is_now, resamples) if both.fell else 1.0 for both in pairs.values()]
    told = [why for name in models if (why := why_blind(name, before, pairs, resamples))]
    for ((name, row, measure), both), p in zip(pairs.items(), holm(raw), strict=True):
        if p < SURE:
            told.append(
                f"{row}: {measure} of {name} fell from {fmean(both.was):.4f} to {fmean(both.is_now):.4f} over the same "
                f"{len(both.was):,} queries (p {shown(p)})"
            )
    compared = {row for _, row, _ in pairs}
    return Falls(told, not_compared(before, {place: values for place, values in mine.items() if place[1] in compared}))


def pairs_of(earlier: Mapping[Measured, float], values: Mapping[Measured, float]) -> Pairs:
    """The values of the queries that both measured."""
    common = sorted(values.keys() & earlier.keys())
    return Pairs([earlier[one] for one in common], [values[one] for one in common])


def why_blind(model: str, before: Before, pairs: Mapping[tuple[str, str, str], Pairs], resamples: int) -> str | None:
    """Why no fall of a model could be seen, however deep; None where one could."""
    queries = [len(both.was) for (_, row, _), both in pairs.items() if row == model]
    if not queries:
        return (
            f"{model}: {before.location} has no query that is measured now over the same texts, candidates and grades, "
            "so nothing can be compared"
        )
    if len(pairs) * least_p_value_of_fall(max(queries), resamples) >= SURE:
        return (
            f"{model}: at most {max(queries):,} queries of a set are the same as in {before.location}, too few to tell "
            f"a fall from chance in {len(pairs):,} comparisons; give more queries, or fewer measures"
        )
    return None


def not_compared(before: Before, now: Values) -> list[str]:
    """A line for each set and model of which the earlier evaluation lacks queries, or measures."""
    lacking: dict[tuple[str, str, int, int], list[str]] = {}
    for place, values in now.items():
        missing = len(values.keys() - before.values.get(place, {}).keys())
        if missing:
            name, row, measure = place
            lacking.setdefault((name, row, missing, len(values)), []).append(measure)
    return [
        f"{row}: {missing:,} of {count:,} queries of {name} are not compared by {', '.join(measures)}: "
        f"{before.location} does not have them, or over other texts, candidates or grades"
        for (name, row, missing, count), measures in lacking.items()
    ]
