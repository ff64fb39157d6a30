"""calibration.json: what it does to scores and to the fingerprint, whose it is, and what is refused in it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.calibration import CALIBRATION, Calibration
from pipelines.config import RerankerConfig
from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.families.qwen import QWEN3
from pipelines.fingerprint import ServedModel, logits_fingerprint, planned_fingerprint, resolved
from pipelines.model_sources import find_model, is_needed
from pipelines.ranking import rank, sigmoid
from pipelines.records import CandidateList, Usage
from pipelines.reranker import Reranker
from tests.checkpoints import copy_model, read_weights, words, write_qwen, write_weights

QUERY, DOCUMENTS = words(4), [words(5, seed=seed) for seed in range(1, 7)]
INSTRUCTION, OTHER = "Find the bridge that answers", "Find rivers"


def of(directory: Path, scale: float = 2.0, bias: float = -0.5, **more: Any) -> Calibration:
    return Calibration(scale, bias, find_model(str(directory)).digest(), **more)


@pytest.fixture
def calibrated(bert_directory: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, with a calibration beside its weights."""
    directory = copy_model(bert_directory, tmp_path / "calibrated")
    (directory / CALIBRATION).write_text(of(directory).as_json())
    return directory


def test_scores_are_the_sigmoid_of_the_scaled_logit_and_raw_ones_are_the_logit(
    bert: Reranker, calibrated: Path
) -> None:
    ours = Reranker.load(str(calibrated), device="cpu", num_threads=1)
    pairs = [(QUERY, one) for one in DOCUMENTS]
    raw = Reranker.load(str(calibrated), device="cpu", num_threads=1, raw_scores=True)
    logits = raw.compute_score(pairs)
    expected = [1 / (1 + math.exp(-(2 * logit - 0.5))) for logit in logits]
    assert ours.compute_score(pairs) == pytest.approx(expected, abs=1e-6)
    found = ours.rerank(QUERY, DOCUMENTS)
    assert [one.relevance_score for one in found] == pytest.approx([expected[one.index] for one in found], abs=1e-6)
    assert [one.index for one in found] == [one.index for one in bert.rerank(QUERY, DOCUMENTS)]
    assert bert.compute_score(pairs) == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-6)


