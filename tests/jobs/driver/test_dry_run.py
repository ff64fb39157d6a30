"""`--dry-run`: what it says is what the job then does, and it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

import jobs.driver.dry_run
from jobs.cli import app
from jobs.driver.dry_run import MEASURED_SECONDS, SAMPLE_UNITS, duration, measured_speed
from jobs.errors import RefusedError
from jobs.input.conditions import parse_condition
from jobs.input.shards import Shard
from jobs.scoring.scorer import own_scorer
from jobs.settings import RerankSettings
from jobs.table.columns import Layout
from pipelines.errors import ConfigError, ModelNotFoundError
from pipelines.records import CandidateList, Ranking
from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.jobs.conftest import RunJob
from tests.jobs.tables import lists_table, names, parts, wide_table, write_input

DryRun = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", None)


@pytest.fixture
def dry_run(settings_of: Callable[..., RerankSettings], said: StringIO) -> DryRun:
    """The estimate, with 100 pairs a second unless told otherwise."""

    def run_it(input: Path | str, output: Path | str, **settings: Any) -> dict[str, Any]:
        settings = {"pairs_per_second": 100.0, "dry_run": True} | settings
        return jobs.driver.dry_run.dry_run(settings_of(input, output, **settings), Console(file=said, width=200))

    return run_it


def test_a_small_input_is_counted_exactly_as_the_job_counts_it(
    tmp_path: Path, without_ray: None, dry_run: DryRun, run_job: RunJob
) -> None:
    """With long documents in chunks, rows with errors, and a filter."""
    table = lists_table(20).append_column("number", pa.array(range(20)))
    documents = [[words(700, seed=1)], None, *table["documents"].to_pylist()[2:]]
    source = write_input(tmp_path / "in", a=table.set_column(2, "documents", pa.array(documents)))
    where = (parse_condition("number < 15"),)
    estimate = dry_run(source, tmp_path / "out", where=where)
    summary = run_job(source, tmp_path / "out", scorer_class=own_scorer, where=where)
    for name in ("rows", "rows_left_out", "rows_with_errors", "pairs", "chunks", "tokens", "cut_documents"):
        assert estimate[name] == summary[name]
    assert estimate["is_exact"]
    assert estimate["chunks"] > estimate["pairs"] > 0
    assert (estimate["units"], estimate["rows_with_errors"]) == (summary["parts"], 1)


def test_a_large_input_is_estimated_from_some_units_of_it_the_same_each_time(tmp_path: Path, dry_run: DryRun) -> None:
    source = write_input(tmp_path / "in", a=wide_table(2_000))
    estimate = dry_run(source, tmp_path / "out")
    assert estimate["units"] > SAMPLE_UNITS
    assert estimate["rows_sampled"] < 1_200
    assert not estimate["is_exact"]
    assert (estimate["rows"], estimate["pairs"]) == (2_000, 6_000)
    assert estimate["tokens"] == pytest.approx(lists_tokens(source, dry_run, tmp_path), rel=0.05)
    assert dry_run(source, tmp_path / "out") == estimate


def lists_tokens(source: Path, dry_run: DryRun, tmp_path: Path) -> int:
    """Of all lists, read in small files of which each is seen whole."""
    table = pq.read_table(source / "a.parquet")
    whole = [write_input(tmp_path / f"whole{i}", a=table.slice(500 * i, 500)) for i in range(4)]
    estimates = [dry_run(one, tmp_path / "out") for one in whole]
    assert all(estimate["is_exact"] for estimate in estimates)
    return sum(estimate["tokens"] for estimate in estimates)


def test_time_and_cost_follow_from_pairs_speed_replicas_and_price(
    tmp_path: Path, dry_run: DryRun, said: StringIO
) -> None:
    source = write_input(tmp_path / "in", a=wide_table(100))
    estimate = dry_run(source, tmp_path / "out", pairs_per_second=0.05, replicas=(1, 3), price=1.5)
    assert estimate["replicas"] == 3
    assert estimate["seconds"] == pytest.approx(300 / 0.05 / 3)
    assert estimate["replica_hours"] == pytest.approx(300 / 0.05 / 3600)
    assert estimate["cost"] == pytest.approx(2.5)
    assert "33.3 min with 3 replica(s)" in said.getvalue()
    assert "2.50 at 1.50 a replica-hour" in said.getvalue()
    assert "speed as given. An estimate: it holds for replicas like this" in said.getvalue()


def test_there_are_no_more_replicas_than_units(tmp_path: Path, dry_run: DryRun) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    assert dry_run(source, tmp_path / "out", replicas=(1, 64))["replicas"] == 1


def test_it_leaves_nothing_behind_and_loads_no_weights_where_the_speed_is_given(
    tmp_path: Path, dry_run: DryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reranker, "from_config", None)
    source = write_input(tmp_path / "in", a=lists_table(5))
    dry_run(source, tmp_path / "out")
    assert names(tmp_path) == ["in", "in/a.parquet"]


def test_the_speed_is_that_of_the_loaded_model_on_the_sample(tmp_path: Path, dry_run: DryRun, said: StringIO) -> None:
    source = write_input(tmp_path / "in", a=lists_table(40))
    estimate = dry_run(source, tmp_path / "out", pairs_per_second=None)
    assert estimate["pairs_per_second"] > 1
    assert estimate["seconds"] == pytest.approx(120 / estimate["pairs_per_second"])
    assert "speed measured for some seconds on this machine" in said.getvalue()


def test_without_a_pair_there_is_nothing_to_measure(tmp_path: Path, dry_run: DryRun, said: StringIO) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    where = (parse_condition("query_id = none"),)
    estimate = dry_run(source, tmp_path / "out", pairs_per_second=None, where=where, price=1.0)
    assert (estimate["rows"], estimate["seconds"], estimate["cost"]) == (0, 0, 0)
    assert "speed not measured: no pairs" in said.getvalue()


def test_measuring_ends_however_slow_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first batch warms up and does not count; batches are cut from long lists too."""
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    calls: list[int] = []

    class SlowModel:
        def rerank_lists(self, lists: list[CandidateList], *, top_n: int | None) -> list[Ranking]:
            calls.append(sum(len(one.documents) for one in lists))
            clock[0] += calls[-1] / 10 + (1 if len(calls) == 1 else 0)
            return []

    model: Any = SlowModel()
    assert measured_speed(model, [CandidateList("q", ["d"])] * 1_000, None) == pytest.approx(10)
    assert calls == [1, 2, 4, 8, 16, 32][: len(calls)]
    assert clock[0] < MEASURED_SECONDS + 3.2
    calls.clear()
    assert measured_speed(model, [CandidateList("q", ["d"] * 10_000)], None) == pytest.approx(32 / 4.2)
    assert calls == [32]


