"""bge-reranker-v2-gemma: logits as its publisher's program computes them, as language model and as classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from pipelines.errors import ModelRefusedError
from pipelines.families import spec_of
from pipelines.model_sources import find_model
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from tests.checkpoints import copy_model, edit_config, read_weights, shard_weights, words, write_gemma, write_weights
from tests.pipelines.language_models import PAIRS, logits_of_lists

TOLERANCE = 1e-4
TASK = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)
OTHER_TASK = "Predict whether queries A and B are asking the same thing."


@torch.inference_mode()
def published_logits(model: Path, task: str = TASK) -> np.ndarray:
    """Logits of PAIRS by transformers' GemmaForCausalLM, with ids as FlagEmbedding's FlagLLMReranker makes them."""
    from transformers import AutoModelForCausalLM

    loaded, loading = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)

    yes = encode("Yes")[0]
    line = encode("\n")
    rows = []
    for query, document in PAIRS:
        ids = [tokenizer.token_to_id("<bos>"), *encode(f"A: {query}"), *line, *encode(f"B: {document}")]
        rows.append(loaded(input_ids=torch.tensor([[*ids, *line, *encode(task)]])).logits[0, -1])
    return np.array([float(row[yes]) for row in rows])


def as_classifier(source: Path, directory: Path) -> Path:
    """The sequence classifier that published programs make of the language model: the row of the word as it is."""
    copy_model(source, directory)
    tensors = read_weights(source)
    yes = Tokenizer.from_file(str(source / "tokenizer.json")).token_to_id("Yes")
    write_weights(directory, tensors | {"score.weight": tensors["model.embed_tokens.weight"][yes][None].clone()})
    return edit_config(directory, architectures=["GemmaForSequenceClassification"], num_labels=1)


def test_logits_are_those_of_the_publisher_in_both_forms(tmp_path: Path) -> None:
    model = write_gemma(tmp_path / "model")
    expected = published_logits(model)
    assert expected.std() > 0.3

    def check(found: np.ndarray) -> None:
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)

    check(logits_of_lists(model, num_threads=1))
    check(logits_of_lists(shard_weights(model), max_batch_tokens=300))
    check(logits_of_lists(as_classifier(write_gemma(tmp_path / "again"), tmp_path / "classifier")))
    reranker = Reranker.load(str(model), device="cpu", raw_scores=True)
    check(np.array([reranker.compute_score([pair])[0] for pair in PAIRS]))
    assert "ai.google.dev/gemma/terms" in str(reranker.engine.spec.licence_note)


def test_an_instruction_takes_the_place_of_the_task(tmp_path: Path) -> None:
    model = write_gemma(tmp_path / "model")
    expected = published_logits(model, OTHER_TASK)
    assert np.abs(expected - published_logits(model)).max() > 0.01
    np.testing.assert_allclose(logits_of_lists(model, instruction=OTHER_TASK), expected, atol=TOLERANCE, rtol=0)
    own, given = (Reranker.load(str(model), device="cpu", instruction=task).fingerprint for task in (None, TASK))
    assert own.hash == given.hash


def test_every_chunk_of_a_long_document_is_a_passage_b_within_the_prompt(tmp_path: Path) -> None:
    reranker = Reranker.load(str(write_gemma(tmp_path / "model")), device="cpu", max_length=700)
    lists = [CandidateList(words(3), [words(900, seed=2)])]
    [prepared] = reranker.preparation.prepare(lists, reranker.lengths)
    template = reranker.tokenizer.template
    assert len(prepared.pairs) == 2
    for pair in prepared.pairs:
        assert len(pair.input_ids) <= 700
        assert tuple(pair.input_ids[-len(template.last) :]) == template.last
        assert "\nB:\u2581" in "".join(reranker.tokenizer.tokenizer.id_to_token(one) for one in pair.input_ids)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["GemmaModel"]}, "architectures is"),
        ({"hidden_act": "silu"}, "hidden_act is"),
        ({"hidden_activation": "gelu"}, "hidden_activation is"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is"),
        ({"attention_bias": True}, "attention_bias is"),
        ({"is_causal": False}, "is_causal is False, and transformers 5 reads in both directions"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rotary positions are 'linear'"),
        ({"head_dim": 15}, "head_dim 15"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3"),
        ({"hidden_size": 64}, "hidden_size"),
        ({"vocab_size": 4}, "vocab_size is 4"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = edit_config(write_gemma(tmp_path / "model"), **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


def test_a_tokenizer_without_the_answer_or_the_first_token_is_refused(tmp_path: Path, bert_directory: Path) -> None:
    model = write_gemma(tmp_path / "model")
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace('"Yes"', '"Yeah"'))
    with pytest.raises(ModelRefusedError, match="makes 3 tokens of 'Yes'"):
        Reranker.load(str(model), device="cpu")
    (model / "tokenizer.json").write_text((bert_directory / "tokenizer.json").read_text())
    with pytest.raises(ModelRefusedError, match=r"tokens of 'Yes'|no <bos>"):
        Reranker.load(str(model), device="cpu")
