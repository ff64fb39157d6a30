"""A pool that outlives the rounds of a follower, on a real Ray."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from jobs.errors import StoppedError
from jobs.input.selection import EVERYTHING, Selection
from jobs.records import Unit, UnitReport
from jobs.runtime.signals import InterruptedBySignal, StopRequest
from jobs.scoring.scorer import LoadScorer
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from jobs.workers.assignment import Assignment
from jobs.workers.known_scores import no_reuse
from jobs.workers.pool import UNITS_IN_REPLICA
from jobs.workers.warm_pool import UNITS_SENT_PER_UNIT_IN_WORK, USUAL_PATIENCE, Patience, WarmPool
from tests.jobs.stubs import POISON, PoisonScorer, SlowScorer, StubScorer, UnstartableScorer
from tests.jobs.tables import lists_table, write_input

ROWS = 40


@pytest.fixture
def stop() -> StopRequest:
    return StopRequest()


@pytest.fixture
def patience() -> Patience:
    return USUAL_PATIENCE


@pytest.fixture
def pool(cluster: str, stop: StopRequest, patience: Patience) -> Iterator[WarmPool]:
    with WarmPool(stop, None, Console(quiet=True), patience) as pool:
        pool.start()
        yield pool


Score = Callable[..., Iterator[UnitReport]]


@pytest.fixture
def score(tmp_path: Path, pool: WarmPool, settings_of: Callable[..., RerankSettings]) -> Score:
    """Scores units with the pool."""
    (tmp_path / "out").mkdir()
    settings = settings_of(tmp_path / "in", tmp_path / "out")

    def score_them(
        units: list[Unit], load_scorer: LoadScorer = StubScorer, selection: Selection = EVERYTHING
    ) -> Iterator[UnitReport]:
        return pool.score(units, Assignment(settings, Layout.LISTS, "abc", load_scorer, selection), no_reuse)

    return score_them


@pytest.fixture
def units(tmp_path: Path) -> list[Unit]:
    """Of one row each."""
    write_input(tmp_path / "in", a=lists_table(ROWS))
    return [Unit(str(tmp_path / "in" / "a.parquet"), row, 1) for row in range(ROWS)]


def replicas(reports: list[UnitReport]) -> set[str]:
    return {report.scored.replica for report in reports if report.scored is not None}


def stop_after(count: int, scored: Iterator[UnitReport], reports: list[UnitReport], stop: StopRequest) -> None:
    """Collects reports, and asks for an end after so many."""
    for report in scored:
        reports.append(report)
        if len(reports) == count:
            stop.come(signal.SIGTERM)


def test_the_replicas_of_one_round_score_the_next(tmp_path: Path, score: Score, units: list[Unit]) -> None:
    first, second = list(score(units[:30])), list(score(units[30:]))
    assert {report.unit for report in [*first, *second]} == set(units)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {unit.name for unit in units}
    assert replicas(first) == replicas(second)
    assert len(replicas(first)) == 1


@pytest.mark.slow
def test_another_selection_has_replicas_of_its_own(score: Score, units: list[Unit]) -> None:
    """The replicas were told of the old one."""
    before = list(score(units[:2]))
    after = list(score(units[2:4], selection=Selection(limit=5)))
    assert len(after) == 2
    assert replicas(before) != replicas(after)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [Patience(stalled_seconds=8.0)])
def test_a_unit_that_kills_its_replica_is_left_out(tmp_path: Path, score: Score, units: list[Unit]) -> None:
    """As in `score_units`, with the one that was in the same replica each time, if any; others are scored."""
    table = lists_table(ROWS)
    texts = [POISON if row == 3 else f"q{row}" for row in range(ROWS)]
    write_input(tmp_path / "in", a=table.set_column(1, "query", [texts]))
    done = {report.unit for report in score(units, PoisonScorer)}
    assert units[3] not in done
    assert len(done) >= ROWS - 2
    assert {report.unit for report in score(units[:2])} == set(units[:2])


def test_a_stop_lets_what_is_begun_come_to_its_end(score: Score, units: list[Unit], stop: StopRequest) -> None:
    reports: list[UnitReport] = []
    with pytest.raises(InterruptedBySignal):
        stop_after(2, score(units, SlowScorer), reports, stop)
    assert 2 <= len(reports) <= 2 + UNITS_SENT_PER_UNIT_IN_WORK * UNITS_IN_REPLICA


def test_a_stop_after_the_last_unit_was_begun_is_no_interruption(
    score: Score, units: list[Unit], stop: StopRequest
) -> None:
    reports: list[UnitReport] = []
    stop_after(1, score(units[:3], SlowScorer), reports, stop)
    assert len(reports) == 3


@pytest.mark.slow
@pytest.mark.parametrize("patience", [Patience(grace_seconds=0.0)])
def test_grace_has_an_end(score: Score, units: list[Unit], stop: StopRequest) -> None:
    reports: list[UnitReport] = []
    with pytest.raises(InterruptedBySignal):
        stop_after(1, score(units, SlowScorer), reports, stop)
    assert len(reports) <= 2


@pytest.mark.slow
def test_replicas_that_cannot_start_stop_the_round(score: Score, units: list[Unit]) -> None:
    with pytest.raises(StoppedError, match="Ray gave up"):
        list(score(units, UnstartableScorer))
    assert len(list(score(units))) == ROWS
