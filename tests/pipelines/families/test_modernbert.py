"""ModernBERT's logits are those of transformers' own class, and what would be computed otherwise is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.families import recognise, spec_of
from pipelines.families.modernbert import FirstTokenLayer, ModernBert
from pipelines.model_sources import find_model
from pipelines.reranker import Reranker
from pipelines.training.base import load_base
from tests.checkpoints import (
    WIDTH,
    byte_tokenizer,
    copy_model,
    edit_config,
    modernbert_config,
    modernbert_tokenizer_config,
    read_weights,
    sentencepiece_tokenizer,
    shard_weights,
    unigram_tokenizer,
    words,
    write_ettin,
    write_modernbert,
    write_weights,
)
from tests.pipelines.references import TextPair, TransformersReference

TOLERANCE = 1e-4
PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 9 * i, seed=100 + i)) for i in range(12)),
    *((words(9, seed=i), words(count, seed=200 + i)) for i, count in enumerate((120, 128, 300, 300))),
    ("", ""),
    ("naïve ½ 中文", "🙂 [SEP] [CLS] apple [MASK]"),
]
"""Shorter than a window of 16, longer than it, and longer than the blocks of queries that attention goes by."""

KINDS: dict[str, dict[str, Any]] = {
    "gte": {},
    "granite": {"classifier_pooling": "cls", "global_rope_theta": 80000.0},
    "cls, the last layer local": {"classifier_pooling": "cls", "num_hidden_layers": 3},
    "mean, the last layer local": {"num_hidden_layers": 3},
    "mmBERT's thetas": {"local_rope_theta": 160000.0, "position_embedding_type": "sans_pos"},
    "an odd window": {"local_attention": 7},
    "another gelu": {"hidden_activation": "gelu_pytorch_tanh", "classifier_activation": "tanh"},
}


def logits(model: Path, pairs: list[TextPair], **settings: Any) -> np.ndarray:
    loaded = Reranker.from_config(RerankerConfig(str(model), device="cpu", raw_scores=True, num_threads=1, **settings))
    ids = loaded.tokenizer.token_ids([text for pair in pairs for text in pair])
    template = loaded.tokenizer.template
    return loaded.engine.logits([template.join(*both) for both in zip(ids[::2], ids[1::2], strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = write_modernbert(tmp_path / "model", **KINDS[kind])
    reference = TransformersReference(model)

    alone, padded = reference.logits(PAIRS, 1), reference.logits(PAIRS, len(PAIRS))

    np.testing.assert_allclose(logits(model, PAIRS), alone, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits(model, PAIRS, max_batch_tokens=500), padded, atol=TOLERANCE, rtol=0)
    assert alone.std() > 0.3


def test_what_transformers_5_writes_is_read(tmp_path: Path) -> None:
    """`rope_parameters` and `layer_types` instead of the older keys, biases in every layer, and bfloat16."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    tokenizer = byte_tokenizer()
    biases = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
    types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    settings = modernbert_config(tokenizer) | biases | {"layer_types": types, "torch_dtype": "bfloat16"}
    config = ModernBertConfig(**settings)
    torch.manual_seed(0)
    written = ModernBertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in written.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    written.bfloat16().save_pretrained(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(modernbert_tokenizer_config()))
    assert {"rope_parameters", "layer_types"} <= {*json.loads((tmp_path / "config.json").read_text())}

    expected = TransformersReference(tmp_path).logits(PAIRS, 1)

    np.testing.assert_allclose(logits(tmp_path, PAIRS), expected, atol=TOLERANCE, rtol=0)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    "mistake",
    [
        {"local_attention": 18},
        {"global_rope_theta": 80000.0},
        {"local_rope_theta": 9000.0},
        {"global_attn_every_n_layers": 2},
        {"classifier_pooling": "cls"},
        {"norm_eps": 1e-4},
    ],
    ids=str,
)
def test_every_setting_of_the_config_moves_logits(
    mistake: dict[str, Any], modernbert_directory: Path, tmp_path: Path
) -> None:
    """Otherwise the comparison with transformers would not notice one that is ignored."""
    other = edit_config(copy_model(modernbert_directory, tmp_path / "model"), **mistake)

    assert np.abs(logits(other, PAIRS) - logits(modernbert_directory, PAIRS)).max() > 10 * TOLERANCE


