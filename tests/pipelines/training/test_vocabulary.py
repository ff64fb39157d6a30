"""A pruned model reads with fewer pieces, and scores what it still reads alike as before."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from pipelines.errors import ModelRefusedError
from pipelines.training.base import EightBits, load_base, write_model
from pipelines.training.embedding import Pooling, read_embedding
from pipelines.training.vocabulary import WORD_START, chosen_pieces, count_pieces, prune

TEXTS = ["alpine apple river", "zebra river äöü", "river river"]


def plain(xlm_roberta_directory: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"):
        shutil.copy(xlm_roberta_directory / name, folder / name)
    return folder


@pytest.fixture
def pruned(xlm_roberta_directory: Path, tmp_path: Path) -> Path:
    model = plain(xlm_roberta_directory, tmp_path / "model")
    content = json.loads((model / "tokenizer.json").read_text())
    counts = count_pieces(TEXTS, Tokenizer.from_file(str(model / "tokenizer.json")))
    must = chosen_pieces(content, Counter(), len(content["model"]["vocab"]))
    short = [i for i, (piece, _) in enumerate(content["model"]["vocab"]) if len(piece.removeprefix(WORD_START)) <= 1]
    assert set(short) <= set(must)
    kept = chosen_pieces(content, counts, len(set(short) | {token["id"] for token in content["added_tokens"]}) + 3)
    prune(model, tmp_path / "pruned", kept)
    return tmp_path / "pruned"


def test_how_a_bi_encoder_pools_is_taken_along(xlm_roberta_directory: Path, tmp_path: Path) -> None:
    """Else the next command took the mean of one that wants its first token."""
    model = plain(xlm_roberta_directory, tmp_path / "model")
    types = {"": "Transformer", "1_Pooling": "Pooling"}
    chain = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in types.items()]
    (model / "modules.json").write_text(json.dumps(chain))
    (model / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "query: "}}))
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    content = json.loads((model / "tokenizer.json").read_text())
    prune(model, tmp_path / "pruned", range(len(content["model"]["vocab"])))
    found = read_embedding(tmp_path / "pruned")
    assert (found.pooling, found.query_prefix) == (Pooling.CLS, "query: ")
    assert "1_Pooling/config.json" in (tmp_path / "pruned" / "SHA256SUMS").read_text()


def test_frequent_pieces_and_single_characters_stay(pruned: Path, xlm_roberta_directory: Path) -> None:
    before = Tokenizer.from_file(str(xlm_roberta_directory / "tokenizer.json"))
    after = Tokenizer.from_file(str(pruned / "tokenizer.json"))
    assert after.get_vocab_size() < before.get_vocab_size()
    assert after.encode("river").tokens == before.encode("river").tokens
    unknown = after.token_to_id("<unk>")
    for text in ("window thunder", "äöü abc", "walnut"):
        assert "".join(after.encode(text).tokens) == "".join(before.encode(text).tokens)
        assert unknown not in after.encode(text).ids


def test_the_rows_are_those_of_the_pieces(pruned: Path, xlm_roberta_directory: Path) -> None:
    before, after = load_base(str(xlm_roberta_directory)), load_base(str(pruned))
    for piece, number in after.tokenizer.get_vocab().items():
        old = before.tokenizer.token_to_id(piece)
        torch.testing.assert_close(
            after.encoder.word_embeddings.weight[number], before.encoder.word_embeddings.weight[old]
        )
    assert after.layout.start == after.tokenizer.token_to_id("<s>")
    assert after.encoder.shape.vocab_size == len(after.encoder.word_embeddings.weight)


def test_a_wordpiece_vocabulary_gives_up_what_is_never_used(bert_directory: Path, tmp_path: Path) -> None:
    before = Tokenizer.from_file(str(bert_directory / "tokenizer.json"))
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}
    unused = {piece for piece in before.get_vocab() if piece.startswith("z")}
    assert unused
    kept = sorted(number for piece, number in before.get_vocab().items() if piece not in unused)
    prune(bert_directory, tmp_path / "pruned", kept)
    after = Tokenizer.from_file(str(tmp_path / "pruned" / "tokenizer.json"))
    assert set(after.get_vocab()) == set(before.get_vocab()) - unused >= special
    pair = "alpine apple river", "bread bridge"
    assert after.encode(*pair).tokens == before.encode(*pair).tokens
    base, old = load_base(str(tmp_path / "pruned")), load_base(str(bert_directory))
    assert base.encoder.shape.vocab_size == len(kept)
    for piece, number in after.get_vocab().items():
        row = old.encoder.word_embeddings.weight[before.token_to_id(piece)]
        torch.testing.assert_close(base.encoder.word_embeddings.weight[number], row)


def test_a_vocabulary_of_another_kind_is_refused() -> None:
    with pytest.raises(ModelRefusedError, match="of type 'BPE'; only Unigram and WordPiece"):
        chosen_pieces({"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}, Counter(), 5)
    gaps = {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}, "added_tokens": []}
    with pytest.raises(ModelRefusedError, match="have gaps"):
        chosen_pieces(gaps, Counter(), 5)


def test_layers_can_be_left_out(xlm_roberta_directory: Path, tmp_path: Path) -> None:
    rows = range(len(json.loads((xlm_roberta_directory / "tokenizer.json").read_text())["model"]["vocab"]))
    prune(xlm_roberta_directory, tmp_path / "shallow", rows, layers=[1])
    before, after = (
        load_file(folder / "model.safetensors") for folder in (xlm_roberta_directory, tmp_path / "shallow")
    )
    assert load_base(str(tmp_path / "shallow")).spec.shape.num_hidden_layers == 1
    name = "roberta.encoder.layer.{}.output.dense.weight"
    torch.testing.assert_close(after[name.format(0)], before[name.format(1)])


def test_rows_in_8_bits_are_restored(bert_directory: Path, tmp_path: Path) -> None:
    base = load_base(str(bert_directory))
    write_model(base.encoder, base, tmp_path / "small", eight_bits=EightBits.MATRICES)
    prune(tmp_path / "small", tmp_path / "pruned", range(base.encoder.shape.vocab_size))
    before, after = (load_base(str(tmp_path / name)).encoder.state_dict() for name in ("small", "pruned"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("kept", "layers", "message"),
    [
        (range(5000), None, "the ids that stay are 0 to 4999; the vocabulary has 0 to"),
        ([0, 1, 1], None, "are not different whole numbers in rising order"),
        (["a"], None, "are not different whole numbers in rising order"),
        ([50], None, r"the token '\[PAD\]' \(0\) has to stay"),
        (None, [0, 7], r"layers are \[0, 7\]; give different ones in rising order, of 0 to 2"),
        (None, [1, 1], "give different ones in rising order"),
        (None, [-1], "give different ones in rising order"),
    ],
    ids=str,
)
def test_what_the_model_has_not_or_needs_is_refused(
    bert_directory: Path, tmp_path: Path, kept: Sequence[int] | None, layers: list[int] | None, message: str
) -> None:
    everything = range(load_base(str(bert_directory)).encoder.shape.vocab_size)
    with pytest.raises(ValueError, match=message):
        prune(bert_directory, tmp_path / "pruned", everything if kept is None else kept, layers)
    assert not (tmp_path / "pruned").exists()


def test_bytes_that_stand_for_characters_stay() -> None:
    vocabulary = [["<unk>", 0.0], ["<0xE2>", 0.0], ["▁word", 0.0]]
    tokenizer = {"model": {"type": "Unigram", "vocab": vocabulary}, "added_tokens": []}
    assert chosen_pieces(tokenizer, Counter(), 2) == [1]


@pytest.mark.parametrize(
    ("own_share", "kept"), [(0.0, ["▁seen", "▁often"]), (0.5, ["▁often", "▁usual"]), (1.0, ["▁usual", "▁known"])]
)
def test_what_the_vocabulary_knows_of_itself_counts_as_far_as_it_may(own_share: float, kept: list[str]) -> None:
    """Of a language that the texts hardly know, it knows which pieces are frequent."""
    vocabulary = [["<unk>", 0.0], ["▁usual", -1.0], ["▁known", -2.0], ["▁seen", -9.0], ["▁often", -3.0]]
    tokenizer = {"model": {"type": "Unigram", "vocab": vocabulary}, "added_tokens": [{"id": 0}]}
    found = chosen_pieces(tokenizer, Counter({0: 100, 3: 5, 4: 7}), 3, own_share)
    assert {vocabulary[i][0] for i in found} == {"<unk>", *kept}


def test_a_vocabulary_without_probabilities_has_no_share() -> None:
    word_piece = {"model": {"type": "WordPiece", "vocab": {"one": 0, "two": 1}}, "added_tokens": []}
    assert chosen_pieces(word_piece, Counter({1: 1}), 1) == [1]
    with pytest.raises(ModelRefusedError, match="no probabilities of its own; leave --own-share out"):
        chosen_pieces(word_piece, Counter({1: 1}), 1, own_share=0.5)


def test_too_few_rows_are_refused(xlm_roberta_directory: Path) -> None:
    content = json.loads((xlm_roberta_directory / "tokenizer.json").read_text())
    with pytest.raises(ValueError, match="or bytes; 5 rows do not hold them"):
        chosen_pieces(content, Counter(), 5)