def test_what_is_finished_is_not_counted_again(
    tmp_path: Path, without_ray: None, dry_run: DryRun, run_job: RunJob
) -> None:
    source, output = write_input(tmp_path / "in", a=wide_table(100)), tmp_path / "out"
    run_job(source, output)
    (output / "_summary.json").unlink()
    parts(output)[0].unlink()
    before = names(output)
    estimate = dry_run(source, output)
    assert (estimate["units"], estimate["units_done"], estimate["rows"]) == (4, 3, 25)
    assert dry_run(source, output, overwrite=True)["rows"] == 100
    with pytest.raises(RefusedError, match="--limit was None, is 5"):
        dry_run(source, output, limit=5)
    assert names(output) == before


def test_a_share_and_a_limit_are_those_of_the_job(tmp_path: Path, dry_run: DryRun) -> None:
    source = write_input(tmp_path / "in", a=lists_table(2_000))
    shares = [dry_run(source, tmp_path / "out", shard=Shard(i, 3))["rows"] for i in (1, 2, 3)]
    assert sorted(shares) == [666, 667, 667]
    assert dry_run(source, tmp_path / "out", limit=70)["rows"] == 70


def test_pair_rows_are_a_pair_each(tmp_path: Path, dry_run: DryRun) -> None:
    pairs = pa.table({"query": ["a", "b", None], "document": ["c", "d", "e"]})
    estimate = dry_run(write_input(tmp_path / "in", a=pairs), tmp_path / "out", layout=Layout.PAIRS)
    assert (estimate["rows"], estimate["pairs"], estimate["rows_with_errors"]) == (3, 2, 1)


def test_files_that_cannot_be_read_are_named(tmp_path: Path, dry_run: DryRun, said: StringIO) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    (source / "b.parquet").write_text("no Parquet")
    assert dry_run(source, tmp_path / "out")["rows"] == 5
    assert f"cannot be read: {source}/b.parquet: ArrowInvalid" in said.getvalue()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"top_n": 3, "layout": Layout.PAIRS}, ConfigError, "column `document` is missing"),
        ({"where": (parse_condition("x = 1"),)}, ConfigError, "there is no column `x`"),
        ({"reranker": {"model": "/no/model"}}, ModelNotFoundError, "/no/model"),
        ({"num_gpus": 1, "pairs_per_second": None}, ConfigError, "this machine has no GPU to measure a replica on"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_usage_errors_are_those_of_the_job(
    tmp_path: Path,
    dry_run: DryRun,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    source = write_input(tmp_path / "in", a=lists_table(5))
    with pytest.raises(error, match=message):
        dry_run(source, tmp_path / "out", **settings)


def test_the_command_line_exits_with_0(tmp_path: Path, bert_directory: Path) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    flags = ["--dry-run", "--pairs-per-second", "10", "--model", str(bert_directory)]
    result = CliRunner().invoke(app, ["rerank", str(source), str(tmp_path / "out"), *flags])
    assert result.exit_code == 0, result.output
    assert "Dry run: nothing is written" in result.output
    assert names(tmp_path) == ["in", "in/a.parquet"]


@pytest.mark.parametrize(
    ("seconds", "said_as"), [(0.25, "0.2 s"), (119, "119.0 s"), (120, "2.0 min"), (7_200, "2.0 h"), (1e6, "277.8 h")]
)
def test_durations_are_said_in_their_unit(seconds: float, said_as: str) -> None:
    assert duration(seconds) == said_as


def test_a_store_that_lets_nobody_in_is_a_usage_error_as_it_is_for_the_job(s3: None, dry_run: DryRun) -> None:
    with pytest.raises(ConfigError, match="there is no such bucket"):
        dry_run("s3://no-such-bucket/in", "s3://no-such-bucket/out")