def with_tokenizer(
    model: Path, tokenizer: Tokenizer, pair: str, special: dict[str, str], prefix: str = "model."
) -> Path:
    """A ModernBERT with the tokenizer of another model, which joins pairs as `pair` says."""
    tokenizer.add_special_tokens(["<mask>"])
    ids = [(token, tokenizer.token_to_id(token)) for token in sorted({*pair.split()} - {"$A", "$B"})]
    tokenizer.post_processor = TemplateProcessing(single=pair.partition(" $B")[0], pair=pair, special_tokens=ids)
    tokenizer.save(str(model / "tokenizer.json"))
    name, rows = f"{prefix}embeddings.tok_embeddings.weight", tokenizer.get_vocab_size()
    tensors = read_weights(model)
    write_weights(model, tensors | {name: torch.randn(rows, WIDTH).to(tensors[name].dtype)})
    edit_config(model, "tokenizer_config.json", **special, mask_token="<mask>", pad_token="<pad>", unk_token="<unk>")
    return edit_config(model, vocab_size=rows, pad_token_id=tokenizer.token_to_id("<pad>"))


OTHER_TOKENIZERS = {
    "mmBERT": (sentencepiece_tokenizer, "<bos> $A <eos> $B <eos>", {"cls_token": "<bos>", "sep_token": "<eos>"}),
    "modernbert-ja": (unigram_tokenizer, "<s> $A </s> $B </s>", {"cls_token": "<s>", "sep_token": "</s>"}),
    "as XLM-RoBERTa": (unigram_tokenizer, "<s> $A </s> </s> $B </s>", {"cls_token": "<s>", "sep_token": "</s>"}),
}


@pytest.mark.parametrize("kind", OTHER_TOKENIZERS)
def test_pairs_are_joined_as_its_own_tokenizer_does(kind: str, tmp_path: Path) -> None:
    build, pair, special = OTHER_TOKENIZERS[kind]
    model = with_tokenizer(write_modernbert(tmp_path / "model"), build(), pair, special)
    expected = TransformersReference(model).logits(PAIRS, 1)
    np.testing.assert_allclose(logits(model, PAIRS), expected, atol=TOLERANCE, rtol=0)
    assert expected.std() > 0.1

    behind = with_tokenizer(write_ettin(tmp_path / "ettin"), build(), pair, special, prefix="")
    assert np.isfinite(logits(behind, PAIRS)).all()


@pytest.mark.parametrize("pair", ["<bos> $A $B", "<bos> $A <eos> $B", "$A <eos> $B <eos>"])
def test_a_tokenizer_that_only_puts_texts_side_by_side_is_refused(pair: str, tmp_path: Path) -> None:
    model = with_tokenizer(write_modernbert(tmp_path / "model"), sentencepiece_tokenizer(), pair, {})
    with pytest.raises(ModelRefusedError, match="without tokens of its own before, between and behind the two texts"):
        Reranker.load(str(model), device="cpu")


def test_what_is_stored_of_truncation_and_padding_changes_no_pair(modernbert_directory: Path, tmp_path: Path) -> None:
    model = copy_model(modernbert_directory, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(model / "tokenizer.json"))
    np.testing.assert_array_equal(logits(model, PAIRS), logits(modernbert_directory, PAIRS))


def test_a_sharded_checkpoint_scores_as_the_whole_one(modernbert_directory: Path, tmp_path: Path) -> None:
    sharded = shard_weights(copy_model(modernbert_directory, tmp_path / "sharded"))

    np.testing.assert_array_equal(logits(sharded, PAIRS), logits(modernbert_directory, PAIRS))


