"""A replica with several units at once: what overlaps and what does not."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.input.conditions import parse_condition
from jobs.input.selection import EVERYTHING, Selection
from jobs.records import Counts, Scored, Unit, UnitReport
from jobs.runtime.session import kill_autoscaler_monitor
from jobs.scoring.answering import Answered
from jobs.scoring.scorer import own_scorer
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from jobs.workers.assignment import Assignment
from jobs.workers.replica import Replica
from jobs.workers.wire import as_json, reports_of, to_batch
from pipelines.fingerprint import planned_fingerprint
from pipelines.packing import TokenPair
from pipelines.records import Usage
from tests.jobs.stubs import StubScorer
from tests.jobs.tables import lists_table, write_input
from tests.jobs.workers.test_death import wait_until

ROWS = 8
PATIENCE = 30.0
LONG = 10_000.0
"""Seconds that nothing here takes, on however busy a machine."""


class Clock:
    """The real one, and as much ahead of it as a test says."""

    ahead = 0.0
    now = staticmethod(time.perf_counter)

    def __call__(self) -> float:
        return self.now() + self.ahead


class GatedEngine:
    """A real engine that computes when it may; how many are in it at once is on record."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.may_compute = threading.Event()
        self.inside = self.most_inside = self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        self.calls += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        assert self.may_compute.wait(PATIENCE)
        logits: np.ndarray = self.engine.distinct_logits(pairs)
        self.inside -= 1
        return logits


@pytest.fixture
def replica(tmp_path: Path, settings_of: Callable[..., RerankSettings]) -> Replica:
    """With the tiny model, and a file of ROWS lists to read."""
    write_input(tmp_path / "in", a=lists_table(ROWS))
    (tmp_path / "out").mkdir()
    settings = settings_of(tmp_path / "in", tmp_path / "out", recent_pairs=0)
    return Replica(Assignment(settings, Layout.LISTS, planned_fingerprint(settings.reranker).hash, own_scorer))


@pytest.fixture
def units(tmp_path: Path) -> list[Unit]:
    return [Unit(str(tmp_path / "in" / "a.parquet"), start, 2) for start in range(0, ROWS, 2)]


