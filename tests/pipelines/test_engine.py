"""The engine gives the logits of the reference implementations, and each pair its own whatever shares its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.encoder import PackedEncoder
from pipelines.engine import CrossEncoder
from pipelines.packing import PackedBatch, TokenPair
from pipelines.reranker import Reranker
from tests.checkpoints import copy_model, shard_weights, words
from tests.pipelines.references import TextPair, TransformersReference, jina_v2_logits

TOLERANCE = 1e-4

PAIRS: list[TextPair] = [
    *((words(3 + i % 5, seed=i), words(1 + 7 * i, seed=100 + i)) for i in range(17)),
    ("", ""),
    ("", "apple"),
    ("apple", ""),
    (" \t\n ", "\n"),
    ("UPPER lower MiXeD", "apple, bread; candle! (desert)"),
    ("ä ö ü ß é", "straße naïve ﬁne ½"),
    ("中文 日本語 한국어", "नमस्ते 🙂 \u200b שלום"),
    ("</s>", "apple </s> bread"),
    ("<pad> apple", "bread<pad><pad>candle <pad>"),
    ("<s> apple </s></s> bread", "<unk> <mask> apple"),
    ("[SEP] apple", "bread [SEP] candle [CLS] desert[PAD]"),
    ("[MASK] [UNK]", "[PAD] [PAD] apple"),
]
"""Texts of many lengths, of no length, of unknown letters, and with every special token spelled out."""


def token_pairs(reranker: Reranker, pairs: Sequence[TextPair]) -> list[TokenPair]:
    """Uncut pairs of ids."""
    ids = reranker.tokenizer.token_ids([text for pair in pairs for text in pair])
    return [reranker.tokenizer.template.join(*both) for both in zip(ids[::2], ids[1::2], strict=True)]


def logits(reranker: Reranker, pairs: Sequence[TextPair]) -> np.ndarray:
    return reranker.engine.logits(token_pairs(reranker, pairs))


@pytest.mark.parametrize("family", ["bert", "xlm_roberta", "mmarco", "modernbert"])
@pytest.mark.parametrize("batch_size", [1, len(PAIRS)], ids=["alone", "padded"])
def test_logits_are_those_of_transformers(family: str, batch_size: int, request: pytest.FixtureRequest) -> None:
    reference = TransformersReference(request.getfixturevalue(f"{family}_directory"))

    actual = logits(request.getfixturevalue(family), PAIRS)

    np.testing.assert_allclose(actual, reference.logits(PAIRS, batch_size), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("batch_size", [1, len(PAIRS)], ids=["alone", "padded"])
def test_logits_are_those_of_jinas_published_maths(jina_v2: Reranker, jina_v2_directory: Path, batch_size: int) -> None:
    sequences = [pair.input_ids for pair in token_pairs(jina_v2, PAIRS)]
    batches = [sequences[i : i + batch_size] for i in range(0, len(sequences), batch_size)]

    expected = np.concatenate([jina_v2_logits(jina_v2_directory, batch) for batch in batches])

    np.testing.assert_allclose(logits(jina_v2, PAIRS), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("mistake", [{"swap_qk": True}, {"layer_norm_eps": 1e-12}], ids=["q and k swapped", "eps"])
def test_the_comparison_with_jinas_maths_notices_a_mistake(
    jina_v2: Reranker, jina_v2_directory: Path, mistake: dict[str, float]
) -> None:
    sequences = [pair.input_ids for pair in token_pairs(jina_v2, PAIRS)]

    wrong = jina_v2_logits(jina_v2_directory, sequences, **mistake)

    assert np.abs(logits(jina_v2, PAIRS) - wrong).max() > 10 * TOLERANCE


def test_different_pairs_have_different_logits(reranker: Reranker) -> None:
    """Otherwise every comparison here would prove nothing."""
    assert logits(reranker, PAIRS[:17]).std() > 0.3


@pytest.fixture(scope="module")
def alone(reranker: Reranker) -> tuple[CrossEncoder, list[TokenPair], np.ndarray]:
    """An engine, pairs, and the logit of each pair when it goes through by itself."""
    pairs = token_pairs(reranker, PAIRS)
    return reranker.engine, pairs, np.concatenate([reranker.engine.logits([pair]) for pair in pairs])


@given(
    chosen=st.lists(st.integers(0, len(PAIRS) - 1), max_size=2 * len(PAIRS)),
    max_batch_tokens=st.integers(1, 700),
)
@settings(max_examples=40)
def test_a_pair_scores_the_same_alone_and_in_any_batch(
    alone: tuple[CrossEncoder, list[TokenPair], np.ndarray], chosen: list[int], max_batch_tokens: int
) -> None:
    """Any company, any order, doubles included, any token budget."""
    engine, pairs, expected = alone

    actual = CrossEncoder(engine.encoder, engine.spec, max_batch_tokens).logits([pairs[i] for i in chosen])

    np.testing.assert_allclose(actual, expected[chosen], atol=TOLERANCE, rtol=0)


@given(copies=st.integers(2, 40), others=st.integers(0, 10))
@settings(max_examples=20)
def test_equal_pairs_have_exactly_equal_logits(reranker: Reranker, copies: int, others: int) -> None:
    """Not within a tolerance: copies of a document must tie."""
    company = [(words(3), words(5, seed=i)) for i in range(others)]

    actual = logits(reranker, [*company, *[("apple", words(5))] * copies])

    assert len(set(actual[others:].tolist())) == 1


def test_pairs_that_differ_in_segments_alone_are_different_pairs(bert: Reranker) -> None:
    """A literal separator can move the border between query and document."""
    early, late = token_pairs(bert, [("apple", "bread [SEP] candle"), ("apple [SEP] bread", "candle")])

    assert list(early.input_ids) == list(late.input_ids)
    both = bert.engine.logits([early, late])
    assert both[0] != pytest.approx(both[1], abs=TOLERANCE)


def test_no_pairs_have_no_logits(bert: Reranker) -> None:
    assert bert.engine.logits([]).shape == (0,)


def test_a_sharded_checkpoint_scores_as_the_whole_one(
    xlm_roberta: Reranker, xlm_roberta_directory: Path, tmp_path: Path
) -> None:
    directory = shard_weights(copy_model(xlm_roberta_directory, tmp_path / "sharded"))

    sharded = Reranker.load(str(directory), device="cpu")

    np.testing.assert_array_equal(logits(sharded, PAIRS), logits(xlm_roberta, PAIRS))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_moves_logits_a_little(bert: Reranker, bert_directory: Path, dtype: str) -> None:
    half = Reranker.load(str(bert_directory), device="cpu", dtype=dtype)

    difference = np.abs(logits(half, PAIRS) - logits(bert, PAIRS))

    assert 0 < difference.max() < 0.5


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float16", 0.05)])
def test_a_gpu_gives_the_logits_of_a_cpu(reranker: Reranker, dtype: str, tolerance: float, cuda: str) -> None:
    on_gpu = Reranker.load(str(reranker.files.directory), device=cuda, dtype=dtype)

    np.testing.assert_allclose(logits(on_gpu, PAIRS), logits(reranker, PAIRS), atol=tolerance, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.01), ("bfloat16", 0.1)])
def test_on_a_gpu_a_pair_scores_alike_alone_and_in_company(
    reranker: Reranker, dtype: str, tolerance: float, cuda: str
) -> None:
    """Half precision rounds by a row's place; it must not do more than that."""
    on_gpu = Reranker.load(str(reranker.files.directory), device=cuda, dtype=dtype)
    alone = np.concatenate([logits(on_gpu, [pair]) for pair in PAIRS])

    np.testing.assert_allclose(logits(on_gpu, PAIRS), alone, atol=tolerance, rtol=0)


