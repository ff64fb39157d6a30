"""Modules of sentence-transformers behind a ModernBERT score as it does, and any that would not are refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.families import spec_of
from pipelines.fingerprint import planned_fingerprint
from pipelines.model_sources import find_model
from pipelines.reranker import Reranker
from pipelines.training.base import load_base
from pipelines.training.plain import write_plain
from tests.checkpoints import (
    copy_model,
    edit_config,
    shard_weights,
    words,
    write_bert,
    write_deberta,
    write_ettin,
    write_modernbert,
    write_xlm_roberta,
)
from tests.pipelines.references import TextPair

TOLERANCE = 1e-4
PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 9 * i, seed=100 + i)) for i in range(12)),
    *((words(9, seed=i), words(300, seed=200 + i)) for i in range(2)),
]


def theirs(directory: Path, batch_size: int) -> np.ndarray:
    """Logits of sentence-transformers."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(directory), device="cpu", model_kwargs={"dtype": "float32"}, activation_fn=nn.Identity())
    return np.asarray(model.float().predict(PAIRS, batch_size=batch_size))


def ours(directory: Path, **settings: Any) -> np.ndarray:
    loaded = Reranker.load(str(directory), device="cpu", num_threads=1, raw_scores=True, **settings)
    return np.array(loaded.compute_score(PAIRS))


def test_logits_are_those_of_sentence_transformers(ettin_directory: Path, tmp_path: Path) -> None:
    """With both poolings, alone and in batches, and pairs beyond the local window."""
    mean = edit_config(copy_model(ettin_directory, tmp_path / "mean"), "1_Pooling/config.json", pooling_mode="mean")
    for directory in (ettin_directory, mean):
        for batch_size in (1, len(PAIRS)):
            expected = theirs(directory, batch_size)
            np.testing.assert_allclose(ours(directory), expected, atol=TOLERANCE, rtol=0)
            np.testing.assert_allclose(ours(directory, max_batch_tokens=300), expected, atol=TOLERANCE, rtol=0)
            assert expected.std() > 0.3