def test_while_the_model_computes_for_one_unit_the_next_is_read_and_tokenized(
    replica: Replica, units: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = GatedEngine(replica.scorer.reranker.engine)
    monkeypatch.setattr(replica.scorer.reranker, "engine", engine)
    clock = Clock()
    monkeypatch.setattr(replica.scorer.reranker, "clock", clock)
    monkeypatch.setattr(time, "perf_counter", clock)
    prepared: list[int] = []
    prepare = replica.scorer.reranker.preparation.prepare

    def note(*arguments: Any, **named: Any) -> Any:
        pairs = prepare(*arguments, **named)
        prepared.append(len(pairs))
        return pairs

    monkeypatch.setattr(replica.scorer.reranker.preparation, "prepare", note)
    with ThreadPoolExecutor(2) as threads:
        reports = [threads.submit(replica.bring_to_part, unit) for unit in units[:2]]
        wait_until(lambda: len(prepared) == 2 and engine.inside == 1)
        time.sleep(0.2)
        assert (engine.calls, engine.inside) == (1, 1)
        clock.ahead = LONG
        engine.may_compute.set()
    first, second = sorted((report.result() for report in reports), key=lambda one: one.seconds["forward"])  # type: ignore[union-attr, return-value]
    assert engine.most_inside == 1
    assert engine.calls == 2
    assert second is not None
    assert first is not None
    assert second.seconds["forward"] >= LONG
    assert first.seconds["forward"] < LONG  # to wait for the model is none of it,
    assert 0 <= first.seconds["parse_and_rank"] < LONG  # nor of anything else


def test_units_at_once_have_the_parts_that_they_have_alone(tmp_path: Path, replica: Replica, units: list[Unit]) -> None:
    for unit in units:
        replica.bring_to_part(unit)
    alone = {unit: (tmp_path / "out" / unit.name).read_bytes() for unit in units}
    with ThreadPoolExecutor(len(units)) as threads:
        reports = list(threads.map(replica.bring_to_part, units))
    assert [report.unit for report in reports if report is not None] == units
    for unit in units:
        ours, theirs = (
            pq.read_table(pa.BufferReader(content))
            for content in ((tmp_path / "out" / unit.name).read_bytes(), alone[unit])
        )
        assert ours.schema.equals(theirs.schema, check_metadata=True)
        assert ours.equals(theirs)


def test_a_cpu_without_memory_for_a_batch_costs_no_row(
    tmp_path: Path, replica: Replica, units: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's allocator for CPUs says so in words of its own."""
    engine = replica.scorer.reranker.engine  # type: ignore[attr-defined]
    encoder, refused = engine.encoder, []

    def small_memory(packed: Any) -> Any:
        if packed.input_ids.numel() > 40:
            refused.append(packed)
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
        return encoder(packed)

    monkeypatch.setattr(engine, "encoder", small_memory)
    reports = [replica.bring_to_part(unit) for unit in units]
    assert refused
    assert [report.counts.errors for report in reports if report is not None] == [{}] * len(units)
    tables = [pq.read_table(tmp_path / "out" / unit.name) for unit in units]
    assert sum(table.num_rows for table in tables) == ROWS
    assert all(table["error"].null_count == table.num_rows for table in tables)


class ForgetfulReplica(Replica):
    """Answers one row less than it has read."""

    def answer(self, table: pa.Table) -> Answered:
        return super().answer(table.slice(1))


@pytest.mark.parametrize(
    ("where", "said"),
    [(None, "came back with 3 rows, counted 3, of 4:"), ("query_id != q0", "came back with 2 rows, counted 2, of 3:")],
)
def test_an_answer_without_all_rows_stops_the_job_and_leaves_no_part(
    tmp_path: Path, settings_of: Callable[..., RerankSettings], where: str | None, said: str
) -> None:
    """Also where a filter has left rows out before."""
    write_input(tmp_path / "in", a=lists_table(4))
    (tmp_path / "out").mkdir()
    settings = settings_of(tmp_path / "in", tmp_path / "out")
    selection = Selection(where=(parse_condition(where),)) if where else EVERYTHING
    replica = ForgetfulReplica(Assignment(settings, Layout.LISTS, "f", StubScorer, selection))
    unit = Unit(str(tmp_path / "in" / "a.parquet"), 0, 4)
    [report] = reports_of([replica(pa.table({"unit": [as_json(unit)]}))])
    assert report.stop is not None
    assert said in report.stop
    assert not list((tmp_path / "out").iterdir())


TEXTS = st.none() | st.text()
SECONDS = st.floats(0, 1e6)
REPORTS = st.builds(
    UnitReport,
    st.builds(Unit, st.text(), st.integers(0), st.integers(1)),
    st.builds(Counts, st.integers(0), st.dictionaries(st.text(), st.integers(1)), st.builds(Usage, st.integers(0))),
    TEXTS,
    TEXTS,
    TEXTS,
    st.dictionaries(st.text(), SECONDS),
    st.none() | st.builds(Scored, st.text(), SECONDS, SECONDS),
    st.integers(0),
    TEXTS,
)


@given(st.lists(st.lists(REPORTS, max_size=3), max_size=3))
def test_a_report_comes_to_the_driver_as_it_was_sent(batches: list[list[UnitReport]]) -> None:
    assert list(reports_of(map(to_batch, batches))) == [report for batch in batches for report in batch]


def test_only_the_monitor_among_our_children_is_killed(tmp_path: Path) -> None:
    monitor = tmp_path / "autoscaler" / "_private" / "monitor.py"
    monitor.parent.mkdir(parents=True)
    other = tmp_path / "monitor.py"
    for path in (monitor, other):
        path.write_text("import time; time.sleep(60)")
    children = [subprocess.Popen([sys.executable, str(path)]) for path in (monitor, other)]
    try:
        wait_until(lambda: all(len(psutil.Process(child.pid).cmdline()) == 2 for child in children))
        kill_autoscaler_monitor()
        assert children[0].wait(PATIENCE) != 0
        assert children[1].poll() is None
    finally:
        for child in children:
            child.kill()
            child.wait()
