"""Where the time of a job's replicas went while it scored. Arithmetic only.

A replica has one unit at a time: it tokenizes, runs the model, parses and ranks; the rest of its time it is idle. Units
are read and written at the same time in other processes, so `read` and `write` are no part of a replica's time.
`forward` includes looking up what is known already, `write` the keeping of new scores. With `--app` the job's own
actors count as replicas, several units at once in each; `forward` is waiting for the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OF_REPLICAS = ("tokenize", "forward", "parse_and_rank")
"""Stages of a unit in its replica; the last is all but the other two, from an Arrow stream to an Arrow stream."""
BESIDE = ("read", "write")
"""Stages of a unit in other processes."""
IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Scored:
    """Who scored a unit, and when by the clock there."""

    replica: str
    began: float
    """Seconds since the epoch."""
    ended: float


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
    So idle are: waiting for units to be read, for the last units of other replicas, a death with the unit that was lost
    to it, and Ray's own work between two units. What cannot be seen from here counts as idle too: a replica that the
    pool gave up or that went with its node before the end. The loading of the model is no part of it.
    """

    units_at_once: int = 1
    """In one replica."""
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
    """The seconds of all stages in the order of a unit's life, then what is left of `replica_seconds`."""
    spent = {name: stages.get(name, 0.0) for name in ("read", *OF_REPLICAS, "write")}
    return spent | {IDLE: max(0.0, replica_seconds - sum(spent[name] for name in OF_REPLICAS))}
