"""The head for exact matches: what stands in its coordinates is what BM25 would count, and nothing else changes."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModel, AutoModelForSequenceClassification

from pipelines.errors import ConfigError, ModelRefusedError
from pipelines.training.base import EightBits, load_base, write_model
from pipelines.training.exact_match import FOUND, Words, distinct_codes, words_of
from pipelines.training.from_bi_encoder import convert
from pipelines.training.similarity import MARK
from tests.checkpoints import WORDS
from tests.pipelines.training.exact_matches import (
    DEPTH,
    PASSAGES,
    SAMPLE,
    WIDTH,
    expected_total,
    logits,
    pair_of,
    save,
    tokenizer_of,
    write_bi_encoder,
)


@pytest.fixture(scope="module")
def bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bi_encoder(tmp_path_factory.mktemp("bi") / "encoder")


@pytest.fixture(scope="module")
def made(bi_encoder: Path) -> Path:
    convert(bi_encoder, bi_encoder.parent / "cross", SAMPLE)
    return bi_encoder.parent / "cross"


@pytest.fixture(scope="module")
def known(bi_encoder: Path) -> Words:
    tokenizer = tokenizer_of(bi_encoder)
    return words_of(tokenizer, SAMPLE, 26, tokenizer.get_vocab_size())


def hidden_states(directory: Path, passage: str) -> list[torch.Tensor]:
    """The vectors of each layer, and before them those of the embeddings: [tokens, W] each."""
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    inputs = pair_of(tokenizer_of(directory), passage)
    with torch.inference_mode():
        return [one[0] for one in model(**inputs, output_hidden_states=True).hidden_states]


@pytest.mark.parametrize("passage", PASSAGES)
def test_the_first_token_holds_what_part_of_the_query_is_matched(made: Path, known: Words, passage: str) -> None:
    tokenizer = tokenizer_of(made)
    for layer, states in enumerate(hidden_states(made, passage)[3 : DEPTH + 1]):
        total, opposite = states[0, -2:].tolist()
        assert total == pytest.approx(expected_total(known, tokenizer, passage), abs=0.1), layer
        assert opposite == pytest.approx(-total, abs=0.02)


def test_a_word_counts_alike_wherever_it_stands(tmp_path: Path) -> None:
    """The norm of the embeddings makes codes smaller where a position's embedding is large, as in trained models."""
    directory = write_bi_encoder(tmp_path / "encoder")
    tensors = load_file(directory / "model.safetensors")
    tensors["bert.embeddings.position_embeddings.weight"][:4] *= 12
    save(tensors, directory)
    convert(directory, tmp_path / "cross", SAMPLE)
    once = 1 / (1 + math.exp(-FOUND))
    for passage in ("zebra candle alpine falcon", "bread bridge carbon falcon candle zebra alpine"):
        matches = hidden_states(tmp_path / "cross", passage)[1][1:5, -4]
        assert matches.tolist() == pytest.approx([once * MARK] * 4, abs=0.06)


def test_no_other_token_holds_it(made: Path) -> None:
    """What leaked there would grow from layer to layer."""
    for states in hidden_states(made, PASSAGES[4])[1 : DEPTH + 1]:
        assert states[1:, -2:].abs().max() < 1e-3


def test_the_vectors_are_those_without_it(bi_encoder: Path, made: Path, tmp_path: Path) -> None:
    convert(bi_encoder, tmp_path / "plain", SAMPLE, exact_matches=False)
    for ours, theirs in zip(*(hidden_states(one, PASSAGES[5]) for one in (made, tmp_path / "plain")), strict=True):
        similar = torch.nn.functional.cosine_similarity(ours[:, :WIDTH], theirs[:, :WIDTH])
        assert similar.min() > 0.98


def test_a_passage_with_the_words_of_the_query_comes_first(made: Path) -> None:
    assert logits(made).argmax() == 4
    repeated = [" ".join(some) for some in itertools.permutations(["alpine", "candle", "zebra", "bread"])]
    without_one = [one.replace("zebra", "marble") for one in repeated]
    assert logits(made, repeated).min() > logits(made, without_one).max()


def test_its_weight_is_that_of_the_words_in_the_logit(bi_encoder: Path, tmp_path: Path) -> None:
    for weight in (0, 10, 30):
        convert(bi_encoder, tmp_path / str(weight), SAMPLE, weight=weight)
    none, some, much = (logits(tmp_path / name) for name in ("0", "10", "30"))
    assert much - none == pytest.approx(3 * (some - none), abs=1e-3)
    assert np.ptp(some - none) > 0.1
    convert(bi_encoder, tmp_path / "alone", SAMPLE, exact_matches=False)
    assert np.corrcoef(none, logits(tmp_path / "alone"))[0, 1] > 0.95


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_no_number_from_0_on_is_refused(bi_encoder: Path, tmp_path: Path, weight: float) -> None:
    with pytest.raises(ConfigError, match=f"the weight is {weight}"):
        convert(bi_encoder, tmp_path / "cross", SAMPLE, weight=weight)


