"""What one system left of a set: the scores of its lists, the order that they make, how fast it was, of which files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs import storage
from jobs.output.directory import OutputDirectory
from jobs.training.label.teachers import Kind, Teacher
from pipelines.evaluation.measures import Order
from pipelines.evaluation.sets import LISTS

SCORE = "score"
"""The column of the scores in the lists of a system."""
Scores = Mapping[str, Mapping[str, float]]
"""By query, then document; logits where a reranker gave them."""


@dataclass(frozen=True, slots=True)
class System:
    """A reranker or a baseline, as it did on one set."""

    teacher: Teacher
    scores: Scores
    unanswered: int
    """Lists that have no scores."""
    seconds: float
    """Of the run that finished it, with the start of its workers."""
    speed: Mapping[str, Any] | None
    """What the labelling says of a reranker's speed; None for others, and where an earlier version scored."""
    models: Mapping[str, Any]
    """The files and settings of the models in it, by their names."""
    versions: Mapping[str, str]
    analyzer: str | None = None
    """What made words of texts, where BM25 is in it."""

    @property
    def name(self) -> str:
        """What its row is called."""
        return name_of(self.teacher)

    @property
    def is_model(self) -> bool:
        """Whether it is a reranker and no baseline."""
        return self.teacher.kind is Kind.RERANKER

    @property
    def gives_probabilities(self) -> bool:
        """Whether its scores, after the sigmoid, are meant to say how likely a pair is relevant."""
        return self.is_model and all("sigmoid" in one.get("activation", "") for one in self.models.values())

    @property
    def calibration(self) -> tuple[float, float]:
        """Scale and bias that make its logits those of its scores."""
        scale, bias = next((found for one in self.models.values() if (found := one.get("calibration"))), (1.0, 0.0))
        return scale, bias

    def order(self) -> Order:
        """The documents of each query by their scores, ties as the first stage has them."""
        return {query: best_first(scores) for query, scores in self.scores.items()}


def name_of(system: Teacher) -> str:
    """What a row is called: a reranker by its model alone."""
    return str(system).removeprefix("reranker:")


def best_first(scores: Mapping[str, float]) -> list[str]:
    """The documents by their scores, ties in the order in which they are."""
    documents = list(scores)
    order = np.argsort(-np.asarray(list(scores.values()), dtype=np.float64), kind="stable")
    return [documents[place] for place in order]


def read_system(teacher: Teacher, place: str, summary: Mapping[str, Any]) -> System:
    """Reads what a finished labelling left at `place`."""
    manifest = storage.read_json(OutputDirectory(place).manifest)
    return System(
        teacher,
        read_scores(place),
        summary["rows_with_errors"],
        summary["seconds"],
        summary.get("speeds", {}).get(str(teacher)),
        manifest["options"]["models"],
        summary["versions"],
        manifest["options"].get("words"),
    )


def read_scores(place: str) -> dict[str, dict[str, float]]:
    """The score of each document, by query, in the order of the first stage."""
    scores: dict[str, dict[str, float]] = {}
    for name in sorted(storage.names(place)):
        if not name.startswith("part-"):
            continue
        table = storage.read_parquet(os.path.join(place, name), lambda file: file.read([*LISTS.names, SCORE]))
        for row in table.to_pylist():
            if row[SCORE] is not None:
                documents = (document["id"] for document in row["documents"])
                scores[row["query_id"]] = dict(zip(documents, row[SCORE], strict=True))
    return scores
