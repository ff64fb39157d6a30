"""Flags reach the settings of every command, and what is not given is their default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import jobs.training.label.run
import jobs.training.mine.run
import jobs.training.train.run
from jobs import errors
from jobs.cli import app
from jobs.flags import parse_replicas
from jobs.settings import RerankSettings
from jobs.table.columns import ColumnMapping
from jobs.training.encoders import EncoderSettings
from jobs.training.label.settings import LabelSettings
from jobs.training.label.teachers import parse_teacher
from jobs.training.mine.settings import MineSettings, MiningColumns, Rule
from pipelines.config import RerankerConfig


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of each mining and labelling that would have run."""
    settings_asked: list[Any] = []

    def remember(settings: Any) -> dict[str, Any]:
        settings_asked.append(settings)
        return {"rows_with_errors": 2, "unreadable": {}}

    monkeypatch.setattr(jobs.training.label.run, "label", remember)
    monkeypatch.setattr(jobs.training.mine.run, "mine", remember)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return settings_asked


def exit_code(command: str) -> int:
    return CliRunner().invoke(app, command.split(), env={"COLUMNS": "200", "TERM": "dumb"}).exit_code


def test_mining_without_flags_is_the_default_of_its_settings(asked: list[Any]) -> None:
    assert exit_code("mine in out --model m") == errors.DONE
    assert asked == [MineSettings(RerankSettings("in", "out", RerankerConfig("m")))]


def test_every_flag_of_mining_reaches_its_settings(asked: list[Any]) -> None:
    model = "--model m --revision r --token t --dtype float32 --max-length 128 --max-query-length 32"
    dense = "--dense d --query-prefix q: --passage-prefix p: --dense-length 99"
    candidates = "--depth 7 --corpus c --corpus-text x --ranks 3:9 --margin 0.5 --negatives 4 --keep-empty"
    columns = "--query-column q --positive-column p --negatives-column n --group-column g"
    job = "--scores s --scores-memory 1GB --replicas 2:5 --num-cpus 3 --num-gpus 0.5 --address auto --overwrite"
    line = f"mine in out {model} {dense} {candidates} {columns} {job} --max-errors 1"
    assert exit_code(line) == errors.DONE_WITH_ERRORS
    reranker = RerankerConfig("m", revision="r", token="t", dtype="float32", max_length=128, max_query_length=32)
    expected = RerankSettings(
        "in",
        "out",
        reranker,
        replicas=(2, 5),
        num_cpus=3,
        num_gpus=0.5,
        address="auto",
        scores="s",
        scores_memory=10**9,
        overwrite=True,
        max_errors=1,
    )
    encoder = EncoderSettings("d", "q:", "p:", 99)
    rule = Rule((3, 9), 0.5, 4, True)
    assert asked == [MineSettings(expected, MiningColumns("q", "p", "n", "g"), 7, encoder, "c", "x", rule)]


def test_every_flag_of_labelling_reaches_its_settings(asked: list[Any]) -> None:
    assert exit_code("label in out --teacher bm25") == errors.DONE
    dense = "--query-prefix q: --passage-prefix p: --dense-length 99"
    columns = "--column words --query-column q --documents-column d --text-field t"
    assert exit_code(f"label in out --teacher dense:d {dense} {columns} --max-length 64 --max-errors 2") == errors.DONE
    mapping = ColumnMapping(query="q", documents="d", text_field="t")
    job = RerankSettings("in", "out", RerankerConfig(max_length=64), mapping, max_errors=2)
    assert asked == [
        LabelSettings(RerankSettings("in", "out"), parse_teacher("bm25"), encoder=EncoderSettings("")),
        LabelSettings(job, parse_teacher("dense:d"), "words", EncoderSettings("", "q:", "p:", 99)),
    ]


def test_every_flag_of_training_reaches_its_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(jobs.training.train.run, "run", lambda *given, **options: calls.append((*given, options)))
    path = tmp_path / "train.toml"
    path.write_text('base = "b"\noutput = "o"\nepochs = 2\n[[sources]]\npath = "rows.parquet"\n')
    over = "--base m --data /d --output out --steps 7 --workers 2 --num-cpus 3 --num-gpus 0.5"
    assert exit_code(f"train {path} {over} --max-errors 4 --overwrite --address auto") == errors.DONE
    [(config, config_file, options)] = calls
    assert (config.base, config.data, config.output, config.recipe.steps) == ("m", "/d", "out", 7)
    assert (config.workers.count, config.workers.cpus, config.workers.gpus) == (2, 3.0, 0.5)
    assert config_file == path
    assert options == {"max_errors": 4, "overwrite": True, "address": "auto", "tensorboard": None}


@pytest.mark.parametrize(
    "line",
    [
        "mine in out",
        "mine in out --model m --ranks 3",
        "mine in out --model m --depth 0",
        "label in out",
        "label in out --teacher bm25 --column query",
        "label in out --teacher bm25 --scores-memory much",
    ],
)
def test_values_that_cannot_work_are_usage_errors(asked: list[Any], line: str) -> None:
    assert exit_code(line) == errors.USAGE
    assert asked == []


@pytest.mark.parametrize(("text", "expected"), [("4", (4, 4)), ("1:8", (1, 8)), ("2:2", (2, 2))])
def test_replicas(text: str, expected: tuple[int, int]) -> None:
    assert parse_replicas(text) == expected


def test_a_training_that_may_have_less_than_no_bad_rows_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(tmp_path / "train.toml"), "--max-errors", "-1"])
    assert (done.exit_code, "--max-errors is -1; it is 0 or more" in done.output) == (errors.USAGE, True)
