"""A trained cross-encoder keeps its logits, and gains what part of the query's words the passage has."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.training.add_exact_match import AddingBuilder, add_exact_match
from pipelines.training.base import EightBits, load_base, write_model
from pipelines.training.exact_match import words_of
from tests.checkpoints import words, write_bert
from tests.pipelines.training.exact_matches import (
    DEPTH,
    HEADS,
    PASSAGES,
    SAMPLE,
    WIDTH,
    expected_total,
    logits,
    pair_of,
    save,
    tokenizer_of,
    write_cross_encoder,
)

MANY = [*PASSAGES, *(words(5 + 3 * seed, seed=seed) for seed in range(20))]
WEIGHT = 4.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As in a trained model, no layer changes a vector much."""
    directory = tmp_path_factory.mktemp("trained") / "model"
    tensors = write_cross_encoder(directory)
    for name in tensors:
        if name.endswith("output.dense.weight"):
            tensors[name] *= 0.3
    save(tensors, directory)
    return directory


@pytest.fixture(scope="module")
def wider(trained: Path) -> Path:
    add_exact_match(str(trained), trained.parent / "wider", SAMPLE, weight=WEIGHT)
    return trained.parent / "wider"


def test_the_logit_is_the_old_one_and_the_part_that_is_matched(trained: Path, wider: Path) -> None:
    tokenizer = tokenizer_of(trained)
    known = words_of(tokenizer, list(dict.fromkeys(SAMPLE)), 18, tokenizer.get_vocab_size())
    expected = np.array([expected_total(known, tokenizer, passage) for passage in MANY])
    gained = (logits(wider, MANY) - logits(trained, MANY)) / WEIGHT
    assert np.corrcoef(gained, expected)[0, 1] > 0.97
    slope, offset = np.polyfit(expected, gained, 1)
    assert slope == pytest.approx(1.1, abs=0.15)  # vectors so short make matches a little larger
    assert offset == pytest.approx(0, abs=0.05)


def test_without_its_weight_the_order_is_the_old_one(trained: Path, tmp_path: Path) -> None:
    add_exact_match(str(trained), tmp_path / "same", SAMPLE, weight=0.0)
    assert np.corrcoef(logits(trained, MANY), logits(tmp_path / "same", MANY))[0, 1] > 0.99


def test_transformers_loads_it_and_gives_the_same_logits(wider: Path) -> None:
    model, info = AutoModelForSequenceClassification.from_pretrained(
        wider, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = tokenizer_of(wider)
    with torch.inference_mode():
        theirs = [model(**pair_of(tokenizer, passage)).logits.item() for passage in MANY]
    assert logits(wider, MANY) == pytest.approx(np.array(theirs), abs=1e-4)


def test_other_types_for_numbers_keep_the_order(wider: Path, tmp_path: Path) -> None:
    base = load_base(str(wider))
    write_model(base.encoder, base, tmp_path / "small", eight_bits=EightBits.MATRICES)
    whole = logits(wider, MANY)
    for directory, dtype in ((wider, "bfloat16"), (tmp_path / "small", "float32")):
        assert np.corrcoef(logits(directory, MANY, dtype=dtype), whole)[0, 1] > 0.99
    start = WIDTH + AddingBuilder.before_codes
    codes_VK = base.encoder.word_embeddings.weight[:, start : start + 18]
    small = load_base(str(tmp_path / "small")).encoder.word_embeddings.weight[:, start : start + 18]
    assert torch.allclose(small, codes_VK, rtol=2e-3, atol=0)  # else equal words had unequal codes


def test_one_whose_rows_are_in_8_bits_is_read_as_it_is_measured(trained: Path, tmp_path: Path) -> None:
    base = load_base(str(trained))
    write_model(base.encoder, base, tmp_path / "small", eight_bits=EightBits.MATRICES)
    add_exact_match(str(tmp_path / "small"), tmp_path / "wider", SAMPLE, weight=0.0)
    assert np.corrcoef(logits(tmp_path / "small", MANY), logits(tmp_path / "wider", MANY))[0, 1] > 0.99


def test_what_is_no_bert_cross_encoder_is_refused(tmp_path: Path, xlm_roberta_directory: Path) -> None:
    headless = write_bert(tmp_path / "headless", hidden_size=WIDTH, num_attention_heads=HEADS)
    plain = {name: one for name, one in load_file(headless / "model.safetensors").items() if "classifier" not in name}
    save(plain, headless)
    for model in (headless, xlm_roberta_directory):
        with pytest.raises(ModelRefusedError, match="no BERT cross-encoder"):
            add_exact_match(str(model), tmp_path / "wider", SAMPLE)
    assert not (tmp_path / "wider").exists()


def test_it_tells_training_to_keep_zeros_and_is_not_added_twice(wider: Path, tmp_path: Path) -> None:
    assert load_base(str(wider)).keeps_zeros
    with pytest.raises(ModelRefusedError, match="has this head already"):
        add_exact_match(str(wider), tmp_path / "twice", SAMPLE)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_no_number_from_0_on_is_refused(trained: Path, tmp_path: Path, weight: float) -> None:
    with pytest.raises(ConfigError, match=f"the weight is {weight}"):
        add_exact_match(str(trained), tmp_path / "wider", SAMPLE, weight=weight)


def test_a_model_with_nan_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "broken")
    tensors = load_file(tmp_path / "broken" / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.bias"][3] = math.nan
    save(tensors, tmp_path / "broken")
    with pytest.raises(ModelRefusedError, match=r"layer\.1\.output\.dense\.bias has values that are no finite"):
        add_exact_match(str(tmp_path / "broken"), tmp_path / "wider", SAMPLE)


def test_sentence_transformers_is_told_what_it_was_told(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "told")
    settings = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (tmp_path / "told" / "config_sentence_transformers.json").write_text(json.dumps(settings))
    config = json.loads((tmp_path / "told" / "config.json").read_text())
    (tmp_path / "told" / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    add_exact_match(str(tmp_path / "told"), tmp_path / "wider", SAMPLE)
    written = json.loads((tmp_path / "wider" / "config.json").read_text())
    assert written["sentence_transformers"] == settings
    assert (written["dtype"], "torch_dtype" in written) == ("float16", False)


def test_heads_without_room_are_refused(tmp_path: Path) -> None:
    directory = write_bert(tmp_path / "narrow", hidden_size=WIDTH, num_attention_heads=4, num_hidden_layers=DEPTH)
    with pytest.raises(ModelRefusedError, match="heads of 16 dimensions; codes of words need 30"):
        add_exact_match(str(directory), tmp_path / "wider", SAMPLE)
    assert AddingBuilder.code_width({"hidden_size": 384, "num_attention_heads": 12}) == 18
