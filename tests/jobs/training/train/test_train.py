"""`crossray train` on a real Ray: it learns, resumes, names bad rows, and its model is one that everything loads."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs.errors import RefusedError
from jobs.output.lease import hold_lease
from jobs.training.bad_rows import TooManyBadRowsError
from jobs.training.train.config import read_config
from jobs.training.train.run import run
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError
from pipelines.model_files import ModelFiles
from pipelines.reranker import Reranker
from tests.checkpoints import WORDS
from tests.stores import S3TestBucket

CONFIG = """
base = "{base}"
output = "{output}"

[recipe]
steps = 120
lists_per_step = 8
passages_per_list = 4
max_lengths = [24]
max_query_length = 8
learning_rate = 3e-3

[validation]
share = 0.2
every = 40

[[sources]]
path = "clicks.parquet"
licence = "our own logs"
random_negatives = 3
"""


def clicks(rows: int = 300) -> pa.Table:
    """The right document says the query's word again."""
    rng = random.Random(0)
    words = [rng.choice(WORDS) for _ in range(rows)]
    return pa.table(
        {
            "query": [f"{word} {rng.choice(WORDS)}" for word in words],
            "positive": [f"{word} {rng.choice(WORDS)} {rng.choice(WORDS)}" for word in words],
        }
    )


def write_config(folder: Path, base: Path, table: pa.Table) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "clicks.parquet")
    path = folder / "train.toml"
    path.write_text(CONFIG.format(base=base, output=folder / "run"))
    return path


def train(config_file: Path, said: io.StringIO | None = None, **options: Any) -> dict[str, Any]:
    overrides = options.pop("overrides", {})
    console = Console(file=said or io.StringIO(), width=200)
    return run(read_config(config_file, overrides), config_file, console=console, **options)


@pytest.fixture(scope="module")
def finished(cluster: str, bert_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run that is done, in `run` beside it; with TensorBoard's events."""
    folder = tmp_path_factory.mktemp("finished")
    config_file = write_config(folder, bert_directory, clicks())
    train(config_file, tensorboard=str(folder / "events"))
    return config_file


def curve_of(output: Path) -> list[dict[str, str]]:
    with (output / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_learns_and_says_so(finished: Path) -> None:
    output = finished.parent / "run"
    summary = json.loads((output / "_summary.json").read_text())
    assert summary["steps"] == 120
    assert summary["after"]["clicks"] > summary["before"]["clicks"] + 0.1
    assert summary["calibration_error"]["all"] < 0.3
    curve = curve_of(output)
    assert [row["step"] for row in curve] == [str(step) for step in range(0, 121, 10)]
    assert float(curve[-1]["loss"]) < float(curve[1]["loss"])
    assert [row["step"] for row in curve if row["validation nDCG@10"]] == ["0", "40", "80", "120"]
    assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished.parent / "events").glob("events.out.tfevents.*"))


def test_the_card_is_written_from_the_run(finished: Path) -> None:
    model = finished.parent / "run" / "model"
    card = (model / "README.md").read_text()
    calibration = ModelFiles("", model).calibration()
    assert calibration is not None
    assert (calibration.is_identity, calibration.data) == (True, ("clicks",))
    assert "| clicks | our own logs | 300 | 300 |" in card
    assert ModelFiles("", model).digest() in card
    assert "expected calibration error" in card
    assert "120 of 120 steps, 3,840 pairs" in card


def test_the_model_loads_here_and_in_transformers(finished: Path) -> None:
    model = finished.parent / "run" / "model"
    query, documents = "zebra river", ["meadow salmon", "zebra salmon meadow", "walnut silver"]
    ours = Reranker.from_config(RerankerConfig(str(model), raw_scores=True, device="cpu"))
    scores = ours.compute_score([(query, document) for document in documents], max_length=24)
    theirs = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    with torch.inference_mode():
        logits = theirs(**tokenizer([query] * 3, documents, padding=True, return_tensors="pt")).logits[:, 0]
    assert scores == pytest.approx(logits.tolist(), abs=1e-3)