@pytest.mark.gpu
def test_a_gpu_that_runs_out_of_memory_is_given_less_at_once(bert: Reranker, cuda: str) -> None:
    """Real memory: a budget of a million tokens, and half a GiB to run them in."""
    texts = [(words(3, seed=i), words(400, seed=i)) for i in range(2_000)]
    on_gpu = Reranker.load(str(bert.files.directory), device=cuda, dtype="float32", max_batch_tokens=1_000_000)
    expected = logits(on_gpu, texts[:20])
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((512 << 20) / torch.cuda.get_device_properties(0).total_memory)
    try:
        actual = logits(on_gpu, texts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert on_gpu.engine.max_batch_tokens < 1_000_000
    np.testing.assert_allclose(actual[:20], expected, atol=1e-3, rtol=0)


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def full_cpu() -> None:
    """What torch really raises: a plain RuntimeError."""
    torch.empty(2**55)


class SmallMemory(torch.nn.Module):
    """An encoder on a device that has room for so many tokens at once."""

    def __init__(self, encoder: PackedEncoder, tokens: int, fail: Callable[[], None] = full_gpu) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokens = tokens
        self.fail = fail
        self.passes: list[int] = []

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        self.passes.append(len(batch.input_ids))
        if len(batch.input_ids) > self.tokens:
            self.fail()
        return self.encoder(batch)  # type: ignore[no-any-return]


@pytest.mark.parametrize("fail", [full_gpu, full_cpu])
def test_a_batch_too_large_for_memory_is_halved_and_the_budget_stays_smaller(
    bert: Reranker, fail: Callable[[], None]
) -> None:
    """The next call does not try the large batch again."""
    pairs = token_pairs(bert, PAIRS)
    longest = max(len(pair.input_ids) for pair in pairs)
    small = SmallMemory(bert.engine.encoder, longest, fail)
    engine = CrossEncoder(small, bert.engine.spec, max_batch_tokens=100 * longest)  # type: ignore[arg-type]

    np.testing.assert_allclose(engine.logits(pairs), bert.engine.logits(pairs), atol=TOLERANCE, rtol=0)
    assert max(small.passes) > longest >= engine.max_batch_tokens
    small.passes.clear()
    engine.logits(pairs)
    assert max(small.passes) == longest


def test_a_pair_too_large_for_memory_is_an_error(bert: Reranker) -> None:
    """There is nothing left to halve."""
    engine = CrossEncoder(SmallMemory(bert.engine.encoder, 3), bert.engine.spec)  # type: ignore[arg-type]

    with pytest.raises(torch.OutOfMemoryError):
        engine.logits(token_pairs(bert, PAIRS))