def test_only_first_tokens_go_through_a_last_layer_where_no_other_counts(tmp_path: Path) -> None:
    for kind, is_short in (("gte", False), ("granite", True), ("cls, the last layer local", False)):
        spec = spec_of(find_model(str(write_modernbert(tmp_path / kind, **KINDS[kind]))))
        network = spec.network()
        assert isinstance(network, ModernBert)
        assert isinstance(network.layers[-1], FirstTokenLayer) is is_short


def test_it_reads_8192_tokens_and_1024_unless_told_otherwise(modernbert_directory: Path) -> None:
    reranker = Reranker.load(str(modernbert_directory), device="cpu")
    assert (reranker.model_limit, reranker.lengths.max_length) == (8192, 1024)
    long = Reranker.load(str(modernbert_directory), device="cpu", max_length=8192)
    [ranking] = long.rerank_lists([("apple", [words(8000)])])
    assert ranking.usage.chunks == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_causal": True}, "is_causal is True; a model of this family reads in both directions"),
        ({"causal_mask": True}, "causal_mask is True"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling is"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"head_dim": 16}, "head_dim is 16"),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_parameters is"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0}}}, "only unscaled positions"),
        ({"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}}, "only unscaled positions"),
        ({"rope_parameters": {"full_attention": [1]}}, "only unscaled positions"),
        ({"global_rope_theta": 0}, "global_rope_theta is 0; it is a positive number"),
        ({"layer_types": ["full_attention"]}, "layer_types is"),
        ({"layer_types": ["full_attention", [], {}, "chunked_attention"]}, "layer_types is"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max'; supported are cls, mean"),
        ({"hidden_activation": "silu"}, "hidden_activation is 'silu'"),
        ({"classifier_activation": "silu"}, "classifier_activation is 'silu'"),
        ({"norm_bias": "no"}, "norm_bias is 'no'; it is true or false"),
        ({"norm_eps": 1}, "norm_eps is 1; it is a positive number below 1"),
        ({"local_attention": 0}, "local_attention is 0"),
        ({"sliding_window": 16}, "sliding_window is 16, and local_attention 16: .* give it half of local_attention"),
        ({"num_attention_heads": 32}, "is no even number for each"),
        ({"id2label": {"0": "no", "1": "yes"}}, "2 labels"),
        ({"norm_bias": True}, "missing .*norm.bias"),
        ({"num_hidden_layers": 3}, "unexpected .*layers.3"),
        ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers is 2,147,483,647"),
        ({"intermediate_size": 65}, r"mlp.Wi.weight is \[128, 32\] instead of \[130, 32\]"),
    ],
    ids=str,
)
def test_what_would_score_wrongly_is_refused(
    changes: dict[str, Any], reason: str, modernbert_directory: Path, tmp_path: Path
) -> None:
    model = edit_config(copy_model(modernbert_directory, tmp_path / "model"), **changes)

    with pytest.raises(ModelRefusedError, match=reason):
        spec_of(find_model(str(model)))


def test_tensors_that_are_missing_or_left_over_are_named(modernbert_directory: Path, tmp_path: Path) -> None:
    model = copy_model(modernbert_directory, tmp_path / "model")
    tensors = read_weights(model)
    tensors["decoder.bias"] = tensors.pop("head.norm.weight")
    write_weights(model, tensors)

    with pytest.raises(ModelRefusedError, match=r"1 missing \(head.norm.weight\); 1 unexpected \(decoder.bias\)"):
        spec_of(find_model(str(model)))


def test_a_masked_language_model_is_no_reranker() -> None:
    config = modernbert_config(byte_tokenizer())
    del config["id2label"]

    with pytest.raises(ModelRefusedError, match="2 labels"):
        recognise(config, ["model.final_norm.weight"])


def test_training_says_that_it_does_not_take_one(modernbert_directory: Path) -> None:
    with pytest.raises(ModelRefusedError, match="the family modernbert; training takes BERT, RoBERTa"):
        load_base(str(modernbert_directory))
