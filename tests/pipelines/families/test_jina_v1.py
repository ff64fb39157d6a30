"""jina-reranker-v1 as its publisher lays it out: logits are those of its maths, written out again in padded batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.attention import sdpa_attention
from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.families import spec_of
from pipelines.families.jina_v1 import jina_v1_spec
from pipelines.model_sources import find_model
from pipelines.packing import TokenPair
from pipelines.reranker import Reranker
from tests.checkpoints import edit_config, read_weights, shard_weights, words, write_jina_v1
from tests.pipelines.references import TWELVE_SLOPES, TextPair, jina_v1_logits

TOLERANCE = 1e-4
TWELVE_FLOATS = torch.tensor(TWELVE_SLOPES).tolist()
PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 9 * i, seed=100 + i)) for i in range(12)),
    (words(9, seed=1), words(400, seed=200)),
    (words(9, seed=1), words(700, seed=201)),
    ("", ""),
    ("naïve ½ 中文", "🙂 </s> <s> apple"),
]


def load(model: Path, **settings: Any) -> Reranker:
    return Reranker.from_config(RerankerConfig(str(model), device="cpu", raw_scores=True, num_threads=1, **settings))


def token_pairs(reranker: Reranker) -> list[TokenPair]:
    ids = reranker.tokenizer.token_ids([text for pair in PAIRS for text in pair])
    return [reranker.tokenizer.template.join(*both) for both in zip(ids[::2], ids[1::2], strict=True)]


def logits(model: Path, **settings: Any) -> np.ndarray:
    reranker = load(model, **settings)
    return reranker.engine.logits(token_pairs(reranker))


def sequences(model: Path) -> list[list[int]]:
    """The pairs as transformers tokenizes them by tokenizer.json."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    queries, documents = map(list, zip(*PAIRS, strict=True))
    return tokenizer(queries, documents)["input_ids"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jina_v1(tmp_path_factory.mktemp("jina-v1"))


@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 1}], ids=str)
def test_logits_are_those_of_the_published_maths_alone_and_in_any_batch(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """Pairs of 4 tokens and of 700, which are more than a BERT's positions hold."""
    model = write_jina_v1(tmp_path / "model", **changes)
    ids = sequences(model)
    alone = np.concatenate([jina_v1_logits(model, [sequence]) for sequence in ids])
    padded = np.append(jina_v1_logits(model, ids[:12]), jina_v1_logits(model, ids[12:]))
    assert alone.std() > 0.3
    np.testing.assert_allclose(logits(model), alone, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits(model, max_batch_tokens=600), padded, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "mistake",
    [
        {"gate_is_second": True},
        {"slopes": sorted(TWELVE_SLOPES, reverse=True)},
        {"slopes": [2 ** (-8 * i / 12) for i in range(1, 13)]},
        {"slopes": [0.0] * 12},
        {"layer_norm_eps": 1e-5},
    ],
    ids=["halves of the gate swapped", "slopes in order", "slopes of one row", "no positions", "eps"],
)
def test_the_comparison_notices_a_mistake(mistake: dict[str, Any], model: Path) -> None:
    short = slice(8)
    wrong = jina_v1_logits(model, sequences(model)[short], **mistake)
    assert np.abs(logits(model)[short] - wrong).max() > 10 * TOLERANCE


@pytest.mark.parametrize(("layers", "numbers"), [(6, 37_771_777), (4, 33_046_273)], ids=["turbo", "tiny"])
def test_the_tensors_are_as_many_as_those_of_the_published_files(layers: int, numbers: int, model: Path) -> None:
    """What the headers of their model.safetensors add up to, as Hugging Face's hub counts them. Norms of queries and
    keys, a position table, biases of the gate or a second label would all be more."""
    config = find_model(str(model)).config() | {"vocab_size": 61_056, "hidden_size": 384, "intermediate_size": 1536}
    spec = jina_v1_spec(config | {"num_hidden_layers": layers})
    assert sum(math.prod(shape) for shape in spec.shapes().values()) == numbers


def test_pairs_are_joined_as_the_tokenizer_joins_them(model: Path) -> None:
    """`<s> q </s></s> d </s>`, all of it segment 0."""
    reranker = load(model)
    template = reranker.tokenizer.template
    assert (template.first, template.middle, template.last) == ((0,), (2, 2), (2,))
    pairs = token_pairs(reranker)
    assert [list(pair.input_ids) for pair in pairs] == sequences(model)
    assert all(pair.token_type_ids is None for pair in pairs)


def test_pairs_of_8000_tokens_are_read_whole_and_counted(tmp_path: Path) -> None:
    """A query of 5 and a document of 8,000 tokens, each with two special tokens of its own."""
    model = write_jina_v1(tmp_path / "model", num_hidden_layers=2)
    assert spec_of(find_model(str(model))).max_length == 8192
    [ranking] = load(model, max_length=8192).rerank_lists([(words(5), [words(8_000, seed=3)])])
    assert (ranking.usage.tokens, ranking.usage.pairs, ranking.usage.chunks) == (7 + 8_002, 1, 1)
    assert np.isfinite(ranking.documents[0].relevance_score)


def test_kernels_get_slopes_in_float32_whatever_the_weights_are(model: Path) -> None:
    """flash-attn reads no other type."""
    reranker = load(model, dtype="bfloat16")
    seen: list[torch.Tensor] = []

    def recording(*tensors: Any, alibi_slopes: torch.Tensor) -> torch.Tensor:
        seen.append(alibi_slopes)
        return sdpa_attention(*tensors, alibi_slopes=alibi_slopes)

    reranker.engine.encoder.attention = recording
    reranker.compute_score([("apple", "bread")])
    assert len(seen) == 3
    assert all(slopes.dtype == torch.float32 and slopes.tolist() == TWELVE_FLOATS for slopes in seen)


def test_shards_are_read_and_the_config_may_say_more_or_less(model: Path, tmp_path: Path) -> None:
    sharded = shard_weights(write_jina_v1(tmp_path / "model", id2label={"0": "LABEL_0"}, attn_implementation=None))
    np.testing.assert_array_equal(logits(sharded), logits(model))


def test_convert_says_that_transformers_has_no_such_class(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", str(model), str(tmp_path / "plain")])
    assert done.exit_code == 2
    assert "transformers has no class for jina-reranker-v1" in " ".join(done.output.split())
    assert not (tmp_path / "plain").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ({"position_embedding_type": "rope"}, "position_embedding_type is 'rope'"),
        ({"feed_forward_type": "original"}, "feed_forward_type is 'original'"),
        ({"feed_forward_type": "reglu"}, "feed_forward_type is 'reglu'"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"attn_implementation": "window"}, "attn_implementation is 'window'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"quantization_config": {"bits": 8}}, "quantization_config is"),
        ({"num_labels": 2}, "the model has 2 labels"),
        ({"id2label": {"0": "a", "1": "b"}}, "the model has 2 labels"),
        ({"num_attention_heads": 10}, "does not divide hidden_size"),
        ({"num_hidden_layers": 4}, "missing"),
        ({"num_hidden_layers": 2}, "unexpected"),
        ({"intermediate_size": 32}, "intermediate_size"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small'"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    model = edit_config(write_jina_v1(tmp_path / "model"), **changes)
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize("key", ["feed_forward_type", "max_position_embeddings", "type_vocab_size"])
def test_a_config_that_does_not_say_is_refused(key: str, tmp_path: Path) -> None:
    """Without `feed_forward_type` an ALiBi model may be any other, whose tensors might have the same names."""
    model = write_jina_v1(tmp_path / "model")
    edit_config(model, **{key: None})
    with pytest.raises(ModelRefusedError, match=f"config.json lacks '{key}'"):
        spec_of(find_model(str(model)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"classifier.weight": torch.zeros(2, 48), "classifier.bias": torch.zeros(2)},
            r"classifier.weight is \[2, 48\]",
        ),
        ({"bert.encoder.layer.0.attention.self.layer_norm_q.weight": torch.ones(48)}, "1 unexpected .*layer_norm_q"),
        ({"bert.embeddings.position_embeddings.weight": torch.ones(512, 48)}, "1 unexpected .*position_embeddings"),
    ],
    ids=["two labels", "norms of queries and keys", "position embeddings"],
)
def test_other_tensors_are_refused(change: dict[str, torch.Tensor], told: str, model: Path, tmp_path: Path) -> None:
    """Such as those of jina-embeddings-v2-base-code's network, which has the same config."""
    other = write_jina_v1(tmp_path / "model")
    save_file(read_weights(other) | change, other / "model.safetensors")
    with pytest.raises(ModelRefusedError, match=told):
        spec_of(find_model(str(other)))


def test_bfloat16_scores_are_near(model: Path) -> None:
    np.testing.assert_allclose(logits(model, dtype="bfloat16"), logits(model), atol=0.5, rtol=0)
