"""How fast a replica says that it is, and which replicas an endpoint counts on."""

from __future__ import annotations

import pytest

from serve.speed import HALF_LIFE_SECONDS, SILENT_SECONDS, LiveSpeeds, Speed


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_speed_is_that_of_all_passes_together_however_they_are_cut() -> None:
    speed = Speed()
    assert speed.tokens_per_second is None
    speed.add(100, 0.2)
    assert speed.tokens_per_second == 500
    speed.add(900, 0.8)
    assert speed.tokens_per_second == pytest.approx(1_000, rel=0.01)


def test_recent_work_counts_more() -> None:
    speed = Speed()
    speed.add(100_000, 1)
    for _ in range(10):
        speed.add(1_000, HALF_LIFE_SECONDS)
    assert speed.tokens_per_second == pytest.approx(1_000 / HALF_LIFE_SECONDS, rel=0.1)


def test_the_replicas_that_live_count_together() -> None:
    """One that was replaced is forgotten; while nobody is asked, nobody is."""
    clock = Clock()
    speeds = LiveSpeeds(clock)
    assert speeds.tokens_per_second() is None
    speeds.hear("new", None)
    assert speeds.tokens_per_second() is None
    speeds.hear("first", 100)
    speeds.hear("second", 200)
    speeds.hear("first", 150)
    assert speeds.tokens_per_second() == 350
    clock.now += 10 * SILENT_SECONDS
    assert speeds.tokens_per_second() == 350
    speeds.hear("third", 1_000)
    assert speeds.tokens_per_second() == 1_000


def test_before_the_first_answer_the_expected_speed_counts_and_after_it_what_was_heard() -> None:
    speeds = LiveSpeeds(Clock())
    speeds.expect(4_000)
    assert speeds.tokens_per_second() == 4_000
    speeds.hear("a", 700)
    assert speeds.tokens_per_second() == 700