def test_a_prompt_that_every_pair_would_begin_with_is_refused(bert_directory: Path, tmp_path: Path) -> None:
    """Its scores would be others than those of sentence-transformers, and nobody would know."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(bert_directory), device="cpu", prompts={"q": "zebra "}, default_prompt_name="q")
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(ModelRefusedError, match="'zebra ' before each pair, as config_sentence_transf"):
        ours(tmp_path / "saved")
    model.prompts = {"q": ""}
    model.save_pretrained(tmp_path / "empty")
    np.testing.assert_array_equal(ours(tmp_path / "empty"), ours(bert_directory))


@pytest.mark.parametrize("write", [write_bert, write_xlm_roberta, write_modernbert, write_deberta, write_ettin])
def test_what_sentence_transformers_saves_is_the_same_model(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """As users save the rerankers that they have trained; it writes a modules.json beside every family."""
    from sentence_transformers import CrossEncoder

    published = write(tmp_path / "published")
    CrossEncoder(str(published), device="cpu", model_kwargs={"dtype": "float32"}).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "modules.json").exists()
    np.testing.assert_allclose(ours(tmp_path / "saved"), ours(published), atol=TOLERANCE, rtol=0)


def test_the_names_and_keys_of_older_versions_are_the_same_model(ettin_directory: Path, tmp_path: Path) -> None:
    older = copy_model(ettin_directory, tmp_path / "older")
    modules = json.loads((older / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    (older / "modules.json").write_text(json.dumps(modules))
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (older / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (older / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))

    np.testing.assert_array_equal(ours(older), ours(ettin_directory))
    limits = [Reranker.load(str(one), device="cpu").model_limit for one in (ettin_directory, older)]
    assert limits == [7999, 512]


def test_a_score_right_behind_the_pooling_is_read_and_cannot_be_converted(
    ettin_directory: Path, tmp_path: Path
) -> None:
    """transformers has no such head for a ModernBERT."""
    short = copy_model(ettin_directory, tmp_path / "short")
    modules = json.loads((short / "modules.json").read_text())
    (short / "modules.json").write_text(json.dumps([*modules[:2], modules[4]]))

    np.testing.assert_allclose(ours(short), theirs(short, 1), atol=TOLERANCE, rtol=0)
    with pytest.raises(ModelRefusedError, match="transformers has no head for these modules"):
        write_plain(find_model(str(short)), tmp_path / "plain", torch.float32)
    assert not (tmp_path / "plain").exists()


def test_a_sharded_model_scores_as_the_whole_one(ettin_directory: Path, tmp_path: Path) -> None:
    sharded = shard_weights(copy_model(ettin_directory, tmp_path / "sharded"))

    np.testing.assert_array_equal(ours(sharded), ours(ettin_directory))


def test_modules_beside_a_model_that_scores_by_itself_are_not_read(bert_directory: Path, tmp_path: Path) -> None:
    """As an embedding model left them: sentence-transformers takes the model by itself then, too."""
    plain = copy_model(bert_directory, tmp_path / "plain")
    expected = planned_fingerprint(RerankerConfig(str(plain), device="cpu")).hash
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [
        {"idx": i, "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    for listed in (modules[:1], modules):
        (plain / "modules.json").write_text(json.dumps(listed))
        assert planned_fingerprint(RerankerConfig(str(plain), device="cpu")).hash == expected


@pytest.fixture
def saved(bert_directory: Path, tmp_path: Path) -> Path:
    """A plain cross-encoder as sentence-transformers saves it."""
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(bert_directory), device="cpu", model_kwargs={"dtype": "float32"}).save(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_cross_encoder_scores_as_sentence_transformers_saved_it(saved: Path, bert_directory: Path) -> None:
    np.testing.assert_allclose(ours(saved), theirs(saved, 1), atol=TOLERANCE, rtol=0)
    assert find_model(str(saved)).modules() == []
    edit_config(saved, "sentence_bert_config.json", max_seq_length=32)
    limits = [Reranker.load(str(one), device="cpu").model_limit for one in (bert_directory, saved)]
    assert limits == [512, 32]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"do_lower_case": True}, "do_lower_case is True"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs is"),
        ({"config_kwargs": {"layer_norm_eps": 0.1}}, "config_kwargs is"),
        ({"max_seq_length": "all"}, "max_seq_length is 'all'; it is a number from 1 on, or null"),
        ({"max_seq_length": 0}, "max_seq_length is 0"),
    ],
)
def test_what_sentence_transformers_would_do_otherwise_is_refused(
    changes: dict[str, Any], told: str, saved: Path
) -> None:
    edit_config(saved, "sentence_bert_config.json", **changes)
    for load in (Reranker.load, load_base):
        with pytest.raises(ModelRefusedError, match=told):
            load(str(saved))


def test_a_module_behind_a_score_is_refused(saved: Path) -> None:
    """It could turn the order around; and what lies in the folder of a Transformer are other weights than ours."""
    listed = json.loads((saved / "modules.json").read_text())
    dense = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.modules.dense.Dense"}
    for others in ([*listed, dense], [listed[0] | {"path": "0_Transformer"}]):
        (saved / "modules.json").write_text(json.dumps(others))
        with pytest.raises(ModelRefusedError, match=r"modules\.json lists .* in [01]_"):
            load_base(str(saved))


def test_every_file_of_the_modules_is_part_of_the_fingerprint(ettin_directory: Path, tmp_path: Path) -> None:
    digests = {find_model(str(ettin_directory)).digest()}
    for i, name in enumerate(
        ("1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json", "modules.json")
    ):
        other = copy_model(ettin_directory, tmp_path / str(i))
        (other / name).write_text((other / name).read_text() + " ")
        digests.add(find_model(str(other)).digest())
    weights = write_ettin(tmp_path / "weights", seed=9)
    for file in ("model.safetensors", "3_LayerNorm/model.safetensors", "4_Dense/model.safetensors"):
        shutil.copy(ettin_directory / file, weights / file)
    digests.add(find_model(str(weights)).digest())
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, r"pooling_mode is \['max'\]; supported are cls and mean"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "pooling_mode is"),
        ("1_Pooling/config.json", {"embedding_dimension": 64}, "reads 32 numbers, and what stands before it gives 64"),
        ("2_Dense/config.json", {"activation_function": "theirs.Swish"}, "activation_function is 'theirs.Swish'"),
        ("2_Dense/config.json", {"use_residual": True}, "2_Dense/config.json: use_residual is True"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ("2_Dense/config.json", {"module_output_name": "scores"}, "module_output_name is 'scores'"),
        ("2_Dense/config.json", {"dropout": 0.5}, "dropout is 0.5; this is not supported"),
        (
            "2_Dense/config.json",
            {"out_features": 16},
            "3_LayerNorm reads 32 numbers, and what stands before it gives 16",
        ),
        ("2_Dense/config.json", {"bias": True}, "missing .2_Dense/linear.bias"),
        ("4_Dense/config.json", {"bias": False}, "unexpected .4_Dense/linear.bias"),
        ("4_Dense/config.json", {"out_features": 3}, "4_Dense/config.json: out_features is 3; supported is 1"),
        ("4_Dense/config.json", {"module_output_name": None}, "module_output_name is None; supported is 'scores'"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is True"),
        ("sentence_bert_config.json", {"query_length": 32}, "query_length is 32; this is not supported"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name is 'query'"),
        ("config.json", {"model_type": "bert"}, "puts modules behind a bert model; supported is modernbert"),
        ("config.json", {"num_hidden_layers": 3}, "unexpected .*layers.3"),
    ],
    ids=str,
)
def test_what_would_score_otherwise_is_refused(
    file: str, changes: dict[str, Any], reason: str, ettin_directory: Path, tmp_path: Path
) -> None:
    model = edit_config(copy_model(ettin_directory, tmp_path / "model"), file, **changes)

    with pytest.raises(ModelRefusedError, match=reason):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize(
    ("place", "module", "reason"),
    [
        (0, None, "begins with Pooling and Dense"),
        (1, None, "begins with Transformer and Dense"),
        (
            1,
            {"type": "sentence_transformers.cross_encoder.modules.LogitScore"},
            "there is no chat template",
        ),
        (3, {"type": "sentence_transformers.models.Dropout"}, "modules.json has 'Dropout'"),
        (3, {"type": "theirs.modules.LayerNorm"}, "modules.json has 'theirs.modules.LayerNorm'"),
        (4, None, "modules.json ends with 'LayerNorm'"),
        (4, {"type": "sentence_transformers.models.Normalize"}, "modules.json ends with 'Normalize'"),
        (2, {"path": "../2_Dense"}, "as its path a folder beside it"),
        (2, {"path": None}, "a module has a type"),
        (2, {"path": ""}, "modules.json has 'Dense' .''."),
        (0, {"path": "0_Transformer"}, "begins with Transformer"),
    ],
    ids=str,
)
def test_other_modules_are_refused_by_name(
    place: int, module: dict[str, Any] | None, reason: str, ettin_directory: Path, tmp_path: Path
) -> None:
    model = copy_model(ettin_directory, tmp_path / "model")
    modules = json.loads((model / "modules.json").read_text())
    modules[place : place + 1] = [] if module is None else [modules[place] | module]
    (model / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ModelRefusedError, match=reason):
        spec_of(find_model(str(model)))


def test_an_embedding_model_is_no_reranker(ettin_directory: Path, tmp_path: Path) -> None:
    model = copy_model(ettin_directory, tmp_path / "model")
    (model / "modules.json").write_text(json.dumps(json.loads((model / "modules.json").read_text())[:2]))

    with pytest.raises(ModelRefusedError, match="this is an embedding model, which gives no score"):
        spec_of(find_model(str(model)))


def test_training_says_that_it_does_not_take_one(ettin_directory: Path) -> None:
    with pytest.raises(ModelRefusedError, match="the family modernbert; training takes BERT, RoBERTa"):
        load_base(str(ettin_directory))
