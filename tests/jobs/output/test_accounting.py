"""The time of replicas: what they did and what they waited add up to how long they were there."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from jobs.output.accounting import AFTER_IT, BEFORE_IT, FORWARD, IDLE, ReplicaSpans, with_idle
from jobs.records import Scored
from jobs.workers.replica import replica_id
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import SlowScorer
from tests.jobs.tables import wide_table, write_input

SECONDS = st.floats(0, 1000)
UNITS = st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=5)
"""Of a replica: how long it waits, then how long it scores, again and again."""


def schedule(replica: str, units: list[tuple[float, float]], clock: float) -> list[tuple[Scored, float]]:
    """What a replica tells, whose clock is `clock` seconds ahead, and when the driver hears of it: at once."""
    told, now = [], 0.0
    for waited, worked in units:
        began, now = now + waited, now + waited + worked
        told.append((Scored(replica, began + clock, now + clock), now))
    return told


@given(st.lists(UNITS, min_size=1, max_size=4), st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.randoms())
def test_a_replica_is_there_from_its_first_unit_to_the_end_whatever_its_clock_says(
    replicas: list[list[tuple[float, float]]], clocks: list[float], order: object
) -> None:
    told = [one for i, units in enumerate(replicas) for one in schedule(str(i), units, clocks[i])]
    order.shuffle(told)  # type: ignore[attr-defined]
    spans = ReplicaSpans()
    for scored, heard_of in told:
        spans.add(scored, heard_of)
    ended = max(heard_of for _, heard_of in told)
    expected = sum(ended - units[0][0] for units in replicas)
    assert spans.seconds(ended) == pytest.approx(expected, abs=1e-6)
    assert len(spans.by_replica) == len(replicas)
    worked = sum(seconds for units in replicas for _, seconds in units)
    stages = with_idle({"forward": worked}, spans.seconds(ended))
    assert stages[FORWARD] + stages[IDLE] == pytest.approx(expected, abs=1e-6)
    assert stages[IDLE] >= 0


def test_until_the_end_is_known_a_replica_is_there_to_its_last_unit() -> None:
    """The driver was killed, or scores still: nobody knows what the replica does now."""
    spans = ReplicaSpans()
    for scored, heard_of in schedule("a", [(1.0, 2.0), (3.0, 4.0)], clock=0.0):
        spans.add(scored, heard_of)
    assert spans.seconds(None) == 2 + 3 + 4
    assert spans.seconds(110.0) == 2 + 3 + 4 + 100


def test_a_replica_with_several_units_at_once_is_there_as_often() -> None:
    spans = ReplicaSpans(units_at_once=4)
    spans.add(Scored("a", 10.0, 20.0), 20.0)
    spans.add(Scored("a", 12.0, 18.0), 21.0)
    assert spans.seconds(25.0) == 4 * (10 + 4)


def test_nobody_scored_nothing_is_idle() -> None:
    assert ReplicaSpans().seconds(100.0) == 0.0
    assert with_idle({"read": 1.0}, 0.0) == dict.fromkeys([*BEFORE_IT, FORWARD, *AFTER_IT, IDLE], 0.0) | {"read": 1.0}


def test_the_stages_stand_in_the_order_of_a_units_life() -> None:
    assert list(with_idle({}, 0.0)) == ["read", "tokenize", "forward", "parse_and_rank", "write", "idle"]


class Who:
    """An actor."""

    def ask(self) -> tuple[str, int]:
        return replica_id(), os.getpid()


def test_a_replica_whose_process_died_is_the_same_one(cluster: str) -> None:
    """And is not counted twice."""
    actors = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Who)
    first, other = actors.remote(), actors.remote()
    (name, pid), (others_name, _) = ray.get([first.ask.remote(), other.ask.remote()])
    os.kill(pid, signal.SIGKILL)
    same_name, new_pid = ray.get(first.ask.remote())
    assert pid != new_pid
    assert name == same_name != others_name
    assert replica_id() == f"process {os.getpid()}"


@pytest.mark.slow
def test_two_replicas_explain_twice_the_seconds_of_scoring(
    tmp_path: Path, cluster: str, run_job: RunJob, said: io.StringIO
) -> None:
    """A list takes 0.05 s, so 80 of them take 4 s of the two."""
    source = write_input(tmp_path / "in", a=wide_table(80))
    summary = run_job(source, tmp_path / "out", scorer_class=SlowScorer, replicas=(2, 2))
    [attempt] = summary["attempts"]
    stages, present = summary["stages"], summary["replica_seconds"]
    assert (attempt["replicas"], attempt["units_at_once"]) == (2, 1)
    assert stages[FORWARD] + stages[IDLE] == pytest.approx(present, abs=0.01)
    assert stages["parse_and_rank"] >= 4  # a stub's time is neither for tokens nor a model's
    assert present <= 2 * (attempt["phases"]["score"] + 1)  # which begins with the first unit that was heard of
    assert stages["read"] > 0
    assert stages["write"] > 0
    assert f"  idle                  │ {stages['idle']:,.1f} ({stages['idle'] / present:.0%})" in said.getvalue()
