"""RoBERTa, CamemBERT and ELECTRA as they are published: logits are those of transformers' own classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.errors import ModelRefusedError
from pipelines.model_files import ModelFiles
from pipelines.reranker import Reranker
from pipelines.training.base import load_base, write_model
from tests.checkpoints import (
    edit_config,
    read_weights,
    unigram_tokenizer,
    words,
    write_bert,
    write_camembert,
    write_electra,
    write_roberta,
    write_weights,
)
from tests.pipelines.references import TextPair, TransformersReference

TOLERANCE = 1e-4
PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 9 * i, seed=100 + i)) for i in range(12)),
    (words(8, seed=1), words(500, seed=200)),
    ("apple", ""),
    ("Straße, naïve; 12", "ß ½ 'quoted' UPPER lower"),
    ("</s> apple", "<s> bread</s></s>candle <mask>"),
    ("[SEP] apple", "[CLS] bread [MASK]"),
]
WRITERS = [write_roberta, write_camembert, write_electra]


def ours(model: Path, pairs: list[TextPair] = PAIRS) -> np.ndarray:
    reranker = Reranker.load(str(model), device="cpu", dtype="float32", raw_scores=True, num_threads=1)
    return np.array(reranker.compute_score(pairs))


@pytest.mark.parametrize("write", WRITERS)
def test_logits_are_those_of_transformers(write: Callable[[Path], Path], tmp_path: Path) -> None:
    model = write(tmp_path / "model")
    reference = TransformersReference(model)

    alone, padded = reference.logits(PAIRS, 1), reference.logits(PAIRS, len(PAIRS))

    assert alone.std() > 0.3
    np.testing.assert_allclose(ours(model), padded, atol=TOLERANCE, rtol=0)
    ours_alone = np.concatenate([np.atleast_1d(ours(model, [pair])) for pair in PAIRS[-5:]])
    np.testing.assert_allclose(ours_alone, alone[-5:], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("write", [write_camembert, write_electra])
def test_scores_are_those_of_sentence_transformers(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Not of a RoBERTa: it makes the tokenizer anew out of merges, and the test's has words as wholes."""
    from sentence_transformers import CrossEncoder

    model, plain = write(tmp_path / "model"), PAIRS[:12]
    peer = CrossEncoder(str(model), device="cpu", model_kwargs={"dtype": "float32"})

    expected = peer.predict(plain, activation_fn=torch.nn.Identity())

    np.testing.assert_allclose(ours(model, plain), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("write", [write_bert, write_electra])
@pytest.mark.parametrize(
    "settings",
    [{"tokenizer_class": "TokenizersBackend"}, {"model_input_names": ["input_ids", "attention_mask"]}],
)
def test_segments_are_given_where_transformers_gives_them(
    write: Callable[[Path], Path], settings: dict[str, Any], tmp_path: Path
) -> None:
    """A model that was trained without them has seen segment 0 alone; the scores and the digest are others."""
    model, plain = write(tmp_path / "model"), PAIRS[:12]
    with_segments, digest = ours(model, plain), ModelFiles("", model).digest()
    edit_config(model, "tokenizer_config.json", **settings)
    tokenizer = AutoTokenizer.from_pretrained(model)
    peer = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()

    batch = tokenizer(*map(list, zip(*plain, strict=True)), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = peer(**batch).logits[:, 0].numpy()

    assert "token_type_ids" not in batch
    np.testing.assert_allclose(ours(model, plain), expected, atol=TOLERANCE, rtol=0)
    assert np.abs(with_segments - expected).max() > 0.1
    assert ModelFiles("", model).digest() != digest


@pytest.mark.parametrize("write", [partial(write_roberta, type_vocab_size=2), write_bert])
def test_segments_of_a_tokenizer_with_other_special_tokens_are_refused_where_they_are_given(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    """A HerBERT: transformers gives the passage segment 1, where the family has 0 with such tokens."""
    model, tokenizer = write(tmp_path / "model"), unigram_tokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(model / "tokenizer.json"))
    tensors, rows = read_weights(model), tokenizer.get_vocab_size()
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    write_weights(model, tensors | {name: torch.randn(rows, tensors[name].shape[1])})
    edit_config(model, vocab_size=rows)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    edit_config(model, "tokenizer_config.json", **settings, model_input_names=inputs)

    with pytest.raises(ModelRefusedError, match=r"type_vocab_size is 2, .* list its inputs without token_type_ids"):
        ours(model)

    edit_config(model, "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    theirs, plain = AutoTokenizer.from_pretrained(model), PAIRS[:12]
    peer = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    batch = theirs(*map(list, zip(*plain, strict=True)), padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = peer(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(ours(model, plain), expected, atol=TOLERANCE, rtol=0)


def test_an_electra_whose_embeddings_are_projected_is_refused(tmp_path: Path) -> None:
    model = edit_config(write_electra(tmp_path / "model"), embedding_size=16)

    with pytest.raises(ModelRefusedError, match="embedding_size is 16 and hidden_size 32; an ELECTRA"):
        Reranker.load(str(model), device="cpu")


@pytest.mark.parametrize("write", [write_roberta, write_camembert])
def test_a_trained_one_keeps_its_type(write: Callable[..., Any], tmp_path: Path) -> None:
    base = load_base(str(write(tmp_path / "model")))

    write_model(base.encoder, base, tmp_path / "trained")

    reference = TransformersReference(tmp_path / "trained")
    assert reference.model.config.model_type == base.spec.layout
    np.testing.assert_allclose(ours(tmp_path / "trained"), reference.logits(PAIRS, 1), atol=TOLERANCE, rtol=0)


def test_an_electra_is_not_trained(tmp_path: Path) -> None:
    """Its head has another activation than what training writes."""
    with pytest.raises(ModelRefusedError, match="the family electra; training takes BERT, RoBERTa"):
        load_base(str(write_electra(tmp_path / "model")))