def test_half_precision_and_8_bits_keep_the_order(made: Path, tmp_path: Path) -> None:
    base = load_base(str(made))
    write_model(base.encoder, base, tmp_path / "small", eight_bits=EightBits.MATRICES)
    whole = logits(made)
    for directory, dtype in ((made, "bfloat16"), (made, "float16"), (tmp_path / "small", "float32")):
        assert np.corrcoef(logits(directory, dtype=dtype), whole)[0, 1] > 0.99


def test_words_that_differ_by_case_ending_or_place_share_a_code() -> None:
    pieces = ["<s>", "</s>", "▁Apples", "▁apple", "apple", "▁pear", "▁яблоко", "▁Яблоко", "▁42"]
    tokenizer = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    codes = words_of(tokenizer, ["apple"], 26, 12).codes_VK
    assert codes.shape == (12, 26)
    assert (codes[[0, 1, 9, 10, 11]] == 0).all()
    assert (codes[2:9].sum(1) == 0).all()
    groups = [{tuple(codes[i].tolist()) for i in some} for some in ([2, 3, 4], [5], [6, 7], [8])]
    assert [len(one) for one in groups] == [1] * 4
    assert len(set.union(*groups)) == 4


@pytest.mark.parametrize(("count", "width"), [(48_620, 18), (60_000, 26)])
def test_no_two_words_share_a_code(count: int, width: int) -> None:
    codes = distinct_codes(count, width)
    assert codes.shape == (count, width)
    assert len(np.unique(codes, axis=0)) == count
    assert (codes.sum(1) == 0).all()
    assert (np.abs(codes) == 1).all()


def test_more_words_than_codes_are_refused() -> None:
    with pytest.raises(ModelRefusedError, match="48,621 words, and 18 coordinates tell 48,620 apart"):
        distinct_codes(48_621, 18)


def test_added_tokens_are_words_and_what_is_unknown_is_none() -> None:
    tokenizer = Tokenizer(WordPiece({"[UNK]": 0, "apple": 1, "pear": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_tokens(["qq7"])
    known = words_of(tokenizer, ["apple qq7 ?", "apple pear"], 26, 6)
    assert (known.codes_VK[[0, 4, 5]] == 0).all()
    assert len(np.unique(known.codes_VK[1:4].numpy(), axis=0)) == 3
    assert known.importance_V[3] > known.importance_V[1]


def test_a_model_with_more_rows_than_pieces_is_taken(bi_encoder: Path, tmp_path: Path) -> None:
    """As multilingual-e5-small has."""
    shutil.copytree(bi_encoder, tmp_path / "bi")
    tensors = load_file(tmp_path / "bi" / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    tensors[name] = torch.cat([tensors[name], torch.randn(7, WIDTH)])
    save(tensors, tmp_path / "bi")
    config = json.loads((tmp_path / "bi" / "config.json").read_text())
    (tmp_path / "bi" / "config.json").write_text(json.dumps(config | {"vocab_size": len(tensors[name])}))
    convert(tmp_path / "bi", tmp_path / "cross", SAMPLE)
    assert logits(tmp_path / "cross").argmax() == 4


def test_rare_words_are_important(known: Words, bi_encoder: Path) -> None:
    tokenizer = tokenizer_of(bi_encoder)
    frequent, usual, absent, special = (
        float(known.importance_V[tokenizer.token_to_id(piece)]) for piece in ("apple", WORDS[9], "{", "[SEP]")
    )
    assert special == -1
    assert -1 < frequent < usual < absent == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4}, "heads of 16 dimensions; codes of words need 22"),
        ({"num_hidden_layers": 2}, "2 layers; the head for exact matches needs 3"),
    ],
    ids=str,
)
def test_what_has_no_room_for_it_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    directory = write_bi_encoder(tmp_path / "encoder", **changes)
    with pytest.raises(ModelRefusedError, match=message):
        convert(directory, tmp_path / "cross", SAMPLE)


def test_a_step_of_training_leaves_the_order(made: Path) -> None:
    """A step of Adam moves every weight by the rate, all in one direction; zeros are kept."""
    before = logits(made)
    model = AutoModelForSequenceClassification.from_pretrained(made, dtype=torch.float32).eval()
    tokenizer = tokenizer_of(made)
    found = torch.stack([model(**pair_of(tokenizer, passage)).logits[0, 0] for passage in PASSAGES])
    (-torch.log_softmax(found, 0)[1]).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(2e-5 * parameter.grad.sign().masked_fill(parameter == 0, 0))
        after = [model(**pair_of(tokenizer, passage)).logits.item() for passage in PASSAGES]
    assert np.corrcoef(before, after)[0, 1] > 0.98