def test_a_finished_run_is_left_alone(finished: Path) -> None:
    summary = (finished.parent / "run" / "_summary.json").read_bytes()
    said = io.StringIO()
    assert train(finished, said) == json.loads(summary)
    assert "is complete" in said.getvalue()
    with pytest.raises(RefusedError, match=r"recipe\.steps = 120, and now it is 121"):
        train(finished, overrides={"recipe.steps": 121})
    with pytest.raises(RefusedError, match="no run of ours wrote it"):
        train(finished, overrides={"output": str(finished.parent / "events")})
    with pytest.raises(RefusedError, match=r"source 'clicks': .*clicks\.parquet lies in the output"):
        train(finished, overrides={"output": str(finished.parent)})
    assert (finished.parent / "run" / "_summary.json").read_bytes() == summary


def test_a_finished_run_is_known_without_its_model(finished: Path) -> None:
    """Neither torch nor Ray Train, whose loading takes seconds."""
    code = """
import sys
from pathlib import Path
from jobs.train import TrainSettings, train
code = train(TrainSettings(Path(sys.argv[1])))
sys.exit(code or "torch" in sys.modules or "ray.train" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(finished)], capture_output=True, text=True, check=False)
    assert (ran.returncode, "is complete" in ran.stdout) == (0, True), ran.stderr


def test_a_stage_does_not_begin_from_an_unfinished_one(finished: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "_manifest.json").write_text("{}")
    with pytest.raises(RefusedError, match="a run that is not complete"):
        train(finished, overrides={"base": str(unfinished), "output": str(tmp_path / "second")})


@pytest.mark.endurance
def test_two_workers_in_an_object_store_and_the_stage_after_them(
    finished: Path, s3_bucket: S3TestBucket, tmp_path: Path
) -> None:
    """Two workers take the steps of one: the same lists in the same order, so the same curve but for rounding. Rows,
    checkpoints and model lie in the store, and the next stage begins from there."""
    rows = (finished.parent / "clicks.parquet").read_bytes()
    s3_bucket.put("rows/clicks.parquet", rows)
    run = f"{s3_bucket.uri}/run"
    first = train(finished, overrides={"data": f"{s3_bucket.uri}/rows", "output": run, "workers.count": 2})
    one = curve_of(finished.parent / "run")
    two = list(csv.DictReader(io.StringIO(s3_bucket.get("run/curve.csv").decode())))
    losses = ([float(row["loss"]) for row in curve[1:3]] for curve in (one, two))
    assert next(losses) == pytest.approx(next(losses), abs=0.1)

    overrides = {"base": run, "output": str(tmp_path / "second"), "recipe.steps": 2}
    second = train(finished, overrides=overrides)
    assert second["base"] == f"{run}/model"
    assert second["before"]["clicks"] == pytest.approx(first["after"]["clicks"], abs=0.05)


def test_a_run_without_labels_is_measured_by_its_teacher(cluster: str, bert_directory: Path, tmp_path: Path) -> None:
    """The teacher counts the words that query and document share."""
    rng = random.Random(0)
    queries = [rng.sample(WORDS, 3) for _ in range(200)]
    documents = [
        [query[:shared] + rng.sample(sorted({*WORDS} - {*query}), 4 - shared) for shared in (3, 0, 2, 1)]
        for query in queries
    ]
    scores = [[3.0, 0.0, 2.0, 1.0]] * 200
    texts = pa.table(
        {
            "query": [" ".join(query) for query in queries],
            "documents": [[" ".join(words) for words in of_query] for of_query in documents],
            "teacher": scores,
        }
    )
    config_file = write_config(tmp_path / "taught", bert_directory, texts)
    said = io.StringIO()
    summary = train(config_file, said, overrides={"recipe.steps": 80})
    assert summary["measure"] == "tau with the teacher"
    assert summary["validation_lists"] == summary["sources"][0]["held_back"]
    assert summary["after"]["clicks"] > summary["before"]["clicks"] + 0.1
    assert "tau with the teacher before" in said.getvalue()
    curve = curve_of(tmp_path / "taught" / "run")
    assert [row["step"] for row in curve if row["validation tau with the teacher"]] == ["0", "40", "80"]
    assert {row["best label first"] for row in curve} == {""}
    card = (tmp_path / "taught" / "run" / "model" / "README.md").read_text()
    assert "| source | tau with the teacher before | after |" in card
    assert "Not calibrated" in card


def test_more_bad_rows_than_allowed_end_the_run_before_it_trains(
    cluster: str, bert_directory: Path, tmp_path: Path
) -> None:
    good = clicks(60)
    bad = pa.table({"query": [None, "zebra"], "positive": ["river", None]}, schema=good.schema)
    config_file = write_config(tmp_path / "bad", bert_directory, pa.concat_tables([good, bad]))
    said = io.StringIO()
    with pytest.raises(TooManyBadRowsError, match="2 row"):
        train(config_file, said, max_errors=1)
    assert "row 60: null_query" in said.getvalue()
    assert "row 61: no_positive" in said.getvalue()
    assert not (tmp_path / "bad" / "run" / "checkpoints").exists()


def test_what_cannot_be_trained_is_an_error_before_anything_is_written(
    finished: Path, bert_directory: Path, tmp_path: Path
) -> None:
    for overrides, message in (
        ({"recipe.max_lengths": [4096]}, "reads 512 tokens at most"),
        ({"workers.count": 9}, "each worker needs a list of every step"),
        ({"recipe.learning_rate": 0.0}, "it is a number above 0"),
        ({"data": str(tmp_path)}, "has no Parquet files"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(finished, overrides=overrides | {"output": str(tmp_path / "never")})
    assert not (tmp_path / "never").exists()


def test_a_run_does_not_overwrite_the_model_that_it_begins_from(finished: Path) -> None:
    output = finished.parent / "run"
    with pytest.raises(RefusedError, match=r"base .*run/model lies in the output .*run; give another output"):
        train(finished, overrides={"base": str(output)}, overwrite=True)
    assert (output / "model" / "model.safetensors").exists()


def test_an_output_that_cannot_be_made_is_a_wrong_argument(bert_directory: Path, tmp_path: Path) -> None:
    config_file = write_config(tmp_path / "in", bert_directory, clicks(20))
    with pytest.raises(ConfigError, match=r"clicks\.parquet/run cannot be made \(Not a directory\)"):
        train(config_file, overrides={"output": str(tmp_path / "in" / "clicks.parquet" / "run")})


def test_a_run_that_lives_is_not_overwritten(finished: Path) -> None:
    output = finished.parent / "run"
    with hold_lease(str(output)):
        model = (output / "model" / "model.safetensors").read_bytes()
        with pytest.raises(RefusedError, match="another"):
            train(finished, overwrite=True)
        assert (output / "model" / "model.safetensors").read_bytes() == model


@pytest.mark.slow
def test_a_killed_driver_and_a_killed_worker_cost_no_step(cluster: str, bert_directory: Path, tmp_path: Path) -> None:
    """The curve of a run whose worker and then whose driver were killed is that of an undisturbed one."""
    config_file = write_config(tmp_path / "killed", bert_directory, clicks())
    whole, again = tmp_path / "whole", tmp_path / "again"
    train(config_file, overrides={"recipe.steps": 200, "output": str(whole)})

    command = [sys.executable, "-m", "jobs.train", str(config_file), "--steps", "200", "--output", str(again)]
    process = subprocess.Popen(command, start_new_session=True)
    checkpoints = again / "checkpoints"
    wait_for(lambda: len(list(checkpoints.glob("checkpoint_*/history.json"))) >= 1)
    kill_worker()
    wait_for(lambda: len(list(checkpoints.glob("checkpoint_*/history.json"))) >= 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)
    subprocess.run(command, check=True, timeout=250)
    curves = [(folder / "curve.csv").read_text() for folder in (whole, again)]
    losses = [[(row["step"], row["loss"]) for row in csv.DictReader(io.StringIO(text))] for text in curves]
    assert losses[0] == losses[1]


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def kill_worker() -> None:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        if any("RayTrainWorker" in part for part in process.info["cmdline"] or ()):
            process.kill()
