"""Texts become the ids of transformers where tokenizer_config.json and tokenizer.json contradict each other, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipelines.errors import ModelRefusedError
from pipelines.model_files import ModelFiles
from pipelines.reranker import Reranker
from tests.checkpoints import write_bert, write_electra, write_roberta

TEXTS = ["qx Wzw", "Crème brûlée", "qx水wv", "", " qx"]


@pytest.mark.parametrize("write", [write_bert, write_electra, write_roberta])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"strip_accents": True, "do_lower_case": False},
        {"tokenize_chinese_chars": False},
        {"add_prefix_space": True},
        {"tokenizer_class": None, "do_lower_case": False, "add_prefix_space": True},
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False, "add_prefix_space": True},
    ],
    ids=str,
)
def test_texts_have_the_ids_of_transformers(
    write: Callable[[Path], Path], settings: dict[str, Any], tmp_path: Path
) -> None:
    files = told(write(tmp_path / "model"), settings)
    theirs = AutoTokenizer.from_pretrained(files.directory)
    for text in TEXTS:
        assert files.tokenizer().encode(text).ids == theirs(text)["input_ids"], text


def test_settings_that_change_a_logit_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    directory = write_bert(tmp_path / "model")
    before = ModelFiles("", directory).digest()
    assert told(directory, {"do_lower_case": True}).digest() == before
    assert told(directory, {"do_lower_case": False}).digest() != before


@pytest.mark.parametrize("value", ["yes", 1, [True]])
def test_a_setting_that_is_neither_true_nor_false_is_refused(value: object, tmp_path: Path) -> None:
    files = told(write_bert(tmp_path / "model"), {"do_lower_case": value})
    with pytest.raises(ModelRefusedError, match=r"tokenizer_config\.json: do_lower_case is .*; it is true or false"):
        Reranker.load(str(files.directory), device="cpu")


def told(directory: Path, settings: dict[str, Any]) -> ModelFiles:
    """The model, with other settings of its tokenizer; what is None is left out of its class."""
    path = directory / "tokenizer_config.json"
    changed = json.loads(path.read_text()) | settings
    if changed.get("tokenizer_class") is None:
        changed.pop("tokenizer_class", None)
    path.write_text(json.dumps(changed))
    return ModelFiles("", directory)
