"""llama-nemotron-rerank: logits as its publisher's code computes them, by transformers' own Llama without its mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.families import spec_of
from pipelines.model_sources import find_model
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from tests.checkpoints import edit_config, read_weights, shard_weights, words, write_nemotron
from tests.pipelines.language_models import PAIRS, logits_of_lists

TOLERANCE = 1e-4


@torch.inference_mode()
def published_logits(model: Path) -> np.ndarray:
    """Logits of PAIRS, one at a time, in float32; each prompt goes through the tokenizer in one piece."""
    from transformers import LlamaConfig, LlamaModel

    config = json.loads((model / "config.json").read_text())
    tensors = {name: tensor.float() for name, tensor in read_weights(model).items()}
    llama = LlamaModel(LlamaConfig(**{key: value for key, value in config.items() if key != "model_type"})).eval()
    body = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name != "score.weight"}
    llama.load_state_dict(body)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    logits = []
    for query, document in PAIRS:
        ids = tokenizer.encode(f"question:{query} \n \n passage:{document}").ids
        everything = torch.zeros(1, 1, len(ids), len(ids))  # added to the attention's logits: all see all
        [states] = llama(input_ids=torch.tensor([ids]), attention_mask=everything).last_hidden_state
        pooled = {"avg": states.mean(0), "cls": states[0], "last": states[-1]}[config["pooling"]]
        logits.append(float(tensors["score.weight"][0] @ pooled) / config["temperature"])
    return np.array(logits)


@pytest.mark.parametrize("changes", [{}, {"pooling": "cls", "temperature": 0.5}, {"pooling": "last"}])
def test_logits_are_those_of_the_publisher(changes: dict[str, Any], tmp_path: Path) -> None:
    model = write_nemotron(tmp_path / "model", **changes)
    expected = published_logits(model)
    assert expected.std() > 0.2

    def check(found: np.ndarray) -> None:
        np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)

    check(logits_of_lists(model, num_threads=1))
    check(logits_of_lists(shard_weights(model), max_batch_tokens=300))
    reranker = Reranker.load(str(model), device="cpu", raw_scores=True)
    check(np.array([reranker.compute_score([pair])[0] for pair in PAIRS]))
    assert (reranker.fingerprint.layout, spec_of(find_model(str(model))).max_length) == ("llama-nemotron", 8192)
    assert "Llama 3.2" in str(reranker.engine.spec.licence_note)


def test_positions_are_scaled_as_config_says(tmp_path: Path) -> None:
    """A test that the comparison above would see it if they were not."""
    scaled = write_nemotron(tmp_path / "scaled")
    plain = write_nemotron(tmp_path / "plain", rope_scaling=None)
    assert np.abs(logits_of_lists(scaled) - logits_of_lists(plain)).max() > 0.01


def test_what_the_tokenizer_puts_around_a_text_is_read(tmp_path: Path) -> None:
    model = write_nemotron(tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(single="$A <|end_of_text|>", special_tokens=[("<|end_of_text|>", 1)])
    tokenizer.save(str(model / "tokenizer.json"))
    np.testing.assert_allclose(logits_of_lists(model), published_logits(model), atol=TOLERANCE, rtol=0)


def test_every_chunk_of_a_long_document_stands_behind_the_whole_words(tmp_path: Path) -> None:
    """Also behind their colon, which goes through the tokenizer with the passage."""
    reranker = Reranker.load(str(write_nemotron(tmp_path / "model")), device="cpu", max_length=100)
    document = words(150, seed=4)
    [prepared] = reranker.preparation.prepare([CandidateList("river", [document])], reranker.lengths)
    encode = reranker.tokenizer.tokenizer.encode
    room = 100 - len(encode("question:river \n \n passage:").ids)
    last = " ".join(document.split()[-room:])
    assert list(prepared.pairs[-1].input_ids) == encode(f"question:river \n \n passage: {last}").ids


def test_it_takes_no_instruction(tmp_path: Path) -> None:
    model = str(write_nemotron(tmp_path / "model"))
    with pytest.raises(ConfigError, match="llama-nemotron models take no instruction"):
        Reranker.load(model, device="cpu", instruction="Find bridges")
    assert not Reranker.load(model, device="cpu").preparation.takes_instructions


def test_transformers_has_no_class_to_convert_it_to(tmp_path: Path) -> None:
    model = write_nemotron(tmp_path / "model")
    done = CliRunner().invoke(app, ["convert", str(model), str(tmp_path / "plain")])
    assert done.exit_code == 2
    assert "transformers has no class for a llama-nemotron model" in done.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pooling": "weighted_avg"}, "pooling is 'weighted_avg'"),
        ({"temperature": 0}, "temperature is 0"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 labels"),
        ({"mlp_bias": True}, "mlp_bias is"),
        ({"is_causal": True}, "is_causal is"),
        ({"hidden_act": "gelu"}, "hidden_act is"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rotary positions are 'llama3' with"),
        ({"rope_scaling": "llama3"}, "rope_scaling is 'llama3'; it is an object"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 8.0}}, "rotary positions are 'dynamic'"),
        ({"num_hidden_layers": 4}, "model.layers.3"),
        ({"intermediate_size": 32}, "intermediate_size"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = edit_config(write_nemotron(tmp_path / "model"), **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))
