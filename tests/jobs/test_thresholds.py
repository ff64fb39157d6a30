"""`--score-threshold` and `--calibration`: what a job leaves out, of which models, and what a resumption has."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from jobs.agreement.lists import logits_of, scores_of
from jobs.agreement.runs import read_run
from jobs.cli import app
from jobs.driver.dry_run import dry_run
from jobs.driver.resolution import with_resolved_model
from jobs.errors import RefusedError
from jobs.scoring.scorer import own_scorer
from jobs.screen import count_rows
from jobs.settings import RerankSettings
from jobs.table.columns import GroupBy, Layout
from pipelines.calibration import CALIBRATION, Calibration
from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.model_sources import find_model
from tests.checkpoints import copy_model
from tests.jobs.conftest import RunJob
from tests.jobs.tables import lists_table, parts, read_json, read_output, rows_of_output, write_input

SCALE, BIAS = 0.25, 0.3


def calibration(directory: Path, scale: float = SCALE, bias: float = BIAS) -> Calibration:
    return Calibration(scale, bias, find_model(str(directory)).digest())


@pytest.fixture
def calibrated(bert_directory: Path, tmp_path: Path) -> Path:
    """The tiny model, whose logits a calibration spreads over 0..1."""
    directory = copy_model(bert_directory, tmp_path / "calibrated")
    (directory / CALIBRATION).write_text(calibration(directory).as_json())
    return directory


def rankings(output: Path) -> list[list[tuple[int, float]]]:
    found = read_output(output)["ranking"].to_pylist()
    return [[(one["index"], one["relevance_score"]) for one in row] for row in found]


def median(rows: list[list[tuple[int, float]]]) -> float:
    scores = sorted(score for row in rows for _, score in row)
    return scores[len(scores) // 2]


def test_what_is_below_is_left_out_before_top_n_and_counts_all_the_same(
    tmp_path: Path, without_ray: None, run_job: RunJob, calibrated: Path
) -> None:
    source, model = write_input(tmp_path / "in", a=lists_table(20, 6)), {"model": str(calibrated)}
    everything = run_job(source, tmp_path / "all", own_scorer, reranker=model)
    expected = rankings(tmp_path / "all")
    threshold = median(expected)
    kept = [[one for one in row if one[1] >= threshold] for row in expected]
    assert 0 < sum(map(len, kept)) < 120
    summary = run_job(source, tmp_path / "kept", own_scorer, reranker=model, score_threshold=threshold)
    assert rankings(tmp_path / "kept") == kept
    assert [summary[name] for name in ("rows", "pairs", "tokens")] == [
        everything[name] for name in ("rows", "pairs", "tokens")
    ]
    assert everything["documents_below_threshold"] == 0
    assert summary["documents_below_threshold"] == 120 - sum(map(len, kept))
    two = run_job(source, tmp_path / "two", own_scorer, reranker=model, score_threshold=threshold, top_n=2)
    assert two["documents_below_threshold"] == summary["documents_below_threshold"]  # `--top-n` cuts what is above
    assert ("documents below the threshold", str(two["documents_below_threshold"])) in count_rows(two)
    assert rankings(tmp_path / "two") == [row[:2] for row in kept]
    run_job(source, tmp_path / "none", own_scorer, reranker=model, score_threshold=1)
    assert [(row["ranking"], row["error"]) for row in rows_of_output(tmp_path / "none")] == [([], None)] * 20


def test_logits_are_kept_by_their_scores(tmp_path: Path, without_ray: None, run_job: RunJob, calibrated: Path) -> None:
    source, model = write_input(tmp_path / "in", a=lists_table(10, 6)), {"model": str(calibrated)}
    run_job(source, tmp_path / "all", own_scorer, reranker=model)
    threshold = median(rankings(tmp_path / "all"))
    run_job(source, tmp_path / "kept", own_scorer, reranker=model, score_threshold=threshold)
    run_job(source, tmp_path / "raw", own_scorer, reranker=model | {"raw_scores": True}, score_threshold=threshold)
    scores, logits = (rankings(tmp_path / one) for one in ("kept", "raw"))
    assert [[index for index, _ in row] for row in logits] == [[index for index, _ in row] for row in scores]
    for row, raw in zip(scores, logits, strict=True):
        assert [score for _, score in row] == pytest.approx(
            [1 / (1 + math.exp(-(SCALE * logit + BIAS))) for _, logit in raw], abs=1e-6
        )
    run = read_run(str(tmp_path / "raw"), "RUN_A")
    assert scores_of(pa.array([0.5]), logits_of(run)) == pytest.approx([1 / (1 + math.exp(-(SCALE * 0.5 + BIAS)))])


def test_a_null_document_reaches_no_threshold(
    tmp_path: Path, without_ray: None, run_job: RunJob, calibrated: Path
) -> None:
    source = write_input(tmp_path / "in", a=pa.table({"query": ["q"], "documents": [["a", None, "b"]]}))
    model = {"model": str(calibrated)}
    run_job(source, tmp_path / "all", own_scorer, reranker=model)
    assert [index for index, _ in rankings(tmp_path / "all")[0]][-1] == 1
    summary = run_job(source, tmp_path / "kept", own_scorer, reranker=model, score_threshold=0)
    assert sorted(index for index, _ in rankings(tmp_path / "kept")[0]) == [0, 2]
    assert summary["null_documents"] == 1


def test_pair_rows_have_none_and_groups_of_them_do(
    tmp_path: Path, without_ray: None, run_job: RunJob, calibrated: Path, settings_of: Callable[..., RerankSettings]
) -> None:
    rows = {"query_id": ["1"] * 4, "query": ["q"] * 4, "document_id": list("abcd"), "document": ["w", "x", "y", "z"]}
    source, model = write_input(tmp_path / "in", a=pa.table(rows)), {"model": str(calibrated)}
    with pytest.raises(ConfigError, match="--score-threshold does not go with pair rows: each row in is a row out"):
        run_job(source, tmp_path / "out", own_scorer, reranker=model, score_threshold=0.5)
    assert not (tmp_path / "out").exists()
    groups = {"reranker": model, "group_by": GroupBy("query_id")}
    run_job(source, tmp_path / "all", own_scorer, **groups)
    [everything] = rankings(tmp_path / "all")
    run_job(source, tmp_path / "kept", own_scorer, **groups, score_threshold=everything[1][1])
    assert rankings(tmp_path / "kept") == [[one for one in everything if one[1] >= everything[1][1]]]
    estimate = dry_run(
        settings_of(source, tmp_path / "new", **groups, score_threshold=0.5, dry_run=True, pairs_per_second=1.0)
    )
    assert estimate["pairs"] == 4


def test_scores_that_are_not_calibrated_refuse_it_unless_that_is_allowed(
    tmp_path: Path, without_ray: None, run_job: RunJob, settings_of: Callable[..., RerankSettings]
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    told = r"--score-threshold is 0.5, and the scores of .* are not calibrated, .* or give --uncalibrated"
    with pytest.raises(ConfigError, match=told):
        run_job(source, tmp_path / "out", own_scorer, score_threshold=0.5)
    with pytest.raises(ConfigError, match=told):
        dry_run(settings_of(source, tmp_path / "out", score_threshold=0.5))
    assert not (tmp_path / "out").exists()
    run_job(source, tmp_path / "out", own_scorer, score_threshold=0.5, uncalibrated=True)
    assert all(score >= 0.5 for row in rankings(tmp_path / "out") for _, score in row)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--score-threshold", "1.5"], "--score-threshold is 1.5; it lies in 0..1"),
        (["--score-threshold", "-0.1"], "--score-threshold is -0.1; it lies in 0..1"),
        (["--score-threshold", "nan"], "--score-threshold is nan; it lies in 0..1"),
        (["--uncalibrated"], "--uncalibrated is for --score-threshold"),
        (["--calibration", "none.json"], "the calibration none.json cannot be read"),
    ],
)
def test_flags_that_cannot_work_are_usage_errors(flags: list[str], told: str, tmp_path: Path) -> None:
    source = write_input(tmp_path / "in", a=lists_table(2))
    ended = CliRunner().invoke(app, ["rerank", str(source), str(tmp_path / "out"), *flags], env={"COLUMNS": "300"})
    assert (ended.exit_code, told in ended.output) == (2, True), ended.output


def test_another_threshold_is_another_job_and_the_same_one_goes_on(
    tmp_path: Path, without_ray: None, run_job: RunJob, calibrated: Path
) -> None:
    source, output = write_input(tmp_path / "in", a=lists_table(20, 6)), tmp_path / "out"
    settings = {"reranker": {"model": str(calibrated)}, "score_threshold": 0.25}
    run_job(source, output, own_scorer, **settings)
    assert read_json(output / "_manifest.json")["options"]["score_threshold"] == 0.25
    with pytest.raises(RefusedError, match=r"--score-threshold was 0.25, is 0.5"):
        run_job(source, output, own_scorer, **settings | {"score_threshold": 0.5})
    with pytest.raises(RefusedError, match=r"--score-threshold was 0.25, is None"):
        run_job(source, output, own_scorer, reranker=settings["reranker"])
    before = rankings(output)
    parts(output)[0].unlink()
    run_job(source, output, own_scorer, **settings)
    assert rankings(output) == before


def test_another_calibration_is_another_job_and_one_that_changes_nothing_is_none(
    tmp_path: Path, without_ray: None, run_job: RunJob, bert_directory: Path
) -> None:
    source, output = write_input(tmp_path / "in", a=lists_table(5)), tmp_path / "out"
    run_job(source, output, own_scorer)
    same = {"calibration": calibration(bert_directory, 1, 0)}
    assert len(run_job(source, output, own_scorer, reranker=same)["attempts"]) == 1
    other = {"calibration": calibration(bert_directory, 2, 0.5)}
    with pytest.raises(RefusedError, match=r"calibration \(scale and bias\) was None, is \[2.0, 0.5\]"):
        run_job(source, output, own_scorer, reranker=other)


def test_replicas_score_by_the_file_that_the_driver_read(
    tmp_path: Path, without_ray: None, run_job: RunJob, bert_directory: Path
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    given = {"calibration": calibration(bert_directory, 2, -90)}
    run_job(source, tmp_path / "out", own_scorer, reranker=given)
    assert all(score < 0.5 for row in rankings(tmp_path / "out") for _, score in row)
    assert read_json(tmp_path / "out" / "_manifest.json")["fingerprint"]["calibration"] == [2.0, -90.0]


def test_that_of_another_model_is_refused_before_anything_starts(
    tmp_path: Path, settings_of: Callable[..., RerankSettings]
) -> None:
    given = Calibration(2, 0, "0" * 64)
    settings = settings_of(tmp_path, tmp_path / "out", reranker={"calibration": given}, layout=Layout.LISTS)
    with pytest.raises(ModelRefusedError, match="fitted for other files"):
        with_resolved_model(settings)
