"""What a worker of a training run does by itself: no Ray is needed to see it."""

from __future__ import annotations

import io
import json
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray.train.torch
import torch

from jobs.training.train.card import calibration_lines
from jobs.training.train.config import Source, TrainConfig, Validation
from jobs.training.train.paths import RunFiles
from jobs.training.train.shards import ShardReport
from jobs.training.train.worker import History, Task, TrainingWorker, curve_csv, keeps, map_lists, of_every_second
from pipelines.training.token_lists import TokenList, TokenLists


def shard(folder: Path, number: int) -> str:
    content = io.BytesIO()
    TokenLists.of([TokenList([number], [[7, 8], [9]], [1.0, 0.0], [0.5, 0.5], held_back=False)]).save(content)
    path = folder / f"{number}.npz"
    path.write_bytes(content.getvalue())
    return str(path)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task whose lists are joined in the folder `temporary` of the test."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Task(
        config=TrainConfig("embedded", str(tmp_path), sources=(Source("rows.parquet"),)),
        output=RunFiles(str(tmp_path)),
        reports=(),
        shards=(shard(tmp_path, 1), shard(tmp_path, 2)),
        source_names=("rows",),
        vocab_size=10,
        lists_id="some-run",
        tensorboard=None,
    )


def test_the_lists_leave_no_file_behind_and_can_be_read(task: Task, tmp_path: Path) -> None:
    """The files are there while workers wait for one another; the second one of a machine reads those of the first."""
    others: list[TokenLists] = []

    def second_comes() -> None:
        assert sorted(path.suffix for path in (tmp_path / "temporary").iterdir()) == ["", ".lock"]
        others.append(map_lists(task, lambda: None))

    lists = map_lists(task, second_comes)
    assert list((tmp_path / "temporary").iterdir()) == []
    for one in (lists, *others):
        assert len(one) == 2
        assert one.tokens.tolist() == [1, 7, 8, 9, 2, 7, 8, 9]


def test_a_worker_that_fails_leaves_no_file_behind(task: Task, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError("another worker died")

    with pytest.raises(RuntimeError, match="another worker died"):
        map_lists(task, fail)
    Path(task.shards[1]).unlink()
    with pytest.raises(FileNotFoundError):
        map_lists(task, lambda: None)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_patience_counts_validations_since_the_best() -> None:
    history = History(best_step=40, validations=[{"step": step} for step in (0, 20, 40, 60, 80)])
    assert history.without_gain() == 2


def test_a_run_that_goes_on_has_the_same_learning_curve(
    task: Task, bert_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last checkpoint lies between two lines of the curve."""
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    reported = []

    def keep(metrics: object, checkpoint: ray.train.Checkpoint) -> None:
        shutil.copytree(checkpoint.path, tmp_path / f"checkpoint {len(reported)}")
        reported.append(metrics)

    monkeypatch.setattr(ray.train, "report", keep)
    made = [TokenList([5 + i], [[6 + i, 9], [30 - i]], [1, 0], [math.nan] * 2, held_back=i < 16) for i in range(20)]
    recipe = replace(task.config.recipe, steps=20, lists_per_step=2)
    config = replace(task.config, base=str(bert_directory), recipe=recipe, validation=Validation(every=6))
    task = replace(task, config=config, reports=(ShardReport(0, "rows.parquet", lists=20),))
    whole = TrainingWorker(task, TokenLists.of(made))
    whole.go()
    assert [line[0] for line in whole.history.lines] == ["10", "20"]
    first = ray.train.Checkpoint.from_directory(tmp_path / "checkpoint 0")
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: first)
    second = TrainingWorker(task, TokenLists.of(made))
    second.go()
    assert len(reported) == 4 + 3
    for ours, theirs in zip(second.history.lines, whole.history.lines, strict=True):
        assert ours[:3] == theirs[:3]


def test_a_validation_of_no_lists_leaves_its_place_in_the_curve_empty() -> None:
    validations = [{"step": 0, "value": math.nan}, {"step": 10, "value": 0.5}]
    curve = curve_csv(History(validations=validations), "nDCG@10").splitlines()
    assert curve[0].endswith(",validation nDCG@10")
    assert curve[1:] == ["0,,,,,", "10,,,,,0.5000"]


def test_the_weights_that_stay_are_those_of_the_best_validation_or_the_last_ones() -> None:
    best, last = Validation(), Validation(keep="last")
    assert [keeps(best, value, 0.5) for value in (0.4, 0.5, 0.6, math.nan)] == [False, False, True, True]
    assert all(keeps(last, value, 0.5) for value in (0.4, 0.5, 0.6, math.nan))


def test_a_fit_sees_every_second_of_the_lists_that_have_labels() -> None:
    """Whatever their numbers are among all lists."""
    assert of_every_second(np.array([3, 3, 5, 5, 5, 7])).tolist() == [True, True, False, False, False, True]


def test_a_model_that_orders_backwards_keeps_its_order_and_its_card_says_why(
    task: Task, bert_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a head and its opposite puts relevant passages lower than others."""
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    made = [TokenList([5 + i], [[6 + i, 9], [30 - i]], [1, 0], [math.nan] * 2, held_back=i < 16) for i in range(20)]
    config = replace(task.config, base=str(bert_directory), name="model")
    task = replace(task, config=config, reports=(ShardReport(0, "rows.parquet", lists=20),))
    said = {}
    for sign in (1, -1):
        worker = TrainingWorker(task, TokenLists.of(made))
        weight = worker.best_weights["head_out.weight"] = sign * worker.best_weights["head_out.weight"]
        worker.finish()
        result = json.loads((tmp_path / "_result.json").read_text())
        is_forwards = result["platt"][0] > 0
        assert torch.equal(worker.trainer.encoder.head_out.weight, weight) != is_forwards
        assert (tmp_path / "model" / "calibration.json").exists() == is_forwards
        (tmp_path / "model" / "calibration.json").unlink(missing_ok=True)
        said[is_forwards] = "\n".join(calibration_lines(result))
    assert "Measured on the other lists" in said[True]
    assert "Not calibrated: fitted on every second held-back list (Platt), the scale is -" in said[False]


def test_a_card_says_what_is_missing_to_calibrate_on() -> None:
    assert "no passage with a label above 0, or none with the label 0" in "".join(calibration_lines({"platt": None}))
    unmeasured = "".join(calibration_lines({"platt": [2.0, 0.5], "calibration": {}}))
    assert "Scale 2.000 and bias 0.500 were fitted" in unmeasured
    assert "How far scores are off is not known" in unmeasured
