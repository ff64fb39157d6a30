"""How the rows of a training are prepared: what is read again, what is said of it, and what ends the run."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers

import jobs.training.train.data
from jobs import storage
from jobs.errors import RefusedError
from jobs.training.bad_rows import TooManyBadRowsError
from jobs.training.train.config import Source, TrainConfig
from jobs.training.train.data import check_data, check_labels, prepared
from jobs.training.train.paths import RunFiles
from jobs.training.train.planning import source_files
from jobs.training.train.run import begin
from jobs.training.train.screen import print_data
from jobs.training.train.shards import ShardReport
from pipelines.errors import ConfigError
from pipelines.training.recipe import Recipe
from tests.jobs.stubs import run_stage_here


@pytest.fixture
def base() -> Any:
    """As much of a model as the preparation needs."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return SimpleNamespace(tokenizer=tokenizer)


def test_a_long_file_that_cannot_be_read_is_one_file() -> None:
    reports = [*(ShardReport(0, "long", unreadable="why") for _ in range(3)), ShardReport(0, "b", trainable=1)]
    check_data(reports, 1)
    with pytest.raises(TooManyBadRowsError, match=r"0 row\(s\) and 1 file\(s\) cannot be used"):
        check_data(reports, 0)
    with pytest.raises(ConfigError, match="no file of any source could be read"):
        check_data(reports[:3], None)
    said = io.StringIO()
    print_data(Console(file=said, width=400), TrainConfig("embedded", "run", sources=(Source("s", "s"),)), reports)
    assert said.getvalue().count("could not be read: long") == 1


def test_one_row_of_each_file_and_reason_is_shown_however_many_stretches_there_are() -> None:
    reports = [
        ShardReport(0, path, examples=[f"row {2 * i + j}: {why}: text: more" for why in ("x", "y") for j in range(2)])
        for path in ("a", "b")
        for i in range(3)
    ]
    said = io.StringIO()
    print_data(Console(file=said, width=400), TrainConfig("embedded", "run", sources=(Source("s", "s"),)), reports)
    shown = [line for line in said.getvalue().splitlines() if line.startswith("not usable: ")]
    assert shown == [f"not usable: {path}: row 0: {why}: text: more" for path in "ab" for why in "xy"]


def test_what_could_not_be_read_is_read_again_until_the_run_trains_and_what_is_left_out_is_told(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.training.train.data, "run_stage", run_stage_here)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"query": ["a", "b"], "positive": ["b", "a"]}), folder / f"{name}.parquet")
    (folder / "notes.txt").write_text("no Parquet")
    config = TrainConfig("embedded", str(tmp_path / "run"), sources=(Source(str(folder), "s"),))
    output = RunFiles(config.output)
    listed = io.StringIO()
    files = source_files(config.sources, Console(file=listed, width=400))
    assert f"left out: 1 file(s) of {folder} that are no Parquet: {folder / 'notes.txt'}" in listed.getvalue()

    def prepare() -> list[str | None]:
        reports, _ = prepared(config, base, files, output, Console(file=io.StringIO()))
        return [report.unreadable for report in reports]

    read_parquet = storage.read_parquet

    def failing(location: str, *given: Any, **named: Any) -> Any:
        if location.endswith("b.parquet"):
            raise storage.UnreadableFileError(location, "a page is damaged")
        return read_parquet(location, *given, **named)

    with monkeypatch.context() as damaged:
        damaged.setattr(storage, "read_parquet", failing)
        assert prepare() == [None, "a page is damaged"]
    first = Path(output.lists, "000000.json").stat().st_mtime_ns
    Path(output.checkpoints).mkdir()
    assert prepare() == [None, "a page is damaged"]  # the run trains without it
    Path(output.checkpoints).rmdir()
    assert prepare() == [None, None]
    assert Path(output.lists, "000000.json").stat().st_mtime_ns == first


def test_a_preparation_that_is_stopped_behind_what_is_measured_on_leaves_its_queries_out_afterwards(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source that is held back could not be read at first, so nothing was left out for it."""
    for name, queries in (("clicks", ["a", "b"]), ("judged", ["a", "a"])):
        pq.write_table(pa.table({"query": queries, "positive": ["b", "a"]}), tmp_path / f"{name}.parquet")
    sources = tuple(
        Source(str(tmp_path / f"{name}.parquet"), name, held_back=name == "judged") for name in ("clicks", "judged")
    )
    config = TrainConfig("embedded", str(tmp_path / "run"), sources=sources)
    console = Console(file=io.StringIO())
    files = source_files(sources, console)
    read_parquet, fails = storage.read_parquet, {"judged.parquet"}

    def reading(location: str, *given: Any, **named: Any) -> Any:
        if Path(location).name in fails:
            raise storage.UnreadableFileError(location, "no answer")
        return read_parquet(location, *given, **named)

    stages = []

    def stopped(stage: Any, *given: Any, **named: Any) -> None:
        stages.append(stage)
        if len(stages) == 2:
            raise KeyboardInterrupt
        run_stage_here(stage, *given, **named)

    monkeypatch.setattr(storage, "read_parquet", reading)
    monkeypatch.setattr(jobs.training.train.data, "run_stage", run_stage_here)
    reports, _ = prepared(config, base, files, RunFiles(config.output), console)
    assert [report.left_out for report in reports] == [0, 0]
    fails.clear()
    monkeypatch.setattr(jobs.training.train.data, "run_stage", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepared(config, base, files, RunFiles(config.output), console)
    monkeypatch.setattr(jobs.training.train.data, "run_stage", run_stage_here)
    reports, _ = prepared(config, base, files, RunFiles(config.output), console)
    assert [(report.lists, report.left_out) for report in reports] == [(1, 1), (2, 0)]


@pytest.mark.parametrize(("loss", "highest"), [("bce", 1.0), ("lambda", 30.0), ("softmax", 60000.0)])
def test_labels_that_a_loss_cannot_learn_are_refused(loss: str, highest: float) -> None:
    """2^128, a gain of `lambda`, is no float32."""
    config = TrainConfig("embedded", "run", recipe=Recipe(steps=1, label_loss=loss), sources=(Source("s", "s"),))
    check_labels(config, [ShardReport(0, "a.parquet", highest_label=highest)])
    if loss != "softmax":
        with pytest.raises(ConfigError, match=rf"a\.parquet has the label {highest + 1:g}, .* from 0 to {highest:g}; "):
            check_labels(config, [ShardReport(0, "a.parquet", highest_label=highest + 1)])


def test_a_run_that_has_not_trained_begins_anew_with_other_settings(tmp_path: Path) -> None:
    """As its own errors advise: to mend a file, or take another loss."""
    output = RunFiles(str(tmp_path))
    begin(output, {"asked": {"seed": 0}}, overwrite=False)
    Path(output.lists).mkdir()
    Path(output.lists, "000000.json").touch()
    begin(output, {"asked": {"seed": 0}}, overwrite=False)
    assert Path(output.lists, "000000.json").exists()
    begin(output, {"asked": {"seed": 1}}, overwrite=False)
    assert not Path(output.lists, "000000.json").exists()
    Path(output.checkpoints).mkdir()
    begin(output, {"asked": {"seed": 1}}, overwrite=False)
    with pytest.raises(RefusedError, match="was begun with seed = 1, and now it is 2"):
        begin(output, {"asked": {"seed": 2}}, overwrite=False)