def test_a_given_file_counts_before_that_of_the_directory(calibrated: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(of(calibrated, scale=3, bias=1).as_json())
    ours = Reranker.load(str(calibrated), device="cpu", num_threads=1, calibration=given)
    assert ours.calibration == of(calibrated, scale=3, bias=1)
    assert ours.fingerprint.calibration == (3, 1)


def test_the_fingerprint_has_it_and_is_what_it_was_for_one_that_changes_nothing(
    bert_directory: Path, calibrated: Path
) -> None:
    """So that what an earlier version began goes on; known logits serve in either case."""
    plain = planned_fingerprint(RerankerConfig(model=str(bert_directory), device="cpu"))
    with_own = planned_fingerprint(RerankerConfig(model=str(calibrated), device="cpu"))
    identity = of(bert_directory, scale=1, bias=0)
    same = planned_fingerprint(RerankerConfig(model=str(bert_directory), device="cpu", calibration=identity))
    assert "calibration" not in plain.as_dict()
    assert (same.hash, same.as_dict()) == (plain.hash, plain.as_dict())
    assert with_own.hash != plain.hash
    assert with_own.as_dict() == plain.as_dict() | {"calibration": [2.0, -0.5]}
    assert logits_fingerprint(with_own.as_dict()) == logits_fingerprint(plain.as_dict())
    assert Reranker.load(str(calibrated), device="cpu").fingerprint == with_own


def test_the_fingerprint_of_the_embedded_model_is_that_of_the_version_before() -> None:
    config = RerankerConfig(device="cpu", dtype="float32")
    assert planned_fingerprint(config).hash == "0e73e9bf737bb7bb4d7c68111bad7f30"
    assert Reranker.from_config(config).calibration == Calibration.read("pipelines/embedded/calibration.json")


def test_the_embedded_model_brings_one_of_its_own_weights() -> None:
    files = find_model("embedded")
    found = files.calibration()
    assert found is not None
    found.check_fits(files.digest(), files.name)
    assert found.is_identity


def test_it_is_fetched_with_the_other_files_of_a_model() -> None:
    """From a store or the hub."""
    assert is_needed(CALIBRATION)


def test_another_process_gets_what_was_found_here(calibrated: Path) -> None:
    config = RerankerConfig(model=str(calibrated), device="cpu")
    assert resolved(config, find_model(str(calibrated))).calibration == of(calibrated)


def test_that_of_other_weights_is_refused(calibrated: Path, bert_directory: Path, tmp_path: Path) -> None:
    """In the directory, where the weights were replaced, and as a file that is given."""
    tensors = read_weights(calibrated)
    name = next(iter(tensors))
    write_weights(calibrated, tensors | {name: tensors[name] + 1})
    with pytest.raises(ModelRefusedError, match=r"fitted for other files .* than those of .*calibrated"):
        Reranker.load(str(calibrated), device="cpu")
    other = tmp_path / "other.json"
    other.write_text(replace(of(bert_directory), files="0" * 64).as_json())
    with pytest.raises(ModelRefusedError, match="fitted for other files"):
        Reranker.load(str(bert_directory), device="cpu", calibration=str(other))


def test_that_of_an_instruction_holds_for_this_one_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = write_qwen(tmp_path / "model")
    fitted = replace(of(model), instruction=INSTRUCTION)
    (model / CALIBRATION).write_text(fitted.as_json())
    given = tmp_path / "given.json"
    given.write_text(fitted.as_json())
    asked = Reranker.load(str(model), device="cpu", instruction=INSTRUCTION)
    assert asked.calibration == fitted
    assert Reranker.load(str(model), device="cpu", instruction=INSTRUCTION, calibration=given).calibration == fitted
    for instruction in (None, OTHER):
        assert Reranker.load(str(model), device="cpu", instruction=instruction).calibration is None
        assert "calibration for another instruction" in caplog.text
        with pytest.raises(ModelRefusedError, match="fitted with the instruction 'Find the bridge that answers', and"):
            Reranker.load(str(model), device="cpu", instruction=instruction, calibration=given)
    plain = Reranker.load(str(model), device="cpu", instruction=OTHER)
    told_otherwise = asked.rerank(QUERY, DOCUMENTS, instruction=OTHER)
    assert [one.relevance_score for one in told_otherwise] == [
        pytest.approx(one.relevance_score, abs=1e-5) for one in plain.rerank(QUERY, DOCUMENTS)
    ]
    assert asked.rerank(QUERY, DOCUMENTS, score_threshold=0.0, instruction=INSTRUCTION) == asked.rerank(
        QUERY, DOCUMENTS
    )
    with pytest.raises(ConfigError, match="not calibrated"):
        asked.rerank(QUERY, DOCUMENTS, score_threshold=0.0, instruction=OTHER)


def test_that_of_the_own_instruction_holds_however_this_is_said(tmp_path: Path) -> None:
    model = write_qwen(tmp_path / "model")
    (model / CALIBRATION).write_text(of(model).as_json())
    left_out = Reranker.load(str(model), device="cpu")
    said = Reranker.load(str(model), device="cpu", instruction=QWEN3.instruction)
    assert left_out.calibration == said.calibration == of(model)
    assert left_out.rerank(QUERY, DOCUMENTS, score_threshold=0.0, instruction=QWEN3.instruction) == left_out.rerank(
        QUERY, DOCUMENTS
    )
    served = ServedModel(left_out.config, 1024, left_out.fingerprint, 0, True, QWEN3.instruction)
    assert served.fingerprint_with(left_out.lengths, QWEN3.instruction) == left_out.fingerprint
    assert served.fingerprint_with(left_out.lengths, OTHER).calibration is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scale": 0}, "scale is 0; it is more than 0"),
        ({"scale": -1.5}, "scale is -1.5; it is more than 0"),
        ({"scale": math.nan}, "scale is nan; it is a number"),
        ({"scale": 10**400}, "scale is 1000"),
        ({"scale": True}, "scale is True; it is a number"),
        ({"bias": "0.1"}, "bias is '0.1'; it is a number"),
        ({"bias": math.inf}, "bias is inf; it is a number"),
        ({"bias": None}, "bias is None; it is a number"),
        ({"files": "abc"}, "files is 'abc'; it is the SHA-256"),
        ({"pairs": -1}, "pairs is -1"),
        ({"relevant": 1.5}, "relevant is 1.5; it lies in 0..1"),
        ({"data": "a.parquet"}, "data is 'a.parquet'; it is a list of names"),
        ({"note": 3}, "note is 3; it is a text"),
        (
            {"temperature": 2},
            "'temperature', which is none of a calibration; if another program wrote it, take it away",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_file_is_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"scale": 1.0, "bias": 0.0, "files": "0" * 64} | changes))
    with pytest.raises(ModelRefusedError) as refusal:
        Calibration.read(path)
    assert told in str(refusal.value)
    assert str(refusal.value).startswith(str(path))


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"[1]", "holds list"), (b"{", "is not JSON"), (b"\xff", "is not JSON"), (b'{"bias": 0}', "has no 'scale'")],
)
def test_what_is_no_calibration_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(ModelRefusedError, match=told):
        Calibration.read(path)


def test_a_file_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Reranker.load("embedded", calibration=tmp_path / "none.json")


