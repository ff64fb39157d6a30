"""The parts of the benchmark of scale; its figures are for idle machines, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.benchmark.scale import FreeScorer, draw, in_given_order, lists_of, measure, powers_of_two, splice
from pipelines.records import CandidateList


def test_there_are_as_many_lists_as_are_asked_for() -> None:
    """A few are made, and come again and again."""
    queries = lists_of(7, 2, distinct=3)["query"].to_pylist()
    assert len(queries) == 7
    assert queries == [*queries[:3], *queries[:3], queries[0]]
    assert len(set(queries)) == 3


def test_the_long_list_stands_in_the_middle() -> None:
    lengths = [len(row) for row in splice(lists_of(4, 1), lists_of(1, 5))["documents"].to_pylist()]
    assert lengths == [1, 1, 5, 1, 1]


def test_pools_double() -> None:
    assert list(powers_of_two(1)) == [1]
    assert list(powers_of_two(9)) == [1, 2, 4, 8]


def test_a_scorer_of_no_use_keeps_the_order() -> None:
    ranking = in_given_order(CandidateList("q", ["a", "b"]))
    assert [(one.index, one.relevance_score) for one in ranking.documents] == [(0, 1.0), (1, 0.5)]
    assert ranking.usage.pairs == 2


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="of the group `bench`")
    draw({"10^4 pairs": [(0.0, 100.0, 50.0), (1.0, 120.0, 60.0)]}, tmp_path / "memory.svg")
    assert "10^4 pairs" in (tmp_path / "memory.svg").read_text()


@pytest.mark.endurance
def test_a_job_is_driven_by_a_process_of_its_own() -> None:
    summary, samples = measure(lists_of(30, 10), FreeScorer, 1)
    assert summary["pairs"] == 300
    assert len(samples) > 2
    assert all(driver > 0 for _, driver, _ in samples)
