"""Which model a config.json describes, and what is refused before it can score wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from pipelines.errors import ModelRefusedError
from pipelines.families import ModelSpec, recognise
from pipelines.reranker import Reranker
from pipelines.tokens import PairTokenizer
from tests.checkpoints import read_weights, unigram_tokenizer, wordpiece_tokenizer


def read_config(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return config


def test_bert(bert_directory: Path) -> None:
    spec = recognise(read_config(bert_directory), read_weights(bert_directory))

    assert (spec.layout, spec.max_length, spec.padding_id, spec.pair_styles[0].has_segments) == (
        "bert",
        512,
        None,
        True,
    )
    assert spec.shape.layer_norm_eps == 1e-12


def test_xlm_roberta_loses_two_positions_to_padding(xlm_roberta_directory: Path) -> None:
    spec = recognise(read_config(xlm_roberta_directory), read_weights(xlm_roberta_directory))

    assert (spec.layout, spec.max_length, spec.padding_id, spec.pair_styles[0].has_segments) == (
        "xlm-roberta",
        512,
        1,
        False,
    )


def test_jina_v2_is_recognised_by_its_tensors(jina_v2_directory: Path) -> None:
    config = read_config(jina_v2_directory)
    spec = recognise(config, read_weights(jina_v2_directory))

    assert "model_type" not in config
    assert (spec.layout, spec.max_length, spec.padding_id) == ("flash-xlm-roberta", 1024, 1)
    assert (spec.shape.layer_norm_eps, spec.shape.hidden_act) == (1e-5, "gelu")


def test_a_config_that_calls_jina_v2_an_xlm_roberta_is_not_believed(jina_v2_directory: Path) -> None:
    config = read_config(jina_v2_directory) | {"model_type": "xlm-roberta"}

    assert recognise(config, read_weights(jina_v2_directory)).layout == "flash-xlm-roberta"


def test_the_licence_of_jina_v2_is_said_when_it_is_loaded(
    jina_v2_directory: Path, bert_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Reranker.load(str(bert_directory), device="cpu")
    assert "CC-BY" not in caplog.text

    Reranker.load(str(jina_v2_directory), device="cpu")
    assert "CC-BY-NC-4.0: commercial use needs Jina's licence" in caplog.text


def test_jina_v2_without_its_eps_is_refused(jina_v2_directory: Path) -> None:
    """transformers' default of 1e-12 would shift scores silently."""
    config = read_config(jina_v2_directory)
    del config["layer_norm_eps"]

    with pytest.raises(ModelRefusedError, match="lacks layer_norm_eps"):
        recognise(config, read_weights(jina_v2_directory))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"position_embedding_type": "alibi"}, "config.json lacks 'feed_forward_type'"),
        ({"feed_forward_type": "geglu"}, "position_embedding_type is 'absolute'; for jina-bert models"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type is 'rotary'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"is_causal": True}, "is_causal is True; a model of this family reads in both directions"),
        ({"num_labels": 3}, "3 labels"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"model_type": "deberta"}, "model_type is 'deberta'"),
        ({"model_type": None}, "model_type is None"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_what_would_score_wrongly_is_refused(changes: dict[str, Any], reason: str, bert_directory: Path) -> None:
    with pytest.raises(ModelRefusedError, match=reason):
        recognise(read_config(bert_directory) | changes, read_weights(bert_directory))


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings"])
def test_a_size_that_is_missing_is_named(key: str, bert_directory: Path) -> None:
    config = read_config(bert_directory)
    del config[key]

    with pytest.raises(ModelRefusedError, match=f"config.json lacks '{key}'"):
        recognise(config, read_weights(bert_directory))


@pytest.fixture
def bert_spec(bert_directory: Path) -> ModelSpec:
    return recognise(read_config(bert_directory), read_weights(bert_directory))


def test_the_template_takes_the_ids_of_the_tokenizer(bert_spec: ModelSpec) -> None:
    template = bert_spec.pair_template(wordpiece_tokenizer())

    assert (template.first, template.middle, template.last) == ((2,), (3,), (3,))


def test_a_bert_with_xlm_robertas_tokenizer_reads_pairs_as_that_joins_them(bert_spec: ModelSpec) -> None:
    """multilingual-e5-small: two separators, one segment."""
    tokenizer = unigram_tokenizer()
    template = bert_spec.pair_template(tokenizer)

    assert (template.first, template.middle, template.last) == ((0,), (2, 2), (2,))
    assert not template.has_segments
    assert PairTokenizer(tokenizer, template).template == template


def test_a_tokenizer_without_the_familys_special_tokens_is_refused(xlm_roberta_directory: Path) -> None:
    spec = recognise(read_config(xlm_roberta_directory), read_weights(xlm_roberta_directory))
    with pytest.raises(ModelRefusedError, match="has no <s> or </s>"):
        spec.pair_template(wordpiece_tokenizer())


def test_a_tokenizer_that_is_neither_berts_nor_xlm_robertas_is_refused(bert_spec: ModelSpec) -> None:
    with pytest.raises(ModelRefusedError, match=r"has no \[CLS\] or \[SEP\]"):
        bert_spec.pair_template(Tokenizer(WordPiece({"[UNK]": 0}, unk_token="[UNK]")))
