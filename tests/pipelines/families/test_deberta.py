"""mxbai-rerank-v1 as it is published, a DeBERTa-v2: logits are those of transformers' own class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.families import deberta, spec_of
from pipelines.model_sources import find_model
from pipelines.reranker import Reranker
from tests.checkpoints import (
    DEBERTA_LENGTH,
    WIDTH,
    deberta_tokenizer,
    edit_config,
    read_weights,
    shard_weights,
    words,
    write_deberta,
    write_weights,
)
from tests.pipelines.references import TextPair, TransformersReference

TOLERANCE = 1e-4
LONGEST = DEBERTA_LENGTH - 3
"""Tokens of the texts of the longest pair."""
PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 9 * i, seed=100 + i)) for i in range(12)),
    *((words(5, seed=i), words(60, seed=300 + i)) for i in range(5)),
    (words(9, seed=1), words(LONGEST - 9, seed=200)),
    (words(9, seed=2), words(LONGEST - 9, seed=201)),
    (words(7, seed=3), words(300, seed=202)),
    ("", ""),
    ("naïve ½ 中文", "🙂 [SEP] [CLS] apple"),
]


def loaded(model: Path, **settings: Any) -> Reranker:
    return Reranker.from_config(RerankerConfig(str(model), device="cpu", raw_scores=True, num_threads=1, **settings))


def logits(model: Path, pairs: list[TextPair] = PAIRS, **settings: Any) -> np.ndarray:
    reranker = loaded(model, **settings)
    ids = reranker.tokenizer.token_ids([text for pair in pairs for text in pair])
    template = reranker.tokenizer.template
    return reranker.engine.logits([template.join(*both) for both in zip(ids[::2], ids[1::2], strict=True)])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_hidden_layers": 1},
        {"hidden_act": "gelu_new", "pooler_hidden_act": "gelu_new", "pos_att_type": "c2p|p2c"},
        {"layer_norm_eps": 1e-3, "max_position_embeddings": 1024},
    ],
    ids=str,
)
def test_logits_are_those_of_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    model = write_deberta(tmp_path / "model", **changes)
    reference = TransformersReference(model)
    alone, padded = reference.logits(PAIRS, 1), reference.logits(PAIRS, len(PAIRS))
    assert alone.std() > 0.3
    np.testing.assert_allclose(logits(model), alone, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits(model, max_batch_tokens=1100), padded, atol=TOLERANCE, rtol=0)
    ours_alone = np.concatenate([logits(model, [pair]) for pair in PAIRS[10:14]])
    np.testing.assert_allclose(ours_alone, alone[10:14], atol=TOLERANCE, rtol=0)


def test_pairs_that_exceed_one_call_score_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours of one length are cut into runs, and a pair that is too large for a call is a run of its own."""
    model = write_deberta(tmp_path / "model")
    whole = logits(model)
    monkeypatch.setattr(deberta, "SCORES_PER_CALL", 4 * 70**2 * 2)
    assert deberta.runs_of([400, 70, 70, 70, 70, 70, 3, 3], 4) == [(1, 400), (2, 70), (2, 70), (1, 70), (2, 3)]
    np.testing.assert_allclose(logits(model), whole, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("reach", [128, 129, 512, 777, 4096])
def test_distances_have_the_buckets_of_transformers(reach: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = torch.arange(1 - reach, reach)
    expected = make_log_bucket_position(distances, 256, reach).long() + 256
    assert deberta.distance_rows(reach, reach).tolist() == expected.clamp(0, 511).tolist()


def test_a_pair_is_joined_as_its_tokenizer_joins_it_without_segments(tmp_path: Path) -> None:
    reranker = loaded(write_deberta(tmp_path / "model"))
    query_ids, passage_ids = reranker.tokenizer.token_ids(["apple bread", "river"])
    pair = reranker.tokenizer.template.join(query_ids, passage_ids)
    assert list(pair.input_ids) == deberta_tokenizer().encode("apple bread", "river").ids
    assert [pair.input_ids[0], pair.input_ids[3], pair.input_ids[-1]] == [1, 2, 2]
    assert pair.token_type_ids is None


def test_a_list_is_ranked_by_the_sigmoid_and_counted_by_the_text(tmp_path: Path) -> None:
    """A document of 600 tokens is scored in chunks of pairs of 512 tokens, and counts once."""
    model = write_deberta(tmp_path / "model")
    documents = [words(20, seed=1), words(600, seed=2), words(40, seed=3)]
    [ranking] = Reranker.load(str(model), device="cpu").rerank_lists([(words(4), documents)])
    [raw] = loaded(model).rerank_lists([(words(4), documents)])
    assert [one.index for one in ranking.documents] == [one.index for one in raw.documents]
    sigmoids = [1 / (1 + np.exp(-one.relevance_score)) for one in raw.documents]
    np.testing.assert_allclose([one.relevance_score for one in ranking.documents], sigmoids, atol=1e-6)
    assert ranking.usage.tokens == sum(2 + count for count in (4, 20, 600, 40))
    assert (ranking.usage.pairs, ranking.usage.chunks) == (3, 4)
    assert reference_of_short(model, documents) == pytest.approx(
        {one.index: one.relevance_score for one in raw.documents if one.index != 1}, abs=TOLERANCE
    )


def reference_of_short(model: Path, documents: list[str]) -> dict[int, float]:
    short = [i for i, document in enumerate(documents) if len(document.split()) < LONGEST]
    values = TransformersReference(model).logits([(words(4), documents[i]) for i in short], 1)
    return dict(zip(short, values.tolist(), strict=True))


def test_shards_are_read_and_convert_writes_what_transformers_loads(tmp_path: Path) -> None:
    model = shard_weights(write_deberta(tmp_path / "model"))
    done = CliRunner().invoke(app, ["convert", str(model), str(tmp_path / "plain"), "--dtype", "float32"])
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(
        TransformersReference(tmp_path / "plain").logits(PAIRS, 1), logits(model), atol=TOLERANCE, rtol=0
    )
    assert spec_of(find_model(str(tmp_path / "plain"))).layout == "deberta-v2"


def test_the_buffer_that_old_versions_of_transformers_saved_is_not_read(tmp_path: Path) -> None:
    model = write_deberta(tmp_path / "model")
    expected = logits(model)
    buffer = {"deberta.embeddings.position_ids": torch.arange(DEBERTA_LENGTH)[None]}
    write_weights(model, read_weights(model) | buffer)
    np.testing.assert_array_equal(logits(model), expected)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"conv_kernel_size": 3}, "conv_kernel_size is 3; supported is 0"),
        ({"pos_att_type": ["c2p"]}, "pos_att_type is ..c2p...; supported is 'p2c|c2p'"),
        ({"pos_att_type": "p2c|c2p|p2p"}, "pos_att_type is"),
        ({"pos_att_type": None}, "pos_att_type is None"),
        ({"position_buckets": 128}, "position_buckets is 128; supported is 256"),
        ({"position_buckets": None}, "position_buckets is -1"),
        ({"max_relative_positions": 300}, "max_relative_positions is 300"),
        ({"share_att_key": False}, "share_att_key is False"),
        ({"share_att_key": None}, "share_att_key is False"),
        ({"norm_rel_ebd": "none"}, "norm_rel_ebd is 'none'"),
        ({"relative_attention": None}, "relative_attention is False"),
        ({"position_biased_input": None}, "position_biased_input is True; supported is False"),
        ({"type_vocab_size": 2}, "type_vocab_size is 2"),
        ({"embedding_size": 16}, "embedding_size is 16; supported is 32"),
        ({"pooler_hidden_size": 16}, "pooler_hidden_size is 16"),
        ({"attention_head_size": 16}, "attention_head_size is 16; supported is 8"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"pooler_hidden_act": "tanh"}, "pooler_hidden_act is 'tanh'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"id2label": {"0": "a", "1": "b"}}, "the model has 2 labels"),
        ({"num_attention_heads": 5}, "does not divide hidden_size"),
        ({"num_hidden_layers": 4}, "missing"),
        ({"num_hidden_layers": 2}, "unexpected"),
        ({"intermediate_size": 32}, "intermediate_size"),
        ({"vocab_size": 7}, "vocab_size 7"),
    ],
    ids=str,
)
def test_what_would_be_computed_otherwise_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = edit_config(write_deberta(tmp_path / "model"), **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


def test_missing_and_unexpected_tensors_are_refused_by_name(tmp_path: Path) -> None:
    model = write_deberta(tmp_path / "model")
    tensors = read_weights(model)
    convolution = "deberta.encoder.conv.conv.weight"
    del tensors["deberta.encoder.LayerNorm.bias"]
    write_weights(model, tensors | {convolution: torch.zeros(WIDTH, WIDTH, 3)})
    told = rf"1 missing \(deberta.encoder.LayerNorm.bias\); 1 unexpected \({convolution}\)"
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.05), ("bfloat16", 0.5)])
def test_scores_in_half_precision_are_near(dtype: str, tolerance: float, tmp_path: Path) -> None:
    model = write_deberta(tmp_path / "model")
    np.testing.assert_allclose(logits(model, dtype=dtype), logits(model), atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_that_half_precision_holds_only_after_scaling_are_finite(dtype: str, tmp_path: Path) -> None:
    """A query times a key is beyond 65,504 here in places, and divided by the scale it is not."""
    model = write_deberta(tmp_path / "model")
    tensors = read_weights(model)
    for name in tensors:
        if "query_proj" in name or "key_proj" in name:
            tensors[name] *= 50
    assert np.isfinite(logits(write_weights(model, tensors), dtype=dtype)).all()
