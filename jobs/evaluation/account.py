"""Gathers what results and report say beside the measures of each set, as the sets are done, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from jobs.driver.planning import library_versions
from jobs.endings import resume_command
from jobs.evaluation.comparison import CEILING, FIRST_STAGE, Compared
from jobs.evaluation.details import (
    ScoredPairs,
    Story,
    about_scores,
    by_length,
    lengths_of_answers,
    movers,
    told_story,
)
from jobs.evaluation.systems import System
from jobs.runtime.machine import processor
from pipelines.evaluation.chance import holm, interval_over_sets, p_value_over_sets
from pipelines.evaluation.sets import BenchmarkSet

MEASURED_BY = ("bm25s", "PyStemmer", "ir-measures", "pytrec-eval-terrier", "numpy", "scipy")
"""Packages that make words, measures and p-values."""


def origin(queries: int | None) -> dict[str, Any]:
    """When, where and by which command an evaluation is made; `queries` is how many of each set were asked for."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": resume_command("jobs.evaluate"),
        "queries_asked_for": queries,
        "processor": processor(),
        "versions": library_versions(*MEASURED_BY),
    }


@dataclass(slots=True)
class Account:
    """What is known so far; `stories` are for the report alone, since they hold texts."""

    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    compared: dict[str, Compared] = field(default_factory=dict)
    systems: dict[str, list[System]] = field(default_factory=dict)
    """By row, one for each set."""
    pairs: dict[str, list[ScoredPairs]] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)

    def add(self, one: BenchmarkSet, systems: Sequence[System], compared: Compared, measure: str) -> None:
        """Takes a set, of which `measure` is the one that counts."""
        orders = {system.name: system.order() for system in systems}
        candidates = {row["query_id"]: row for row in one.candidates.to_pylist()}
        queries = next(iter(compared.values.values()))[measure].keys()
        grades = {query: one.grades[query] for query in queries}
        texts = {
            query: {document["id"]: document["text"] for document in candidates[query]["documents"]}
            for query in queries
            if query in candidates
        }
        first = {query: list(of_query) for query, of_query in texts.items()}
        told: dict[str, Any] = {"measure": measure, "systems": {}, "movers": {}}
        told["lengths"] = by_length(compared, lengths_of_answers(grades, texts), measure)
        for system in systems:
            self.systems.setdefault(system.name, []).append(system)
            told["systems"][system.name] = {"seconds": system.seconds, "speed": speed_of([system])}
            if not system.is_model:
                continue
            pairs = ScoredPairs.of(system.scores, grades)
            self.pairs.setdefault(system.name, []).append(pairs)
            told["systems"][system.name]["scores"] = about_scores(
                pairs, system.gives_probabilities, *system.calibration
            )
            moved = told["movers"][system.name] = movers(compared, system.name, measure)
            self.stories += [
                told_story(
                    one.name,
                    system.name,
                    mover,
                    one.queries[mover["query_id"]].text,
                    texts.get(mover["query_id"], {}),
                    grades[mover["query_id"]],
                    (first, orders[system.name]),
                )
                for mover in [*moved["gained"], *moved["lost"]]
            ]
        self.compared[one.name], self.sets[one.name] = compared, told

    def of_set(self, name: str) -> dict[str, Any]:
        """What the results say of a set."""
        return self.sets[name]

    def of_all_sets(self) -> dict[str, Any]:
        """What the results say of all sets together."""
        values = {
            row: [list(self.compared[name].values[row][self.sets[name]["measure"]].values()) for name in self.compared]
            for row in next(iter(self.compared.values())).values
        }
        return {
            "systems": {row: self.of_system(row) for row in self.systems},
            "means": {row: mean_over_sets(of_row) for row, of_row in values.items()},
            "differences": differences_over_sets(values),
        }

    def of_system(self, row: str) -> dict[str, Any]:
        """What a row is, how fast it was, and how its scores lie over all sets."""
        systems = self.systems[row]
        told = {"kind": str(systems[0].teacher.kind), "models": systems[0].models, "speed": speed_of(systems)}
        if systems[0].analyzer is not None:
            told["analyzer"] = systems[0].analyzer
        if row in self.pairs:
            told["scores"] = about_scores(
                ScoredPairs.together(self.pairs[row]), systems[0].gives_probabilities, *systems[0].calibration
            )
        return told


def mean_over_sets(values: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean of the sets' means, with its 95% interval."""
    low, high = interval_over_sets(values)
    return {"mean": fmean(map(fmean, values)), "low": low, "high": high}


def differences_over_sets(values: Mapping[str, Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """For each row the difference to the first stage of the means over sets, with its p-value, raw and by Holm."""
    rows = [row for row in values if row not in (FIRST_STAGE, CEILING)]
    raw = [p_value_over_sets(values[FIRST_STAGE], values[row]) for row in rows]
    base = fmean(map(fmean, values[FIRST_STAGE]))
    return [
        {
            "from": FIRST_STAGE,
            "to": row,
            "difference": fmean(map(fmean, values[row])) - base,
            "p": p,
            "p_holm": corrected,
        }
        for row, p, corrected in zip(rows, raw, holm(raw), strict=True)
    ]


def speed_of(systems: Sequence[System]) -> dict[str, Any] | None:
    """How fast a reranker was over sets, of those whose speed is known; None for a baseline.

    `why_not` says why it is not known of others: a run that was stopped, or that had scores already, has no speed.
    """
    if not systems[0].is_model:
        return None
    faults = [why_no_speed(system.speed) for system in systems]
    known = [
        system.speed
        for system, fault in zip(systems, faults, strict=True)
        if fault is None and system.speed is not None
    ]
    told: dict[str, Any] = {"sets": len(known), "why_not": next((fault for fault in faults if fault), None)}
    if not known:
        return told
    seconds = sum(one["seconds"] for one in known)
    pairs = sum(one["pairs"] for one in known)
    told |= {
        "pairs": pairs,
        "seconds": round(seconds, 3),
        "pairs_per_second": pairs / seconds,
        "tokens": sum(one["tokens"] for one in known),
        "peak_memory": max(one["peak_memory"] for one in known),
        "peak_gpu_memory": max(one["peak_gpu_memory"] for one in known),
        "started": min(one["started"] for one in known),
    }
    return told | {
        name: sorted({one[name] for one in known}) for name in ("replicas", "cpus_each", "gpus_each", "processor")
    }


def why_no_speed(speed: Mapping[str, Any] | None) -> str | None:
    """Why a run says nothing of a model's speed; None where it does."""
    if speed is None:
        return "scored by a version that did not measure it"
    if speed["runs"] > 1:
        return f"scored in {speed['runs']} runs, since it was stopped"
    if speed["stored_scores"] and speed["chunks_reused"]:
        return f"{speed['chunks_reused']:,} of {speed['chunks']:,} scores were there already"
    if not speed["pairs"] or not speed["seconds"]:
        return "there was nothing to score"
    return None
