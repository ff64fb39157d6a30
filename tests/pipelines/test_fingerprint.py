"""One hash of all that decides a score: equal for equal settings, another when any of it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import RerankerConfig
from pipelines.fingerprint import planned_fingerprint
from pipelines.reranker import Reranker
from tests.checkpoints import copy_model, edit_config, read_weights, write_weights


def plan(directory: Path, **settings: Any) -> str:
    settings = {"device": "cpu"} | settings
    return planned_fingerprint(RerankerConfig(model=str(directory), **settings)).hash


@pytest.mark.parametrize("family", ["bert", "xlm_roberta", "jina_v2"])
def test_a_loaded_model_has_the_planned_fingerprint(family: str, request: pytest.FixtureRequest) -> None:
    """Lengths above the model's limit included, and the dtype as resolved."""
    directory = request.getfixturevalue(f"{family}_directory")
    config = RerankerConfig(model=str(directory), device="cpu", max_length=5000, max_query_length=4000)

    assert Reranker.from_config(config).fingerprint == planned_fingerprint(config)


def test_it_is_the_same_for_a_copy_elsewhere(bert_directory: Path, tmp_path: Path) -> None:
    assert plan(copy_model(bert_directory, tmp_path / "copy")) == plan(bert_directory)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_length": 256},
        {"max_query_length": 100},
        {"overlap_tokens": 81},
        {"max_chunks_per_doc": 3},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_every_setting_that_moves_scores_changes_it(settings: dict[str, Any], bert_directory: Path) -> None:
    assert plan(bert_directory, **settings) != plan(bert_directory)


@pytest.mark.parametrize(
    "settings", [{"max_batch_tokens": 7}, {"num_threads": 1}, {"dtype": "float32"}, {"max_length": 2000}], ids=str
)
def test_settings_that_move_no_score_leave_it(settings: dict[str, Any], bert_directory: Path) -> None:
    """The default length of 1,024 is 512 on this model, and so is 2,000."""
    assert plan(bert_directory, **settings) == plan(bert_directory)


def change_one_weight(directory: Path) -> None:
    tensors = read_weights(directory)
    tensors["classifier.bias"] += 2**-20
    write_weights(directory, tensors)


def change_the_tokenizer(directory: Path) -> None:
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(tokenizer))


def change_the_eps(directory: Path) -> None:
    edit_config(directory, layer_norm_eps=1e-6)


def change_the_tokenizers_limit(directory: Path) -> None:
    (directory / "tokenizer_config.json").write_text('{"model_max_length": 128}')


@pytest.mark.parametrize(
    "change", [change_one_weight, change_the_tokenizer, change_the_eps, change_the_tokenizers_limit]
)
def test_every_file_that_moves_scores_changes_it(change: Any, bert_directory: Path, tmp_path: Path) -> None:
    directory = copy_model(bert_directory, tmp_path / "changed")
    change(directory)

    assert plan(directory) != plan(bert_directory)


def test_a_loaded_model_keeps_the_fingerprint_of_what_it_loaded(bert_directory: Path, tmp_path: Path) -> None:
    directory = copy_model(bert_directory, tmp_path / "model")
    reranker = Reranker.load(str(directory), device="cpu")
    before = reranker.fingerprint

    change_one_weight(directory)

    assert reranker.fingerprint == before


def test_its_parts_are_json(bert: Reranker) -> None:
    parts = json.loads(json.dumps(bert.fingerprint.as_dict()))

    assert (parts["max_length"], parts["max_query_length"], parts["dtype"]) == (512, 256, "float32")
    assert len(bert.fingerprint.hash) == 32
