"""Adds up where the time of a job's replicas went while it scored. Arithmetic only.

A replica has several units in work: its model computes for one of them, and meanwhile others are read, tokenized,
parsed, ranked and written. So either its model computes (`forward`) or it is idle, and the other stages run beside it.
`forward` includes looking up what is known already, `write` the keeping of new scores. With `--app` the job's own
actors count as replicas, several units at once in each; `forward` is waiting for the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.records import Scored

FORWARD = "forward"
BEFORE_IT = ("read", "tokenize")
AFTER_IT = ("parse_and_rank", "write")
"""Parsing comes before `forward`, but its time cannot be told from that of ranking, which is most of the two."""
IDLE = "idle"


@dataclass(slots=True)
class ReplicaSpan:
    """How long one replica was there to score, as far as its finished units tell."""

    began: float
    """When its first unit began, by its own clock."""
    ended: float
    """When its last unit ended, by its own clock."""
    heard_of: float
    """When the driver last had a report from it, by the driver's clock. So the clocks need not agree."""


@dataclass(slots=True)
class ReplicaSpans:
    """How long the replicas that scored at least one unit were there to score.

    A replica is there from its first unit to the end of the scoring phase. As long as that phase has not ended, or
    where it never ended since the driver was killed, a replica is there to the end of its last unit. A replica whose
    process died is still there while Ray starts it again.

    So a replica is idle while it waits for units to be read and tokenized, while Ray works between two units, while its
    process starts again, and while others have their last units. A replica that the pool gave up, or that went with its
    node, counts as idle too: that cannot be seen from here. Loading the model is no part of it.
    """

    units_at_once: int = 1
    """Units for which one replica computes at the same time: more than one where an app does it."""
    by_replica: dict[str, ReplicaSpan] = field(default_factory=dict)

    def add(self, scored: Scored, now: float) -> None:
        """Notes a finished unit; units may come in any order, and `now` is by the driver's clock."""
        seen = self.by_replica.setdefault(scored.replica, ReplicaSpan(scored.began, scored.ended, now))
        seen.began, seen.ended = min(seen.began, scored.began), max(seen.ended, scored.ended)
        seen.heard_of = max(seen.heard_of, now)

    def seconds(self, scoring_ended: float | None) -> float:
        """The seconds of all replicas together, each counted for every unit that it computes for at once.

        `scoring_ended` is by the driver's clock, and None as long as scoring has not ended.
        """
        present = [
            one.ended - one.began + (0.0 if scoring_ended is None else max(0.0, scoring_ended - one.heard_of))
            for one in list(self.by_replica.values())  # a copy: the heartbeat's thread may ask
        ]
        return sum(present) * self.units_at_once


def with_idle(stages: Mapping[str, float], replica_seconds: float) -> dict[str, float]:
    """The seconds of all stages in the order of a unit's life, then those of `replica_seconds` without `forward`."""
    spent = {name: stages.get(name, 0.0) for name in (*BEFORE_IT, FORWARD, *AFTER_IT)}
    return spent | {IDLE: max(0.0, replica_seconds - spent[FORWARD])}
