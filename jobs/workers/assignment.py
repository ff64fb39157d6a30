"""What the replicas of a job are told when they start. The units come later, one by one (`jobs.workers.wire`)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from jobs.input.row_groups import RowGroups
from jobs.input.selection import EVERYTHING, Selection
from jobs.joins.corpus.attaching import TextsById, read_with_texts
from jobs.records import Unit
from jobs.scoring.scorer import ListScorer, LoadScorer
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from jobs.workers.known_scores import NO_REUSE, Reuse


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which rows replicas take and how they score them: the same for all units and all replicas of a job.

    Ray's serialization carries it to them. The last two fields are known later than the others: `texts` once Ray runs,
    `reuse` when replicas are started.
    """

    settings: RerankSettings
    layout: Layout
    fingerprint: str
    """Hash of the fingerprint that the model of a replica must have; parts carry it in their footers."""
    load_scorer: LoadScorer
    selection: Selection = EVERYTHING
    texts: TextsById | None = None
    """How documents that are ids get their texts; None where they are no ids."""
    reuse: Reuse = NO_REUSE
    """What earlier runs left, and where new scores are kept."""

    def scorer(self) -> ListScorer:
        """A scorer for the replica that asks, with its model; raises RuntimeError when that is not the job's."""
        return self.load_scorer(self.settings, self.fingerprint, self.reuse.stored_logits())

    def read(self, unit: Unit, groups: RowGroups | None = None) -> pa.Table:
        """The rows of a unit, with their texts; raises what `read_with_texts` does."""
        return read_with_texts(unit, self.selection, self.texts, groups)