def test_a_file_comes_back_as_it_was_written() -> None:
    one = Calibration(1.25, -0.75, "ab" * 32, 100, 0.25, 0.2, 0.05, ("a.parquet", "b.parquet"), "a note")
    assert Calibration.from_json(one.as_json().encode(), "here") == one


class TestThresholds:
    """What `score_threshold` leaves out."""

    LOGITS = np.array([0.0, 2.0, -1.0, 2.0, -3.0], np.float32)

    def indexes(self, threshold: float, **more: Any) -> list[int]:
        documents = [str(i) for i in range(len(self.LOGITS))]
        found = rank(
            CandidateList("q", documents), self.LOGITS, [1] * 5, Usage(pairs=5), score_threshold=threshold, **more
        )
        assert found.usage.pairs == 5
        return [one.index for one in found.documents]

    def test_what_is_below_is_left_out_and_what_reaches_it_stays(self) -> None:
        assert self.indexes(0.5) == [1, 3, 0]
        assert self.indexes(0.500001) == [1, 3]
        assert self.indexes(0) == [1, 3, 0, 2, 4]
        assert self.indexes(1) == []

    def test_top_n_counts_what_is_left(self) -> None:
        assert self.indexes(0.5, top_n=2) == [1, 3]
        assert self.indexes(0.9, top_n=3) == []

    def test_it_is_one_of_scores_with_raw_scores_too(self) -> None:
        assert self.indexes(0.5, raw_scores=True) == [1, 3, 0]

    def test_it_is_one_of_calibrated_scores(self) -> None:
        """0.5 is where 2 x - 5 is 0: at a logit of 2.5, which none of these has."""
        calibration = Calibration(2, -5, "0" * 64)
        assert self.indexes(0.5, calibration=calibration) == []
        assert self.indexes(1 / (1 + math.e), calibration=calibration) == [1, 3]

    def test_a_score_that_is_repeated_keeps_its_document(self) -> None:
        """As float32 shows it, in few digits, and as a double has it."""
        for score in sigmoid(self.LOGITS):
            kept = sum(sigmoid(self.LOGITS) >= score)
            assert len(self.indexes(float(str(score)))) == len(self.indexes(float(score))) == kept

    def test_a_model_without_calibration_refuses_it_unless_that_is_allowed(self, bert: Reranker) -> None:
        with pytest.raises(
            ConfigError, match=r"score_threshold is 0.5, and the scores of this model are not calibrated"
        ):
            bert.rerank(QUERY, DOCUMENTS, score_threshold=0.5)
        allowed = bert.rerank(QUERY, DOCUMENTS, score_threshold=0.5, allow_uncalibrated=True)
        everything = bert.rerank(QUERY, DOCUMENTS)
        assert allowed == [one for one in everything if one.relevance_score >= 0.5]
        assert 0 < len(allowed) <= len(everything)

    @pytest.mark.parametrize("threshold", [-0.1, 1.01, math.nan, math.inf])
    def test_what_is_no_score_is_refused(self, threshold: float, bert: Reranker) -> None:
        with pytest.raises(ConfigError, match=r"it lies in 0\.\.1"):
            bert.rerank(QUERY, DOCUMENTS, score_threshold=threshold, allow_uncalibrated=True)

    def test_the_embedded_model_takes_it(self) -> None:
        reranker = Reranker.load("embedded", device="cpu", num_threads=1)
        documents = ["sorted() returns a new list", "bananas"]
        assert [one.index for one in reranker.rerank("sort a list", documents, score_threshold=0.5)] == [0]


@pytest.mark.parametrize(
    ("scale", "bias", "message"),
    [
        (math.nan, 0.0, "scale of a calibration is nan; it is a number"),
        (0.0, 0.0, "scale of a calibration is 0.0; it is more than 0"),
        (-1.0, 0.0, "scale of a calibration is -1.0; it is more than 0"),
        (1.0, math.inf, "bias of a calibration is inf; it is a number"),
    ],
)
def test_one_of_ones_own_is_checked_too(scale: float, bias: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibration(scale, bias, "files")


@pytest.mark.parametrize("threshold", ["0.5", True, math.nan, -0.1, 1.5, [0.5]])
def test_a_threshold_that_is_no_number_in_its_range_is_refused(calibrated: Path, threshold: Any) -> None:
    ours = Reranker.load(str(calibrated), device="cpu", num_threads=1)
    with pytest.raises(ConfigError, match=r"score_threshold is .*; it lies in 0\.\.1"):
        ours.rerank(QUERY, DOCUMENTS, score_threshold=threshold)
    assert ours.rerank(QUERY, DOCUMENTS, score_threshold=np.float32(0.0))


def test_a_path_that_no_system_has_is_told(calibrated: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        Calibration.read("a\0b")
