"""What a worker of a training run does by itself: no Ray is needed to see it."""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path

import pytest

from jobs.training.train.config import Source, TrainConfig, Validation
from jobs.training.train.paths import RunFiles
from jobs.training.train.worker import History, Task, curve_csv, keeps, map_lists
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


def test_a_validation_of_no_lists_leaves_its_place_in_the_curve_empty() -> None:
    validations = [{"step": 0, "value": math.nan}, {"step": 10, "value": 0.5}]
    curve = curve_csv(History(validations=validations), "nDCG@10").splitlines()
    assert curve[0].endswith(",validation nDCG@10")
    assert curve[1:] == ["0,,,,,", "10,,,,,0.5000"]


def test_the_weights_that_stay_are_those_of_the_best_validation_or_the_last_ones() -> None:
    best, last = Validation(), Validation(keep="last")
    assert [keeps(best, value, 0.5) for value in (0.4, 0.5, 0.6, math.nan)] == [False, False, True, True]
    assert all(keeps(last, value, 0.5) for value in (0.4, 0.5, 0.6, math.nan))
