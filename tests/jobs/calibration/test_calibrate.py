"""`crossray calibrate`: what it reads, what it fits, how far scores can be believed afterwards, and what is refused."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import jobs.calibration.run
from jobs.calibration.fit import ScoredPairs, fitted
from jobs.calibration.labels import LabelledList, LabelledLists, read_labels
from jobs.calibration.settings import CalibrateSettings
from jobs.cli import app
from jobs.errors import StoppedError
from jobs.settings import RerankSettings
from jobs.table.columns import ColumnMapping
from pipelines.calibration import CALIBRATION, Calibration
from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.model_sources import find_model
from pipelines.reranker import Reranker
from tests.checkpoints import copy_model, words, write_qwen
from tests.jobs.permissions import as_nobody
from tests.jobs.stubs import no_ray_session
from tests.jobs.training.here import stay_here

SCALE, BIAS = 0.4, -1.0
"""By which the labels of these tests are drawn."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray in this test."""
    stay_here(monkeypatch)
    monkeypatch.setattr(jobs.calibration.run, "ray_session", no_ray_session)


@pytest.fixture
def model(bert_directory: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, with a list of its files as `crossray train` writes it."""
    directory = copy_model(bert_directory, tmp_path / "model")
    sums = [f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in sorted(directory.iterdir())]
    (directory / "SHA256SUMS").write_text("".join(sums))
    return directory


@pytest.fixture(scope="module")
def rows(bert_directory: Path) -> list[dict[str, Any]]:
    """Sixty lists of six, whose labels are drawn so that sigmoid(SCALE * logit + BIAS) is how likely each is 1."""
    reranker = Reranker.load(str(bert_directory), device="cpu", num_threads=1, raw_scores=True)
    rng = np.random.default_rng(0)
    found = []
    for number in range(60):
        query, documents = words(3, seed=1000 + number), [words(5, seed=10 * number + i) for i in range(6)]
        logits = np.array(reranker.compute_score([(query, document) for document in documents]))
        labels = rng.random(6) < 1 / (1 + np.exp(-(SCALE * logits + BIAS)))
        found.append({"query": query, "documents": documents, "labels": labels.astype(int).tolist()})
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)
    return path


def calibrate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)], env={"COLUMNS": "160", "TERM": "dumb"})


def settings_of(labels: object, **settings: Any) -> CalibrateSettings:
    return CalibrateSettings("embedded", str(labels), RerankSettings("", ""), **settings)


def as_pairs(found: LabelledLists) -> list[tuple[str, str, bool]]:
    return sorted(
        (one.query, passage, relevant)
        for one in found.lists
        for passage, relevant in zip(one.passages, one.relevant, strict=True)
    )


def test_a_calibration_of_lists_is_written_into_the_model_whose_scores_it_mends(
    here: None, model: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    labels = write(tmp_path / "labels.parquet", rows)
    done = calibrate(model, labels)
    assert done.exit_code == 0, done.output
    made = Calibration.read(model / CALIBRATION)
    share = np.mean([label for row in rows for label in row["labels"]])
    assert f"360 labelled pairs of 60 queries; {share:.1%} are relevant" in done.output
    assert (made.pairs, made.data, made.files) == (360, ("labels.parquet",), find_model(str(model)).digest())
    assert made.relevant == pytest.approx(share)
    assert made.calibration_error_after is not None
    assert made.calibration_error_before is not None
    assert made.calibration_error_after < made.calibration_error_before
    told = f"{made.calibration_error_before:.3f} before, {made.calibration_error_after:.3f} after"
    assert told in done.output
    assert "score = sigmoid(" in done.output
    assert not (model / f"{CALIBRATION}.scoring").exists()

    reranker = Reranker.load(str(model), device="cpu", num_threads=1)
    assert reranker.calibration == made
    pairs = [(row["query"], document) for row in rows for document in row["documents"]]
    relevant = np.array([label for row in rows for label in row["labels"]])
    scores = np.array(reranker.compute_score(pairs))
    # Where the loss is least, its derivative by the bias is 0: the scores add up to the targets.
    targets = np.where(relevant, (relevant.sum() + 1) / (relevant.sum() + 2), 1 / ((1 - relevant).sum() + 2))
    assert scores.sum() == pytest.approx(targets.sum(), abs=0.02)
    assert scores.mean() == pytest.approx(share, abs=0.01)

    lines = dict(line.split("  ")[::-1] for line in (model / "SHA256SUMS").read_text().splitlines())
    assert {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in lines} == lines
    assert CALIBRATION in lines

    again = calibrate(model, labels)
    assert again.exit_code == 0, again.output
    replaced = Calibration.read(model / CALIBRATION)
    assert (replaced.scale, replaced.bias) == pytest.approx((made.scale, made.bias))
    assert replaced.calibration_error_before is not None  # that of the calibration that there was
    assert replaced.calibration_error_before < made.calibration_error_before


def test_what_the_model_was_told_is_written_along(here: None, tmp_path: Path) -> None:
    model, told = write_qwen(tmp_path / "qwen"), "Find rivers"
    reranker = Reranker.load(str(model), device="cpu", num_threads=1, instruction=told)
    documents = [words(5, seed=i) for i in range(4)]
    rows = []
    for number in range(30):
        query = words(3, seed=1000 + number)
        logits = np.array(reranker.compute_score([(query, document) for document in documents]))
        rows.append({"query": query, "documents": documents, "labels": (logits > np.median(logits)).tolist()})
    done = calibrate(model, write(tmp_path / "labels.parquet", rows), "--instruction", told)
    assert done.exit_code == 0, done.output
    assert Calibration.read(model / CALIBRATION).instruction == told
    assert Reranker.load(str(model), device="cpu", instruction=told).calibration is not None


@pytest.mark.parametrize("damaged", [False, True])
def test_a_calibration_of_other_weights_is_no_hindrance_to_a_new_one(
    damaged: bool, here: None, model: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Everything else refuses such a model and says to calibrate it anew. A damaged file is never replaced, though."""
    labels, output = write(tmp_path / "labels.parquet", rows), tmp_path / "new.json"
    earlier = Calibration(5.0, 3.0, "0" * 64).as_json()
    (model / CALIBRATION).write_text("{}" if damaged else earlier)
    with pytest.raises(ModelRefusedError):
        Reranker.load(str(model), device="cpu")
    done = calibrate(model, labels, *(["--output", output] if damaged else []))
    assert done.exit_code == 0, done.output
    assert "note: it is not used here: " in done.output
    made = Calibration.read(output if damaged else model / CALIBRATION)
    assert made.scale == pytest.approx(SCALE, rel=0.3)
    assert Reranker.load(str(model), device="cpu", calibration=made).calibration == made


def test_scale_and_bias_are_those_that_labels_were_drawn_by() -> None:
    """And where the loss is least, both of its derivatives are 0."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, 20_000)
    relevant = rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * logits - 1.5)))
    fit = fitted(ScoredPairs(logits, relevant, rng.random(20_000) < 0.5), None)
    assert (fit.scale, fit.bias) == pytest.approx((0.7, -1.5), abs=0.05)
    said = 1 / (1 + np.exp(-(fit.scale * logits + fit.bias)))
    targets = np.where(relevant, (relevant.sum() + 1) / (relevant.sum() + 2), 1 / ((~relevant).sum() + 2))
    assert abs((said - targets).mean()) < 1e-5
    assert abs(((said - targets) * logits).mean()) < 1e-5
    before, after = fit.errors(relevant)
    assert after < 0.02 < before


def test_pairs_that_a_score_tells_apart_keep_the_scale_finite() -> None:
    logits = np.array([-2.0, -1.0, 1.0, 2.0] * 10)
    fit = fitted(ScoredPairs(logits, logits > 0, np.arange(40) % 8 < 4), None)
    assert 0 < fit.scale < 20
    assert math.isfinite(fit.bias)


def test_each_half_is_measured_with_what_the_other_gives() -> None:
    """One half says the opposite of the other: measured by itself, each would look true."""
    logits = np.tile([-3.0, 3.0], 200)
    halves = np.arange(400) < 200
    relevant = np.where(halves, logits > 0, logits < 0)
    fit = fitted(ScoredPairs(logits, relevant, halves), None)
    assert ((fit.after > 0.5) == relevant).mean() == 0.0


def test_a_model_that_orders_the_labels_backwards_is_refused(
    here: None, model: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    turned = [{**row, "labels": [1 - label for label in row["labels"]]} for row in rows]
    done = calibrate(model, write(tmp_path / "labels.parquet", turned))
    assert done.exit_code == 3, done.output
    assert "the model orders these labels backwards" in done.output
    assert not (model / CALIBRATION).exists()


@pytest.mark.parametrize("where", ["list", "field", "pairs", "positives", "names"])
def test_all_layouts_of_training_say_the_same(where: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Rows without a positive too, but for the layout that has none."""
    expected = sorted(
        (row["query"], document, bool(label))
        for row in rows
        for document, label in zip(row["documents"], row["labels"], strict=True)
    )
    assert any(not any(row["labels"]) for row in rows)
    settings: dict[str, Any] = {}
    if where == "field":
        together = [list(zip(row["documents"], row["labels"], strict=True)) for row in rows]
        given = [
            {"query": row["query"], "documents": [{"text": text, "grade": float(grade)} for text, grade in pairs]}
            for row, pairs in zip(rows, together, strict=True)
        ]
        settings = {"label_column": "documents.grade"}
    elif where == "pairs":
        given = [{"query": query, "document": document, "label": label} for query, document, label in expected]
    elif where == "positives":
        given = [
            {"query": row["query"], "positive": positive, "negatives": others}
            for row in rows
            for positive in [one for one, label in zip(row["documents"], row["labels"], strict=True) if label][:1]
            for others in [[one for one, label in zip(row["documents"], row["labels"], strict=True) if not label]]
        ]
        expected = sorted(
            (row["query"], document, document == row["positive"])
            for row in given
            for document in [row["positive"], *row["negatives"]]
        )
    elif where == "names":
        given = [{"q": row["query"], "hits": row["documents"], "clicks": row["labels"]} for row in rows]
        settings = {"label_column": "clicks", "mapping": ColumnMapping(query="q", documents="hits")}
    else:
        given = rows
    assert as_pairs(read_labels(settings_of(write(tmp_path / "labels.parquet", given), **settings))) == expected


def test_what_cannot_be_used_is_left_out_and_named(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    odd = [
        {"query": None, "documents": ["a"], "labels": [1.0]},
        {"query": "q", "documents": ["a", "b"], "labels": [1.0]},
        {"query": "q", "documents": ["a", None, "b"], "labels": [None, 1.0, 0.0]},
        {"query": "q", "documents": ["a"], "labels": [None]},
    ]
    write(folder / "a.parquet", odd)
    write(folder / "b.parquet", rows)
    pq.write_table(pa.table({"other": [1]}), folder / "c.parquet")
    (folder / "d.parquet").write_bytes(b"PAR1 no parquet PAR1")
    found = read_labels(settings_of(folder))
    assert found.bad.counts == {"null_query": 1, "labels_do_not_match": 1, "no_label": 1}
    assert ("q", "b", False) in as_pairs(found)
    assert len(as_pairs(found)) == 361
    assert {Path(path).name for path in found.unreadable} == {"c.parquet", "d.parquet"}


def test_a_null_among_the_fields_of_documents_is_not_judged_and_costs_no_other(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "documents": [{"text": "a", "clicked": True}, {"text": "b", "clicked": None}, None]},
        {"query": "r", "documents": None},
        {"query": "s", "documents": [{"text": None, "clicked": True}, {"text": "c", "clicked": False}]},
        {"query": "t", "documents": [{"text": "d", "clicked": None}]},
    ]
    found = read_labels(settings_of(write(tmp_path / "log.parquet", rows), label_column="documents.clicked"))
    assert as_pairs(found) == [("q", "a", True), ("s", "c", False)]
    assert found.bad.counts == {"null_documents": 1, "no_label": 1}


def test_queries_are_drawn_by_their_texts_whatever_order_they_come_in(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    drawn = [
        read_labels(settings_of(write(tmp_path / f"{name}.parquet", given), queries=5))
        for name, given in (("a", rows), ("b", rows[::-1]))
    ]
    assert as_pairs(drawn[0]) == as_pairs(drawn[1])
    assert [(one.queries, len(one.seen)) for one in drawn] == [(5, 60), (5, 60)]


def test_lists_of_the_same_queries_are_drawn_anew_only_when_they_have_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lists the drawn queries have, none of which is left out."""
    drawings = []
    draw = LabelledLists.draw

    def counted(found: LabelledLists) -> None:
        drawings.append(len(found.lists))
        draw(found)

    monkeypatch.setattr(LabelledLists, "draw", counted)
    found = LabelledLists(10)
    for number in range(5000):
        found.add(LabelledList(bytes([number % 10]), "q", ["a"], [True]))
    assert len(found.lists) == 5000
    assert drawings == [41, 83, 167, 335, 671, 1343, 2687]


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_file_is_drawn_as_it_is_read_and_anew_in_each_attempt(
    attempts: int, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store lets its file be read twice where a request failed; of a file with many queries few are in memory."""
    folder = tmp_path / "labels"
    folder.mkdir()
    write(folder / "a.parquet", rows)
    write(folder / "b.parquet", [{**row, "query": None if number else row["query"]} for number, row in enumerate(rows)])
    once = read_labels(settings_of(folder, queries=4))
    held = []
    add = LabelledLists.add

    def counted(found: LabelledLists, one: LabelledList) -> None:
        add(found, one)
        held.append(len(found.lists))

    def read(location: str, state: str, reader: Any) -> Any:
        with pq.ParquetFile(location) as file:
            return [reader(file) for _ in range(attempts)][-1]

    monkeypatch.setattr(LabelledLists, "add", counted)
    monkeypatch.setattr("jobs.storage.read_as_planned", read)
    found = read_labels(settings_of(folder, queries=4))
    assert max(held) <= 4 * 4
    assert as_pairs(found) == as_pairs(once)
    assert (len(found.seen), found.bad.counts) == (60, {"null_query": 59})
    assert found.bad.examples[0] == f"{folder / 'b.parquet'}: row 1: null_query: query is null"


def test_a_query_is_in_one_half_with_all_its_rows(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    found = read_labels(settings_of(write(tmp_path / "labels.parquet", rows + rows)))
    halves: dict[str, set[bool]] = {}
    for one in found.lists:
        halves.setdefault(one.query, set()).add(one.is_in_second_half)
    assert all(len(half) == 1 for half in halves.values())
    assert {next(iter(half)) for half in halves.values()} == {False, True}
    assert len(found.lists) == 120


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["embedded", "{labels}"],
            2,
            "embedded is no directory of yours to write calibration.json into; give --output",
        ),
        (["{model}", "nothing.parquet"], 2, "nothing.parquet"),
        (["no/model", "{labels}"], 2, "no/model"),
        (["{model}", "{labels}", "--label-column", "clicks"], 2, "has no row with a label"),
        (["{model}", "{labels}", "--label-column", "documents.clicks"], 2, "has no row with a label"),
        (["{model}", "{labels}", "--queries", "1"], 2, "--queries is 1; it is at least 2"),
        (["{model}", "{one_kind}"], 2, "one half of the queries, which are halved by a hash, has no relevant pair"),
        (["{model}", "{labels}", "--output", "{labels}"], 3, "is there, and is no calibration to replace"),
        (["{model}", "{labels}", "--output", "{model}"], 3, "is a directory; give the name of a file"),
        (["{model}", "{labels}", "--output", ""], 2, "--output is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_work_is_said_before_anything_is_scored(
    arguments: list[str], code: int, told: str, model: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    places = {
        "model": model,
        "labels": write(tmp_path / "labels.parquet", rows),
        "one_kind": write(tmp_path / "ones.parquet", [{**row, "labels": [0] * 6} for row in rows]),
    }
    before = {path.name for path in tmp_path.rglob("*")}
    done = calibrate(*(argument.format(**places) for argument in arguments))
    assert (done.exit_code, told in " ".join(done.output.split())) == (code, True), done.output
    assert {path.name for path in tmp_path.rglob("*")} == before


def test_a_model_in_a_directory_that_we_may_not_write_is_a_usage_error(
    here: None, shared_directory: Path, bert_directory: Path, rows: list[dict[str, Any]]
) -> None:
    labels = write(shared_directory / "labels.parquet", rows)
    model = copy_model(bert_directory, shared_directory / "model")
    for file in model.iterdir():
        file.chmod(0o644)
    model.chmod(0o555)
    with as_nobody():
        done = calibrate(model, labels)
    assert done.exit_code == 2, done.output
    assert "nothing can be written into" in done.output
    assert "give --output FILE in another directory" in " ".join(done.output.split())


def test_what_was_scored_before_a_stop_is_not_scored_again(
    here: None, model: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, output = write(tmp_path / "labels.parquet", rows), tmp_path / "made.json"
    times: list[dict[str, int]] = []

    def read_and_note(place: str) -> dict[str, dict[str, float]]:
        times.append({path.name: path.stat().st_mtime_ns for path in Path(place).glob("part-*")})
        if len(times) == 1:
            raise StoppedError("somebody wants the machine")
        return read_scores(place)

    read_scores = jobs.calibration.run.read_scores
    monkeypatch.setattr(jobs.calibration.run, "read_scores", read_and_note)
    stopped = calibrate(model, labels, "--output", output)
    assert (stopped.exit_code, output.exists()) == (4, False), stopped.output
    assert "crossray calibrate" in stopped.output or "jobs.calibrate" in stopped.output
    done = calibrate(model, labels, "--output", output)
    assert done.exit_code == 0, done.output
    assert times[0] == times[1] != {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.parquet", "made.json", "model"]


def test_a_calibration_that_was_stopped_goes_on_by_another_name_of_the_model(
    here: None, model: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, output = write(tmp_path / "labels.parquet", rows), tmp_path / "made.json"
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(jobs.calibration.run, "read_scores", Mock(side_effect=StoppedError("somebody wants it")))
        assert calibrate("model", labels, "--output", output).exit_code == 4
    done = calibrate("./model", labels, "--output", output)
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_embedded_model_is_calibrated_on_ray_and_the_file_serves_a_job(
    rows: list[dict[str, Any]], tmp_path: Path, cluster: str
) -> None:
    """By the real command, and the job that takes the file writes it into its manifest."""
    labels, output = write(tmp_path / "labels.parquet", rows), tmp_path / "mine.json"
    reranker = Reranker.load("embedded", raw_scores=True)
    pairs = [(row["query"], document) for row in rows for document in row["documents"]]
    median = float(np.median(reranker.compute_score(pairs)))
    judged = [
        {
            **row,
            "labels": [
                int(one > median) for one in reranker.compute_score([(row["query"], d) for d in row["documents"]])
            ],
        }
        for row in rows
    ]
    write(labels, judged)
    done = calibrate("embedded", labels, "--output", output, "--address", cluster)
    assert done.exit_code == 0, done.output
    made = Calibration.read(output)
    given = [
        "rerank",
        labels,
        tmp_path / "out",
        "--calibration",
        output,
        "--score-threshold",
        0.5,
        "--address",
        cluster,
    ]
    ranked = CliRunner().invoke(app, [*map(str, given)])
    assert ranked.exit_code == 0, ranked.output
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["fingerprint"]["calibration"] == [made.scale, made.bias]
    assert manifest["options"]["score_threshold"] == 0.5


def test_half_of_the_queries_without_a_kind_is_an_error_of_the_labels() -> None:
    logits = np.array([1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ConfigError, match="there are 1 relevant and 3 other pairs, and one half"):
        fitted(ScoredPairs(logits, logits > 3, np.array([True, True, False, False])), None)
