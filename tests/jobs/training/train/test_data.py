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
from jobs.training.bad_rows import TooManyBadRowsError
from jobs.training.train.config import Source, TrainConfig
from jobs.training.train.data import check_data, prepared
from jobs.training.train.paths import RunFiles
from jobs.training.train.planning import source_files
from jobs.training.train.screen import print_data
from jobs.training.train.shards import ShardReport
from pipelines.errors import ConfigError
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
