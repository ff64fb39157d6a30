"""Chooses hard negatives among the reranked candidates, and makes training lists of them with their positive.

The margin is that of TopK-PercPos in "NV-Retriever: Improving text embedding models with effective hard-negative
mining" (arXiv:2407.15831): what scores higher than a share of its positive may be right itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from jobs import storage
from jobs.training.bad_rows import BadRow
from jobs.training.mine.settings import Rule
from jobs.training.ranked import Rankings, ScoredDocument
from jobs.training.table_output import write_counted

TRAINING_LISTS = pa.schema(
    {
        "query": pa.string(),
        "documents": pa.list_(pa.string()),
        "labels": pa.list_(pa.float32()),
        "scores": pa.list_(pa.float32()),
        "source": pa.string(),
        "group": pa.string(),
    }
)


class Chosen(NamedTuple):
    """The negatives that were chosen from one list."""

    negatives: list[ScoredDocument]
    """The row's own first, then the others; each kind best first."""
    false_negatives: int
    """How many candidates were left out because they score nearly like the positive, or higher."""


def choose(ranking: Sequence[ScoredDocument], given: int, rule: Rule) -> Chosen:
    """Chooses negatives of a list whose document 0 is the positive, before `given` negatives of the row itself."""
    bar = (1 - rule.margin) * next(one.score for one in ranking if one.place == 0)
    own: list[ScoredDocument] = []
    found: list[ScoredDocument] = []
    false_negatives = 0
    first, last = rule.ranks
    for rank, one in enumerate(ranking, start=1):
        is_own = 1 <= one.place <= given
        if one.place == 0 or not (is_own or first <= rank <= last):
            continue
        if one.score > bar:
            false_negatives += 1
        else:
            (own if is_own else found).append(one)
    return Chosen([*own, *found][: rule.negatives], false_negatives)


@dataclass(frozen=True, slots=True)
class Choosing:
    """All that workers are told to choose negatives."""

    output: str
    room: str
    """Where the candidate files are."""
    rankings: Rankings
    rule: Rule


class ChoosingStage:
    """Makes a part of training lists from each candidate file."""

    def __init__(self, choosing: Choosing) -> None:
        self.choosing = choosing

    def __call__(self, item: dict[str, Any]) -> None:
        name, source = item["name"], item["source"]
        location = os.path.join(self.choosing.room, name)
        table = storage.read_parquet(location, lambda file: file.read())
        lists, counts = training_lists(table, self.choosing.rankings.read(location), source, self.choosing.rule)
        write_counted(os.path.join(self.choosing.output, name), lists, counts)


def training_lists(
    candidates: pa.Table, rankings: Mapping[int, list[ScoredDocument] | BadRow], source: str, rule: Rule
) -> tuple[pa.Table, dict[str, Any]]:
    """The training lists of a candidate file, and its counts; a row without a ranking counts as an error."""
    rows: list[dict[str, Any]] = []
    errors: dict[str, int] = {}
    negatives = false_negatives = without_negatives = 0
    for row in candidates.to_pylist():
        ranking = rankings.get(row["row"], BadRow("not_ranked", "no scores came back"))
        if isinstance(ranking, BadRow):
            errors[ranking.reason] = errors.get(ranking.reason, 0) + 1
            continue
        chosen = choose(ranking, row["given"], rule)
        negatives += len(chosen.negatives)
        false_negatives += chosen.false_negatives
        without_negatives += not chosen.negatives
        if chosen.negatives or rule.keep_empty:
            listed = [next(one for one in ranking if one.place == 0), *chosen.negatives]
            rows.append(
                {
                    "query": row["query"],
                    "documents": [row["documents"][one.place] for one in listed],
                    "labels": [1.0] + [0.0] * len(chosen.negatives),
                    "scores": [one.score for one in listed],
                    "source": source,
                    "group": row.get("group"),  # which files of an earlier version lack
                }
            )
    counts = {
        "lists": len(rows),
        "negatives": negatives,
        "false_negatives": false_negatives,
        "without_negatives": without_negatives,
        "errors": errors,
    }
    return pa.Table.from_pylist(rows, TRAINING_LISTS), counts
