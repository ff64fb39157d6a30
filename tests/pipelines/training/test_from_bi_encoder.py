"""A cross-encoder made of a bi-encoder reads its two texts apart, and its score follows their similarity."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from pipelines.errors import ModelRefusedError
from pipelines.families.int8_rows import in_8_bits
from pipelines.reranker import Reranker
from pipelines.training import export, from_bi_encoder, vocabulary
from pipelines.training.base import EightBits, load_base, write_model
from pipelines.training.dense import DenseEncoder
from pipelines.training.from_bi_encoder import convert, sample, with_berts_pairs
from pipelines.training.loop import Trainer
from pipelines.training.recipe import Recipe
from pipelines.training.similarity import best_of_lower_rank, exact_in_8_bits
from pipelines.training.token_lists import TokenList, TokenLists
from tests.checkpoints import HEADS, WIDTH, copy_model, edit_config, words

QUERIES = [words(5, seed=seed) for seed in range(6)]
PASSAGES = [words(4 + seed, seed=100 + seed) for seed in range(16)]
SAMPLE = [words(3 + seed % 20, seed=seed) for seed in range(200)]


@pytest.fixture(scope="module")
def bi_encoder(bert_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without its head, and without positions: random ones would say more than the words."""
    directory = copy_model(bert_directory, tmp_path_factory.mktemp("bi") / "encoder")
    tensors = load_file(directory / "model.safetensors")
    plain = {name: tensor for name, tensor in tensors.items() if not name.startswith(("bert.pooler.", "classifier."))}
    plain["bert.embeddings.position_embeddings.weight"].zero_()
    save_file(plain, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def made(bi_encoder: Path) -> Path:
    convert(bi_encoder, bi_encoder.parent / "cross", SAMPLE, exact_matches=False)
    return bi_encoder.parent / "cross"


def test_it_reads_what_the_bi_encoder_reads(bi_encoder: Path, tmp_path: Path) -> None:
    """tokenizer_config.json may change what tokenizer.json says."""
    directory = copy_model(bi_encoder, tmp_path / "bi")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    tokenizer["normalizer"] |= {"strip_accents": None, "lowercase": False}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(directory, tmp_path / "cross", SAMPLE, exact_matches=False)
    expected = AutoTokenizer.from_pretrained(directory)("Alpine ZEBRA")["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "cross")("Alpine ZEBRA")["input_ids"] == expected
    assert load_base(str(tmp_path / "cross")).tokenizer.encode("Alpine ZEBRA").ids == expected


def model_inputs(reranker: Reranker, query: str, passage: str) -> dict[str, torch.Tensor]:
    """A pair as transformers takes it."""
    [query_ids], [passage_ids] = reranker.tokenizer.query_ids([query]), reranker.tokenizer.passage_ids([passage])
    pair = reranker.tokenizer.template.join(query_ids, passage_ids)
    assert pair.token_type_ids is not None
    return {"input_ids": torch.tensor(pair.input_ids[None]), "token_type_ids": torch.tensor(pair.token_type_ids[None])}


def logits(reranker: Reranker, query: str, passages: list[str]) -> np.ndarray:
    [query_ids] = reranker.tokenizer.query_ids([query])
    join = reranker.tokenizer.template.join
    pairs = [join(query_ids, passage_ids) for passage_ids in reranker.tokenizer.passage_ids(passages)]
    return np.asarray(reranker.engine.logits(pairs))


def test_each_text_is_read_as_if_it_were_alone(bi_encoder: Path, made: Path) -> None:
    reranker = Reranker.load(str(made), device="cpu")
    cross, alone = (AutoModel.from_pretrained(name, dtype=torch.float32).eval() for name in (made, bi_encoder))
    inputs = model_inputs(reranker, QUERIES[0], PASSAGES[9])
    ends = [int((inputs["token_type_ids"][0] == 0).sum()), inputs["input_ids"].shape[1]]
    first = inputs["input_ids"][:, :1]
    with torch.inference_mode():
        hidden = cross(**inputs, output_hidden_states=True).hidden_states[-3][0, :, :WIDTH]
        query = alone(input_ids=inputs["input_ids"][:, : ends[0]]).last_hidden_state[0]
        passage = alone(input_ids=torch.cat([first, inputs["input_ids"][:, ends[0] :]], 1)).last_hidden_state[0, 1:]
    similar = torch.nn.functional.cosine_similarity(hidden, torch.cat([query, passage]))
    assert similar.min() > 0.93  # two of the eight dimensions of each head are given up
    assert similar.mean() > 0.97


def test_the_score_follows_the_similarity(bi_encoder: Path, made: Path) -> None:
    reranker, encoder = Reranker.load(str(made), device="cpu"), DenseEncoder(bi_encoder)
    mean = encoder.encode(SAMPLE).mean(0)
    passages = encoder.encode(PASSAGES) - mean
    correlations = []
    for query in QUERIES:
        similarity = passages @ (encoder.encode([query])[0] - mean) / np.linalg.norm(passages, axis=1)
        correlations.append(np.corrcoef(logits(reranker, query, PASSAGES), similarity)[0, 1])
    assert np.mean(correlations) > 0.88  # as far as heads of six dimensions know what those of eight said


def test_it_is_an_ordinary_bert_in_which_every_weight_can_be_trained(made: Path) -> None:
    reranker = Reranker.load(str(made), device="cpu")
    theirs = AutoModelForSequenceClassification.from_pretrained(made, dtype=torch.float32).eval()
    for query, passage in zip(QUERIES, PASSAGES, strict=False):
        with torch.inference_mode():
            expected = theirs(**model_inputs(reranker, query, passage)).logits.item()
        assert logits(reranker, query, [passage])[0] == pytest.approx(expected, abs=1e-3)
    base = load_base(str(made))
    assert base.has_head
    assert base.encoder.shape.num_attention_heads == HEADS + 1
    assert all(parameter.isfinite().all() for parameter in base.encoder.parameters())


def test_transformers_tokenizer_tells_the_two_texts_apart(made: Path) -> None:
    """Without segments all is one text, and every pair has nearly the same score."""
    tokenizer = AutoTokenizer.from_pretrained(made)
    theirs = AutoModelForSequenceClassification.from_pretrained(made, dtype=torch.float32).eval()
    with torch.inference_mode():
        found = theirs(**tokenizer([QUERIES[0]] * 8, PASSAGES[:8], padding=True, return_tensors="pt")).logits[:, 0]
    assert found.numpy() == pytest.approx(
        logits(Reranker.load(str(made), device="cpu"), QUERIES[0], PASSAGES[:8]), abs=1e-3
    )
    assert tokenizer.model_max_length == 512


def test_marks_are_exact_in_half_precision_too(made: Path) -> None:
    """Where a logit differed by a hundredth of the penalty, nothing would be left of the order."""
    whole, half = (Reranker.load(str(made), device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    for query in QUERIES:
        assert np.corrcoef(logits(whole, query, PASSAGES), logits(half, query, PASSAGES))[0, 1] > 0.99


def test_in_8_bits_the_order_stays(made: Path, tmp_path: Path) -> None:
    base = load_base(str(made))
    write_model(base.encoder, base, tmp_path / "small", eight_bits=EightBits.MATRICES)
    whole, small = (Reranker.load(str(name), device="cpu") for name in (made, tmp_path / "small"))
    for query in QUERIES:
        assert np.corrcoef(logits(whole, query, PASSAGES), logits(small, query, PASSAGES))[0, 1] > 0.99
    stored = load_file(tmp_path / "small" / "model.safetensors")
    whole_matrices = {name for name, tensor in stored.items() if tensor.dim() == 2 and tensor.dtype != torch.int8}
    embeddings = {f"bert.embeddings.{name}_embeddings.weight" for name in ("position", "token_type")}
    assert whole_matrices == embeddings | {"classifier.weight"}


def test_in_8_bits_may_be_the_embeddings_of_words_alone(made: Path, tmp_path: Path) -> None:
    base = load_base(str(made))
    write_model(base.encoder, base, tmp_path / "small", eight_bits=EightBits.EMBEDDINGS)
    stored = load_file(tmp_path / "small" / "model.safetensors")
    rows = "bert.embeddings.word_embeddings.weight"
    assert [name for name, tensor in stored.items() if tensor.dtype == torch.int8] == [rows]
    restored = load_base(str(tmp_path / "small")).encoder.state_dict()
    for name, tensor in base.encoder.state_dict().items():
        step = stored[f"{rows}.row_scales"].max() if name == "word_embeddings.weight" else 2**-11 * tensor.abs().max()
        assert (restored[name] - tensor).abs().max() <= step


def test_the_first_tokens_mark_cancels_that_of_its_segment_in_8_bits_too() -> None:
    for wanted, largest in ((0.0211, 1.06), (0.3, 0.2), (0.001, 5.0)):
        mark, new_largest = exact_in_8_bits(wanted, largest)
        assert torch.tensor(mark).bfloat16().item() == mark
        assert new_largest == pytest.approx(largest, rel=0.01)
        [row], [scale] = in_8_bits(torch.tensor([[new_largest, 0.01, -mark]]))
        assert row[2].item() * scale.item() == pytest.approx(-mark, rel=1e-6)


@pytest.mark.parametrize(("keeps_zeros", "least", "most"), [(True, 0.98, 1), (False, -1, 0.5)])
def test_a_step_of_training_leaves_the_order_if_zeros_are_kept(
    made: Path, keeps_zeros: bool, least: float, most: float
) -> None:
    """A step of Adam moves every weight by the rate, all in one direction."""
    reranker = Reranker.load(str(made), device="cpu")
    before = logits(reranker, QUERIES[0], PASSAGES)
    theirs = AutoModelForSequenceClassification.from_pretrained(made, dtype=torch.float32).eval()
    found = torch.stack([theirs(**model_inputs(reranker, QUERIES[0], passage)).logits[0, 0] for passage in PASSAGES])
    (-torch.log_softmax(found, 0)[3]).backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.grad is not None:
                stays = (parameter == 0) & keeps_zeros
                parameter.sub_(2e-5 * parameter.grad.sign().masked_fill(stays, 0))
        after = [theirs(**model_inputs(reranker, QUERIES[0], passage)).logits.item() for passage in PASSAGES]
    assert least < np.corrcoef(before, after)[0, 1] < most


def test_training_keeps_the_zeros_and_says_so_to_the_next(made: Path, tmp_path: Path) -> None:
    base = load_base(str(made))
    recipe = base.with_kept_zeros(Recipe(steps=3, lists_per_step=2, max_lengths=(80,), learning_rate=1e-3))
    before = {name: tensor.clone() for name, tensor in base.encoder.state_dict().items()}
    rng = np.random.default_rng(0)
    texts = rng.integers(10, base.spec.vocab_size, (8, 5, 6)).tolist()
    lists = TokenLists.of([TokenList(query, passages, [1.0, 0, 0, 0], [math.nan] * 4) for query, *passages in texts])
    trainer = Trainer(base.encoder, lists, base.layout, recipe, torch.device("cpu"), in_bfloat16=False)
    assert trainer.scale_head() > 0
    assert len(list(trainer.run())) == 3
    for name, tensor in trainer.encoder.state_dict().items():
        torch.testing.assert_close(tensor[before[name] == 0], before[name][before[name] == 0], rtol=0, atol=0)
    added = before["layers.0.attention_out.weight"][:WIDTH, WIDTH:]
    assert (added.half() != 0).float().mean() > 0.9  # as a kit carries it
    assert added.abs().max() < 1e-4
    moved = trainer.encoder.layers[0].attention_out.weight != before["layers.0.attention_out.weight"]
    assert moved[:WIDTH].all()  # all that the texts can be read with, the added head among it
    assert not moved[WIDTH:].any()  # and nothing is written to the marks
    write_model(trainer.encoder, base, tmp_path / "trained")
    assert load_base(str(tmp_path / "trained")).keeps_zeros


def test_of_all_maps_of_lower_rank_those_are_taken_that_change_products_least() -> None:
    random = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.randn(500, 4, generator=random, dtype=torch.float64) * torch.tensor([3.0, 1, 1, size])
        for size in (0.01, 1)
    )
    moments = [x.T @ x / len(x) for x in (queries, keys)]
    exact = queries @ keys.T
    for rank, within in ((4, 1e-4), (3, 0.02)):  # of the fourth dimension of queries, nothing is seen
        to_q, to_k = best_of_lower_rank(*moments, rank)
        assert to_q.shape == to_k.shape == (rank, 4)
        found = (queries @ to_q.double().T) @ (keys @ to_k.double().T).T
        assert (found - exact).square().mean().sqrt() < within * exact.square().mean().sqrt()


def test_a_tokenizer_with_other_special_tokens_joins_pairs_as_berts_does(xlm_roberta_directory: Path) -> None:
    before = Tokenizer.from_file(str(xlm_roberta_directory / "tokenizer.json"))
    content = json.loads(before.to_str())
    after = Tokenizer.from_str(json.dumps(with_berts_pairs(content, "<s>", "</s>")))
    start, end = before.token_to_id("<s>"), before.token_to_id("</s>")
    query, passage = (before.encode(text, add_special_tokens=False).ids for text in ("alpine apple", "river"))
    joined = after.encode("alpine apple", "river")
    assert joined.ids == [start, *query, end, *passage, end]
    assert joined.type_ids == [0] * (len(query) + 2) + [1] * (len(passage) + 1)
    assert joined.tokens[0] == "[CLS]"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 8}, "heads of 4 dimensions; 8 or more are needed"),
        ({"model_type": "xlm-roberta"}, "a model of type 'xlm-roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(
    bi_encoder: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    directory = copy_model(bi_encoder, tmp_path / "encoder")
    edit_config(directory, **changes)
    with pytest.raises(ModelRefusedError, match=message):
        convert(directory, tmp_path / "cross", SAMPLE, exact_matches=False)
    assert not (tmp_path / "cross").exists()


def test_a_cross_encoder_and_a_name_are_refused(bert_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="is a cross-encoder already"):
        convert(bert_directory, tmp_path / "cross", SAMPLE, exact_matches=False)
    with pytest.raises(ModelRefusedError, match="embedded is no directory"):
        convert(Path("embedded"), tmp_path / "cross", SAMPLE)


def test_too_few_texts_are_refused(bi_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"1 texts to measure .* give some hundreds"):
        convert(bi_encoder, tmp_path / "cross", SAMPLE[:1] * 3)


def test_texts_that_all_say_the_same_are_refused(bi_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match="all texts that were measured have the same vector"):
        convert(bi_encoder, tmp_path / "cross", ["alpine", "alpine ", " alpine"], exact_matches=False)


@pytest.mark.parametrize("changes", [{"num_attention_heads": 3}, {"position_embedding_type": "relative_key"}], ids=str)
def test_what_would_not_load_is_refused_first(bi_encoder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = copy_model(bi_encoder, tmp_path / "encoder")
    edit_config(directory, **changes)
    with pytest.raises(ModelRefusedError, match=next(iter(changes))):
        convert(directory, tmp_path / "cross", SAMPLE, exact_matches=False)


def test_weights_that_are_no_numbers_are_refused(bi_encoder: Path, tmp_path: Path) -> None:
    directory = copy_model(bi_encoder, tmp_path / "encoder")
    tensors = load_file(directory / "model.safetensors")
    tensors["bert.encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelRefusedError, match=r"encoder\.layer\.1\.output\.dense\.bias has values that are no finite"
    ):
        convert(directory, tmp_path / "cross", SAMPLE, exact_matches=False)


def test_a_file_without_texts_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": [1], "positive": ["one"]}), tmp_path / "numbers.parquet")
    (tmp_path / "junk.parquet").write_bytes(b"no Parquet")
    with pytest.raises(ValueError, match=r"numbers\.parquet has not the columns query and positive with texts"):
        sample([str(tmp_path / "numbers.parquet")], 4)
    with pytest.raises(ValueError, match=r"junk\.parquet cannot be read"):
        sample([str(tmp_path / "junk.parquet")], 4)


def test_texts_are_drawn_from_every_file(tmp_path: Path) -> None:
    for name, rows in (("large", 500), ("small", 4)):
        texts = [f"{name} {i}" for i in range(rows)]
        pq.write_table(pa.table({"query": texts, "positive": texts}), tmp_path / f"{name}.parquet")
    drawn = sample([str(tmp_path / "*.parquet")], 40)
    assert [sum(text.startswith(name) for text in drawn) for name in ("large", "small")] == [20, 8]
    with pytest.raises(FileNotFoundError, match="no file matches"):
        sample([str(tmp_path / "none*")], 40)


def test_a_directory_that_is_there_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the bi-encoder nor the texts of this command line exist, and the output is what it complains of."""
    arguments = [str(tmp_path / "absent"), str(tmp_path), "--texts", str(tmp_path / "*.parquet")]
    for main in (from_bi_encoder.main, vocabulary.main):
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert f"{tmp_path} is there already" in capsys.readouterr().err
    with pytest.raises(FileExistsError, match="is there already"):
        convert(tmp_path / "absent", tmp_path, SAMPLE)
    with pytest.raises(FileExistsError, match="is there already"):
        export.export(tmp_path / "absent", ["absent"], "absent", tmp_path)
