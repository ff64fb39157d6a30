"""Where the time of a job's replicas went while it scored. Arithmetic only.

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
"""Parsing comes first, but its time is what is left of answering a unit, which is ranking for the most part."""
IDLE = "idle"


@dataclass(slots=True)
class Presence:
    """One replica, as far as its finished units tell of it."""

    began: float
    """Of its first unit, by its own clock."""
    ended: float
    """Of its last unit, by its own clock."""
    heard_of: float
    """When the driver last heard of a unit of it, by the driver's clock. So the clocks need not agree."""


@dataclass(slots=True)
class Presences:
    """The replicas that scored at least one unit, and how long they were there to score.

    A replica is there from its first unit to the end of the scoring phase; until that end comes, or where it never
    came since the driver was killed, to its last unit. One whose process died is still there while Ray starts it again.
    So idle are: waiting for units to be read and tokenized, for the last units of other replicas, a death with the
    units that were lost to it, and Ray's own work between two units. What cannot be seen from here counts as idle too:
    a replica that the pool gave up or that went with its node before the end. Loading the model is no part of it.
    """

    units_at_once: int = 1
    """For which one replica computes; an app may do so for several."""
    by_replica: dict[str, Presence] = field(default_factory=dict)

    def add(self, scored: Scored, now: float) -> None:
        """A unit is finished, in any order; `now` by the driver's clock."""
        seen = self.by_replica.setdefault(scored.replica, Presence(scored.began, scored.ended, now))
        seen.began, seen.ended = min(seen.began, scored.began), max(seen.ended, scored.ended)
        seen.heard_of = max(seen.heard_of, now)

    def seconds(self, scoring_ended: float | None) -> float:
        """Of all replicas together, each as often as it has units at once; the end by the driver's clock."""
        present = [
            one.ended - one.began + (0.0 if scoring_ended is None else max(0.0, scoring_ended - one.heard_of))
            for one in list(self.by_replica.values())  # a copy: the heartbeat's thread may ask
        ]
        return sum(present) * self.units_at_once


def with_idle(stages: Mapping[str, float], replica_seconds: float) -> dict[str, float]:
    """The seconds of all stages in the order of a unit's life, then those of `replica_seconds` without `forward`."""
    spent = {name: stages.get(name, 0.0) for name in (*BEFORE_IT, FORWARD, *AFTER_IT)}
    return spent | {IDLE: max(0.0, replica_seconds - spent[FORWARD])}
