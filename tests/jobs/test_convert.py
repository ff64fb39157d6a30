"""`crossray convert` writes what transformers loads, and never over something."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.calibration import CALIBRATION, Calibration
from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.model_files import ModelFiles
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from pipelines.training.base import ACTIVATIONS
from tests.checkpoints import (
    copy_model,
    edit_config,
    read_weights,
    write_bert,
    write_electra,
    write_gemma,
    write_modernbert,
    write_qwen,
    write_weights,
)
from tests.pipelines.families.test_qwen import as_logit_score


def test_the_layout_of_jina_v2_becomes_one_that_transformers_loads(jina_v2_directory: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(jina_v2_directory), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    ours = Reranker.from_config(RerankerConfig(str(jina_v2_directory), raw_scores=True, device="cpu", dtype="float32"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.inference_mode():
        [[theirs]] = model(**tokenizer("zebra river", "river salmon", return_tensors="pt")).logits.tolist()
    assert ours.compute_score([("zebra river", "river salmon")]) == [pytest.approx(theirs, abs=1e-4)]

    again = CliRunner().invoke(app, arguments)
    assert (again.exit_code, "is there already" in again.output) == (3, True)


@pytest.mark.parametrize("family", ["modernbert", "ettin"])
def test_modernberts_become_what_transformers_loads(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """An ettin reranker's modules become the head that transformers has."""
    directory: Path = request.getfixturevalue(f"{family}_directory")
    arguments = ["convert", str(directory), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    texts = ("zebra river", "river salmon")
    expected = Reranker.load(str(directory), raw_scores=True, device="cpu").compute_score([texts])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.inference_mode():
        [actual] = model(**tokenizer(*texts, return_tensors="pt")).logits.tolist()
    assert actual == pytest.approx(expected, abs=1e-4)


def test_an_electra_becomes_what_transformers_loads(tmp_path: Path) -> None:
    """It is not trained, and written all the same."""
    directory = write_electra(tmp_path / "given")
    arguments = ["convert", str(directory), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    texts = ("zebra river", "river salmon")
    expected = Reranker.load(str(directory), raw_scores=True, device="cpu").compute_score([texts])
    model, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not loading["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    with torch.inference_mode():
        [actual] = model.eval()(**tokenizer(*texts, return_tensors="pt")).logits.tolist()
    assert actual == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0"}},
    ],
)
def test_what_sentence_transformers_makes_of_a_logit_stays(
    told: dict[str, object], bert_directory: Path, tmp_path: Path
) -> None:
    directory = copy_model(bert_directory, tmp_path / "given")
    config = json.loads((directory / "config.json").read_text())
    others = {name: value for name, value in config.items() if name not in ACTIVATIONS}
    (directory / "config.json").write_text(json.dumps(others | told))
    assert CliRunner().invoke(app, ["convert", str(directory), str(tmp_path / "model")]).exit_code == 0
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert {name: value for name, value in written.items() if name in ACTIVATIONS} == told


@pytest.mark.parametrize("family", ["bert", "modernbert", "ettin"])
def test_an_activation_that_sentence_transformers_keeps_in_its_own_file_stays(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Whatever an earlier version wrote into config.json."""
    given = copy_model(request.getfixturevalue(f"{family}_directory"), tmp_path / "given")
    edit_config(given, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Sigmoid"})
    theirs = CrossEncoder(str(given), device="cpu", activation_fn=torch.nn.Tanh())
    theirs.save_pretrained(str(tmp_path / "saved"))
    arguments = ["convert", str(tmp_path / "saved"), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    pairs = [("zebra river", "river salmon"), ("lemon", "apple")]
    converted = CrossEncoder(str(tmp_path / "model"), device="cpu")
    assert converted.predict(pairs).tolist() == pytest.approx(theirs.float().predict(pairs).tolist(), abs=1e-4)


def test_numbers_that_float16_cannot_hold_are_refused(bert_directory: Path, tmp_path: Path) -> None:
    given = copy_model(bert_directory, tmp_path / "given")
    tensors = read_weights(given)
    write_weights(given, tensors | {"classifier.weight": tensors["classifier.weight"] * 1e6})
    done = CliRunner().invoke(app, ["convert", str(given), str(tmp_path / "model")])
    assert done.exit_code == 2
    assert "numbers beyond those of float16" in " ".join(done.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
    assert (
        CliRunner().invoke(app, ["convert", str(given), str(tmp_path / "model"), "--dtype", "bfloat16"]).exit_code == 0
    )


def test_segments_and_limits_that_stand_elsewhere_come_along(bert_directory: Path, tmp_path: Path) -> None:
    given = copy_model(bert_directory, tmp_path / "given")
    edit_config(given, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", model_input_names=None)
    CrossEncoder(str(given), device="cpu").save_pretrained(str(tmp_path / "saved"))
    shutil.copy(given / "tokenizer_config.json", tmp_path / "saved")
    edit_config(tmp_path / "saved", "sentence_bert_config.json", max_seq_length=40)
    arguments = ["convert", str(tmp_path / "saved"), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    before, after = (Reranker.load(str(tmp_path / name), device="cpu") for name in ("saved", "model"))
    assert (before.model_limit, after.model_limit) == (40, 40)
    pairs = [("zebra river", "river salmon")]
    converted = CrossEncoder(str(tmp_path / "model"), device="cpu", activation_fn=torch.nn.Sigmoid())
    assert converted.predict(pairs).tolist() == pytest.approx(before.compute_score(pairs), abs=1e-4)


@pytest.mark.parametrize("family", ["jina_v2", "ettin", "qwen3", "gemma"])
def test_a_calibration_comes_along(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """As that of the weights that are written, which give the same scores."""
    directory = tmp_path / "given"
    if family == "gemma":
        write_gemma(directory)
    elif family == "qwen3":
        write_qwen(directory)
    else:
        copy_model(request.getfixturevalue(f"{family}_directory"), directory)
    given = Calibration(0.5, -1.0, ModelFiles("", directory).digest(), pairs=7)
    (directory / CALIBRATION).write_text(given.as_json())
    arguments = ["convert", str(directory), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    before, after = (Reranker.load(str(tmp_path / name), device="cpu") for name in ("given", "model"))
    assert after.calibration == replace(given, files=ModelFiles("", tmp_path / "model").digest())
    pairs = [("zebra river", "river salmon")]
    assert after.compute_score(pairs) == pytest.approx(before.compute_score(pairs), abs=1e-4)


def test_a_calibration_stays_that_of_the_instruction_it_was_fitted_with(tmp_path: Path) -> None:
    """What is written has Qwen's own instruction, where sentence-transformers' default prompt was the model's own."""
    directory = as_logit_score(write_qwen(tmp_path / "source"), tmp_path / "given", 9693, 2152)
    prompt = {"prompts": {"query": "Find the bridge"}, "default_prompt_name": "query"}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(prompt))
    fitted = Calibration(0.5, -1.0, ModelFiles("", directory).digest())
    (directory / CALIBRATION).write_text(fitted.as_json())
    assert Reranker.load(str(directory), device="cpu").calibration == fitted
    done = CliRunner().invoke(app, ["convert", str(directory), str(tmp_path / "model"), "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    own, told = (
        Reranker.load(str(tmp_path / "model"), device="cpu", instruction=words) for words in (None, "Find the bridge")
    )
    assert own.calibration is None
    assert told.calibration is not None
    assert (told.calibration.scale, told.calibration.bias) == (0.5, -1.0)


def test_the_class_of_a_tokenizer_that_stands_in_config_json_comes_along(bert_directory: Path, tmp_path: Path) -> None:
    given = copy_model(bert_directory, tmp_path / "given")
    settings = json.loads((given / "tokenizer_config.json").read_text())
    kept = {name: value for name, value in settings.items() if name not in ("tokenizer_class", "model_input_names")}
    (given / "tokenizer_config.json").write_text(json.dumps(kept))
    edit_config(given, tokenizer_class="DistilBertTokenizer")
    arguments = ["convert", str(given), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    pairs = [("zebra river", "river salmon")]
    before, after = (Reranker.load(str(tmp_path / name), device="cpu") for name in ("given", "model"))
    assert after.compute_score(pairs) == pytest.approx(before.compute_score(pairs), abs=1e-6)
    theirs = CrossEncoder(str(tmp_path / "model"), device="cpu", activation_fn=torch.nn.Sigmoid())
    assert theirs.predict(pairs).tolist() == pytest.approx(before.compute_score(pairs), abs=1e-4)


@pytest.mark.parametrize("write", [write_bert, write_modernbert, write_qwen])
def test_what_crossray_does_not_load_is_not_converted(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Whoever trusts what is written would trust its scores."""
    prompted = write(tmp_path / "prompted")
    prompt = {"prompts": {"query": "lemon: "}, "default_prompt_name": "query"}
    (prompted / "config_sentence_transformers.json").write_text(json.dumps(prompt))
    broken = write(tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{}")
    for directory in (prompted, broken):
        with pytest.raises(ModelRefusedError):
            Reranker.load(str(directory), device="cpu")
        done = CliRunner().invoke(app, ["convert", str(directory), str(tmp_path / "model")])
        assert done.exit_code == 2, done.output
        assert str(directory) in done.output
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "gemma"])
def test_language_models_become_classifiers(kind: str, tmp_path: Path) -> None:
    """Whoever scores with it writes the prompt around each pair, as here its tokens are."""
    directory = tmp_path / "source"
    write_gemma(directory) if kind == "gemma" else write_qwen(directory, kind)
    arguments = ["convert", str(directory), str(tmp_path / "model"), "--dtype", "float32"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    source, converted = (
        Reranker.load(str(path), raw_scores=True, device="cpu") for path in (directory, tmp_path / "model")
    )
    [expected] = source.compute_score([("zebra river", "river salmon")])
    assert converted.compute_score([("zebra river", "river salmon")]) == [pytest.approx(expected, abs=1e-4)]
    model, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not loading["missing_keys"] | loading["unexpected_keys"]
    lists = [CandidateList("zebra river", ["river salmon"])]
    [[pair]] = (one.pairs for one in source.preparation.prepare(lists, source.lengths))
    with torch.inference_mode():
        [[actual]] = model.eval()(input_ids=torch.tensor([pair.input_ids.tolist()])).logits.tolist()
    assert actual == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", {"content": "<|endoftext|>", "special": True}], ids=str)
def test_a_language_model_that_does_not_name_its_padding_scores_batches(pad_token: object, tmp_path: Path) -> None:
    """transformers looks for the last token of each pair by it, and refuses a batch without."""
    directory = edit_config(write_qwen(tmp_path / "source"), pad_token_id=None)
    edit_config(directory, "tokenizer_config.json", pad_token=pad_token)
    arguments = ["convert", str(directory), str(tmp_path / "model"), "--dtype", "float32"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    source = Reranker.load(str(directory), raw_scores=True, device="cpu", dtype="float32")
    texts = [("zebra river", "river salmon"), ("lemon", "apple")]
    prepared = source.preparation.prepare([CandidateList(query, [text]) for query, text in texts], source.lengths)
    ids = [torch.from_numpy(pair.input_ids).long() for one in prepared for pair in one.pairs]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert len(ids[0]) != len(ids[1])
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=model.config.pad_token_id)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
    with torch.inference_mode():
        actual = model(input_ids=padded, attention_mask=mask).logits[:, 0].tolist()
    assert actual == pytest.approx(source.compute_score(texts), abs=1e-4)


def test_what_is_no_model_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments, message in (
        ([str(tmp_path / "nothing"), str(tmp_path / "model")], "there is no directory"),
        (["embedded", str(tmp_path / "model"), "--dtype", "int4"], "--dtype is 'int4'"),
        (["embedded", str(tmp_path / "file" / "model")], "Not a directory"),
    ):
        result = CliRunner().invoke(app, ["convert", *arguments])
        assert result.exit_code == 2
        assert message in result.output.replace("\n", " ")


@pytest.mark.parametrize("family", ["bert_directory", "modernbert_directory"])
def test_a_disk_that_is_full_or_read_only_is_a_usage_error(
    family: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of models that are trained and of others; nothing is left behind."""
    arguments = ["convert", str(request.getfixturevalue(family)), str(tmp_path / "new" / "model")]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        full = CliRunner().invoke(app, arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "model.unfinished")

    monkeypatch.setattr(Path, "mkdir", refuse)
    read_only = CliRunner().invoke(app, arguments)
    for result, message in ((full, "model.safetensors cannot be written"), (read_only, "Read-only file system")):
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    assert list(tmp_path.glob("new/*")) == []
