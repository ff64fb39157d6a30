"""Texts become the ids of transformers where tokenizer_config.json and tokenizer.json contradict each other, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.normalizers import BertNormalizer
from transformers import AutoTokenizer

from pipelines.errors import ModelRefusedError
from pipelines.model_files import ModelFiles
from pipelines.reranker import Reranker
from tests.checkpoints import (
    edit_config,
    write_bert,
    write_deberta,
    write_electra,
    write_gemma,
    write_modernbert,
    write_qwen,
    write_roberta,
    write_xlm_roberta,
)
from tests.pipelines.language_models import logits_of_lists

Writer = Callable[[Path], Path]

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


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "BartTokenizerFast", "LongformerTokenizer"])
@pytest.mark.parametrize("prefix", [True, False])
def test_a_roberta_may_have_the_tokenizer_of_its_kin(name: str, prefix: bool, tmp_path: Path) -> None:
    files = told(write_roberta(tmp_path / "model"), {"tokenizer_class": name, "add_prefix_space": prefix})
    theirs = AutoTokenizer.from_pretrained(files.directory)
    for text in TEXTS:
        assert files.tokenizer().encode(text).ids == theirs(text)["input_ids"], text


@pytest.mark.parametrize("settings", [{"tokenizer_class": "RobertaTokenizer"}, {"add_prefix_space": True}], ids=str)
def test_a_modernbert_is_tokenized_as_its_tokenizer_says(settings: dict[str, Any], tmp_path: Path) -> None:
    """Whatever class its files name, as transformers does."""
    files = told(write_modernbert(tmp_path / "model"), settings)
    path = files.directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    path.write_text(json.dumps(tokenizer))
    theirs = AutoTokenizer.from_pretrained(files.directory)
    for text in TEXTS:
        assert files.tokenizer().encode(text).ids == theirs(text)["input_ids"], text


@pytest.mark.parametrize("name", ["do_lower_case", "split_by_punct"])
def test_a_deberta_whose_files_contradict_each_other_is_refused(name: str, tmp_path: Path) -> None:
    """And transformers puts it right."""
    files = told(write_deberta(tmp_path / "model"), {name: True})
    with pytest.raises(
        ModelRefusedError, match=rf"tokenizer_config\.json: {name} is true, and tokenizer\.json does not"
    ):
        Reranker.load(str(files.directory), device="cpu")
    theirs = AutoTokenizer.from_pretrained(files.directory)
    theirs.save_pretrained(files.directory)
    for text in TEXTS:
        assert files.tokenizer().encode(text).ids == theirs(text)["input_ids"], text


@pytest.mark.parametrize("name", ["DistilBertTokenizer", "DistilBertTokenizerFast"])
def test_a_class_without_segments_gives_a_bert_none(name: str, tmp_path: Path) -> None:
    files = told(write_bert(tmp_path / "model"), {"tokenizer_class": name})
    edit_config(files.directory, "tokenizer_config.json", model_input_names=None)
    assert "token_type_ids" not in AutoTokenizer.from_pretrained(files.directory)("a", "b")
    assert not files.gives_segments()
    told(files.directory, {"tokenizer_class": None})
    edit_config(files.directory, tokenizer_class=name)
    assert not files.gives_segments()


@pytest.mark.parametrize("write", [write_bert, write_xlm_roberta, write_modernbert, write_qwen, write_gemma])
def test_what_the_last_user_of_a_tokenizer_asked_for_changes_nothing(write: Writer, tmp_path: Path) -> None:
    """transformers saves truncation and padding with the tokenizer; a prompt would be cut before it is looked at."""
    directory = write(tmp_path / "model")
    expected = logits_of_lists(directory)
    for strategy, padded in (("longest_first", 16), ("only_second", None)):
        tokenizer = ModelFiles("", directory).tokenizer()
        tokenizer.enable_truncation(16, strategy=strategy)
        tokenizer.enable_padding(length=padded, pad_to_multiple_of=8)
        tokenizer.save(str(directory / "tokenizer.json"))
        assert json.loads((directory / "tokenizer.json").read_text())["truncation"]["max_length"] == 16
        np.testing.assert_array_equal(logits_of_lists(directory), expected)


def test_the_class_may_stand_in_config_json(tmp_path: Path) -> None:
    """A cased model whose tokenizer_config.json names no class is not lower-cased then."""
    files = told(write_bert(tmp_path / "model"), {"tokenizer_class": None, "do_lower_case": None})
    tokenizer = files.tokenizer()
    tokenizer.normalizer = BertNormalizer(lowercase=False)
    tokenizer.save(str(files.directory / "tokenizer.json"))
    assert files.tokenizer().normalizer.normalize_str("A") == "a"
    edit_config(files.directory, tokenizer_class="PreTrainedTokenizerFast")
    assert files.tokenizer().normalizer.normalize_str("A") == "A"
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
