"""gte-multilingual-reranker-base as its publisher lays it out: logits are those of transformers' own class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.families import spec_of
from pipelines.model_sources import find_model
from pipelines.reranker import Reranker
from tests.checkpoints import (
    HEADS,
    WIDTH,
    copy_model,
    edit_config,
    read_weights,
    shard_weights,
    words,
    write_gte,
    write_weights,
)
from tests.pipelines.references import TextPair, TransformersReference

TOLERANCE = 1e-4
PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 9 * i, seed=100 + i)) for i in range(12)),
    (words(9, seed=1), words(400, seed=200)),
    ("", ""),
    ("naïve ½ 中文", "🙂 </s> <s> apple"),
]


def logits(model: Path, **settings: Any) -> np.ndarray:
    loaded = Reranker.from_config(RerankerConfig(str(model), device="cpu", raw_scores=True, num_threads=1, **settings))
    ids = loaded.tokenizer.token_ids([text for pair in PAIRS for text in pair])
    template = loaded.tokenizer.template
    return loaded.engine.logits([template.join(*both) for both in zip(ids[::2], ids[1::2], strict=True)])


def as_transformers_has_it(model: Path, directory: Path) -> Path:
    """The same weights with the config that transformers' page of the model gives: static NTK as linear positions."""
    copy_model(model, directory)
    published = json.loads((model / "config.json").read_text())
    theta, scaling = published["rope_theta"], published["rope_scaling"]
    factor = 1.0 if scaling is None else scaling["factor"]
    rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / (WIDTH // HEADS))}
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    names += ("layer_norm_eps", "max_position_embeddings", "type_vocab_size", "pad_token_id", "id2label", "label2id")
    config = {name: published[name] for name in names}
    config |= {"model_type": "gte", "architectures": ["GteForSequenceClassification"], "rope_parameters": rope}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    "changes", [{}, {"rope_scaling": None}, {"hidden_act": "gelu_new"}, {"num_hidden_layers": 1}], ids=str
)
def test_logits_are_those_of_transformers_in_both_configs(changes: dict[str, Any], tmp_path: Path) -> None:
    model = write_gte(tmp_path / "model", **changes)
    native = as_transformers_has_it(model, tmp_path / "native")
    reference = TransformersReference(native)
    alone, padded = reference.logits(PAIRS, 1), reference.logits(PAIRS, len(PAIRS))
    assert alone.std() > 0.3
    np.testing.assert_allclose(logits(model), alone, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits(model, max_batch_tokens=500), padded, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits(native), alone, atol=TOLERANCE, rtol=0)


def test_shards_are_read_and_convert_writes_what_transformers_loads(tmp_path: Path) -> None:
    model = shard_weights(write_gte(tmp_path / "model"))
    done = CliRunner().invoke(app, ["convert", str(model), str(tmp_path / "plain"), "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(
        TransformersReference(tmp_path / "plain").logits(PAIRS, 1), logits(model), atol=TOLERANCE, rtol=0
    )
    assert spec_of(find_model(str(tmp_path / "plain"))).layout == "gte"


def saved_by_transformers(native: Path, directory: Path) -> str:
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(native).save_pretrained(directory)
    return "new.gte.pooler.dense.weight"


def saved_by_sentence_transformers(native: Path, directory: Path) -> str:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(native), device="cpu", model_kwargs={"dtype": "float32"}).save_pretrained(str(directory))
    return "new.gte.pooler.dense.weight"


def saved_anew(native: Path, directory: Path) -> str:
    from transformers import AutoConfig, GteForSequenceClassification

    drawn = GteForSequenceClassification(AutoConfig.from_pretrained(native))
    trained = GteForSequenceClassification.from_pretrained(native, dtype="float32")
    drawn.load_state_dict(trained.state_dict())
    drawn.save_pretrained(directory)
    return "gte.pooler.dense.weight"


@pytest.mark.parametrize("save", [saved_by_transformers, saved_by_sentence_transformers, saved_anew])
def test_the_names_that_transformers_5_saves_are_read(save: Callable[[Path, Path], str], tmp_path: Path) -> None:
    model = write_gte(tmp_path / "model")
    native, saved = as_transformers_has_it(model, tmp_path / "native"), tmp_path / "saved"
    name = save(native, saved)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (saved / file).write_bytes((native / file).read_bytes())
    tensors = read_weights(saved)
    assert name in tensors
    np.testing.assert_allclose(logits(saved), logits(model), atol=TOLERANCE, rtol=0)
    converted, _ = spec_of(find_model(str(saved))).plain_checkpoint(
        tensors, json.loads((saved / "config.json").read_text())
    )
    assert converted.keys() == read_weights(model).keys()

    write_weights(saved, tensors | {"new.pooler.dense.weight": tensors[name].clone()})
    with pytest.raises(ModelRefusedError, match=r"the tensor 'new\.pooler\.dense\.weight' is there under two names"):
        spec_of(find_model(str(saved)))
    write_weights(saved, tensors)
    with pytest.raises(ModelRefusedError, match="missing"):
        spec_of(find_model(str(edit_config(saved, model_type="new", rope_parameters=None))))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ({"logn_attention_scale": True}, "logn_attention_scale is True"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'"),
        ({"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, "rope_scaling is"),
        ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "supported is ntk with a factor"),
        ({"id2label": {"0": "a", "1": "b"}}, "the model has 2 labels"),
        ({"num_attention_heads": 32}, "no even number for each of them"),
        ({"num_hidden_layers": 4}, "missing"),
        ({"intermediate_size": 32}, "intermediate_size"),
        ({"is_causal": True}, "is_causal is True"),
        ({"model_type": "gte"}, "rotary positions are .*'ntk'.*supported are default and linear"),
        ({"model_type": "gte", "rope_scaling": [8.0]}, "rope_scaling is .*; it is an object"),
        ({"model_type": "gte", "rope_scaling": None, "partial_rotary_factor": 0.5}, "supported are default and linear"),
        (
            {"model_type": "gte", "rope_scaling": None, "rope_parameters": {"rope_type": "yarn"}},
            "supported are default and linear",
        ),
        (
            {"model_type": "gte", "rope_scaling": None, "rope_parameters": {"partial_rotary_factor": 0.5}},
            "supported are default and linear",
        ),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = edit_config(write_gte(tmp_path / "model"), **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize(
    "told",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
        {"rope_theta": 90.0, "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 3.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "rope_parameters": {"rope_theta": 500.0}},
    ],
    ids=str,
)
def test_older_keys_of_the_positions_count_as_in_transformers(told: dict[str, Any], tmp_path: Path) -> None:
    """`rope_scaling` stands for all of `rope_parameters`, and `rope_theta` for the base that it lacks."""
    model = as_transformers_has_it(write_gte(tmp_path / "model"), tmp_path / "native")
    others = logits(model)
    edit_config(model, **{"rope_parameters": None, **told})
    expected = TransformersReference(model).logits(PAIRS, 1)
    assert np.abs(expected - others).max() > 10 * TOLERANCE
    np.testing.assert_allclose(logits(model), expected, atol=TOLERANCE, rtol=0)


def test_bfloat16_scores_are_finite(tmp_path: Path) -> None:
    assert np.isfinite(logits(write_gte(tmp_path / "model"), dtype="bfloat16")).all()
