"""Models that somebody made wrong, by mistake or on purpose: refused at load, by file and field, and never a hang."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.fingerprint import planned_fingerprint
from pipelines.reranker import Reranker
from tests.checkpoints import Tensors, copy_model, read_weights, shard_weights, write_weights

Damage = Callable[[Path], object]

INDEX = "model.safetensors.index.json"
TEXTS = ("apple bread", ["river salmon", "winter \U0010ffff 漢 \u0378"])
NAN = float("nan")
DEEP = "[" * 100_000


def edit(name: str, **changes: Any) -> Damage:
    """Sets keys of a JSON file."""

    def damage(directory: Path) -> None:
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def config(**changes: Any) -> Damage:
    return edit("config.json", **changes)


def text(name: str, content: str) -> Damage:
    """Replaces a file."""
    return lambda directory: (directory / name).write_text(content)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


CONFIGS: dict[str, tuple[Damage, str]] = {
    "300,000 layers": (config(num_hidden_layers=300_000), r"num_hidden_layers is 300,000, .* has \d+ tensors"),
    "more layers than there are": (config(num_hidden_layers=4), r"of 4 layers: 16 missing"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers is 0"),
    "layers as a text": (config(num_hidden_layers="3"), "num_hidden_layers is '3'"),
    "layers as a fraction": (config(num_hidden_layers=2.5), r"num_hidden_layers is 2\.5"),
    "layers true": (config(num_hidden_layers=True), "num_hidden_layers is True"),
    "layers NaN": (config(num_hidden_layers=NAN), "num_hidden_layers is nan"),
    "layers null": (config(num_hidden_layers=None), "num_hidden_layers is None"),
    "no heads": (config(num_attention_heads=0), "num_attention_heads is 0"),
    "negative heads": (config(num_attention_heads=-4), "num_attention_heads is -4"),
    "width as a text": (config(hidden_size="32"), "hidden_size is '32'"),
    "width of 31 digits": (config(hidden_size=10**30), "hidden_size is 10000"),
    "width 10 million": (config(hidden_size=10_000_000), r"word_embeddings\.weight is .*hidden_size 10000000"),
    "vocabulary of 2 billion": (
        config(vocab_size=2_000_000_000),
        r"word_embeddings\.weight is .*vocab_size 2000000000",
    ),
    "negative feed-forward": (config(intermediate_size=-64), "intermediate_size is -64"),
    "a billion positions": (config(max_position_embeddings=10**9), "max_position_embeddings 1000000000"),
    "segments a list": (config(type_vocab_size=[]), r"type_vocab_size is \[\]"),
    "epsilon as a text": (config(layer_norm_eps="1e-12"), "layer_norm_eps is '1e-12'"),
    "epsilon NaN": (config(layer_norm_eps=NAN), "layer_norm_eps is nan"),
    "negative epsilon": (config(layer_norm_eps=-1), "layer_norm_eps is -1"),
    "activation a list": (config(hidden_act=["gelu"]), r"hidden_act is \['gelu'\]"),
    "activation very deep": (config(hidden_act=nested(400)), r"hidden_act is \[{7}\.\.\.\]"),
    "labels a number": (config(id2label=7), "id2label is 7"),
    "labels as a text": (config(num_labels="1"), "num_labels is '1'"),
    "model type a list": (config(model_type=["bert"]), r"model_type is \['bert'\]"),
    "positions an object": (config(position_embedding_type={}), r"position_embedding_type is \{\}"),
    "config very deep": (text("config.json", DEEP), r"config\.json is nested too deeply"),
    "number of 5,000 digits": (
        text("config.json", '{"hidden_size": 1%s}' % ("0" * 5_000)),
        r"config\.json is not JSON",
    ),
    "limit as a text": (edit("tokenizer_config.json", model_max_length="512"), "model_max_length is '512'"),
    "limit NaN": (edit("tokenizer_config.json", model_max_length=NAN), "model_max_length is nan"),
    "limit 0": (edit("tokenizer_config.json", model_max_length=0), "model_max_length is 0"),
    "limit very deep": (text("tokenizer_config.json", DEEP), r"tokenizer_config\.json is nested too deeply"),
}
"""By what is wrong with it: how a good BERT is damaged, and what the refusal says."""


def index(weight_map: Any) -> Damage:
    """A model in two shards with another map of them."""

    def damage(directory: Path) -> None:
        shard_weights(directory)
        (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return damage


def deep_index(directory: Path) -> None:
    shard_weights(directory)
    (directory / INDEX).write_text(DEEP)


def leave(directory: Path) -> None:
    """Puts weights where only a path that leads out of the model's directory finds them."""
    (directory / "model.safetensors").rename(directory.parent / "outside.safetensors")
    (directory / INDEX).write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))


def double(directory: Path) -> None:
    shard_weights(directory)
    save_file({"classifier.bias": torch.zeros(1)}, directory / "more.safetensors")
    index = json.loads((directory / INDEX).read_text())
    (directory / INDEX).write_text(
        json.dumps({"weight_map": index["weight_map"] | {"classifier.bias": "more.safetensors"}})
    )


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """Another tensor of the same name."""

    def damage(directory: Path) -> None:
        tensors: Tensors = read_weights(directory)
        write_weights(directory, tensors | {name: change(tensors[name]).contiguous()})

    return damage


WORDS, SEGMENTS = "bert.embeddings.word_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"
WEIGHTS: dict[str, tuple[Damage, str]] = {
    "map of lists": (index({"a": ["model-00001-of-00002.safetensors"]}), rf"{INDEX}: weight_map has 'a' in \["),
    "map of numbers": (index({"a": 1}), rf"{INDEX}: weight_map has 'a' in 1"),
    "map a list": (index([]), rf"{INDEX} has no weight_map"),
    "map of nothing": (index({}), r"does not hold the tensors of a cross-encoder \(bert\)"),
    "absolute path": (index({"a": "/etc/passwd"}), rf"{INDEX}: weight_map has 'a' in '/etc/passwd'"),
    "path outside": (leave, rf"{INDEX}: weight_map has 'a' in '\.\./outside"),
    "directory": (index({"a": ".."}), rf"{INDEX}: weight_map has 'a' in '\.\.'"),
    "missing shard": (
        index({"a": "b.safetensors"}),
        rf"{INDEX}: weight_map names 'b\.safetensors', which is not there",
    ),
    "index very deep": (deep_index, rf"{INDEX} is nested too deeply"),
    "a tensor twice": (double, r"more\.safetensors: tensor 'classifier\.bias' is there twice"),
    "whole numbers": (tensor(WORDS, lambda rows: rows.long()), rf"{WORDS} is of type I64"),
    "no dimension": (tensor("classifier.bias", lambda row: row[0]), r"classifier\.bias is \[\] instead of \[1\]"),
}


@pytest.fixture
def model(bert_directory: Path, tmp_path: Path) -> Path:
    """A BERT model to damage."""
    return copy_model(bert_directory, tmp_path / "model")


def load(directory: Path) -> Reranker:
    return Reranker.load(str(directory), device="cpu", num_threads=1)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("damage", "message"), [*CONFIGS.values(), *WEIGHTS.values()], ids=[*CONFIGS, *WEIGHTS])
def test_a_hostile_model_is_refused_by_the_driver_and_at_load(model: Path, damage: Damage, message: str) -> None:
    damage(model)
    with pytest.raises(ModelRefusedError, match=message) as refusal:
        load(model)
    assert str(model) in str(refusal.value)
    assert len(str(refusal.value)) < 1_000
    with pytest.raises(ModelRefusedError, match=message):  # what a driver does, before it starts a replica
        planned_fingerprint(RerankerConfig(model=str(model)))


def test_8_bits_without_scales_are_refused(model: Path) -> None:
    tensor(WORDS, lambda rows: rows.to(torch.int8))(model)
    with pytest.raises(ModelRefusedError, match=rf"{model}: {WORDS} is in 8 bits"):
        load(model)


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        (-5, "pad_token_id is -5"),
        ("1", "pad_token_id is '1'"),
        (True, "pad_token_id is True"),
        (None, "pad_token_id is None"),
        (514, r"pad_token_id is 514; .* only 514 \(max_position_embeddings\)"),
    ],
)
def test_padding_that_leads_out_of_the_positions_is_refused(
    xlm_roberta_directory: Path, tmp_path: Path, padding: Any, message: str
) -> None:
    model = copy_model(xlm_roberta_directory, tmp_path / "model")
    config(pad_token_id=padding)(model)
    with pytest.raises(ModelRefusedError, match=message):
        load(model)


def test_a_bert_of_one_segment_is_refused(model: Path) -> None:
    """Its passages would be in segment 1, and every row would fail."""
    tensor(SEGMENTS, lambda rows: rows[:1])(model)
    config(type_vocab_size=1)(model)
    with pytest.raises(ModelRefusedError, match="type_vocab_size is 1, and the passages of a pair are segment 1"):
        load(model)


def vocabulary(**changes: Any) -> Damage:
    """Other ids of some words."""

    def damage(directory: Path) -> None:
        path = directory / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        tokenizer["model"]["vocab"] |= changes
        path.write_text(json.dumps(tokenizer))

    return damage


def without_unknown(directory: Path) -> None:
    """A vocabulary without the token that stands for what is not in it."""
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["unk_token"] = "[NONE]"
    path.write_text(json.dumps(tokenizer))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (vocabulary(zebra=100_000), "gives 'zebra' the id 100000, and vocab_size of config.json is"),
        (vocabulary(zebra=4_294_967_295), "gives 'zebra' the id 4294967295"),
        (vocabulary(zebra=-1), "is not a tokenizer"),
        (vocabulary(zebra="1"), "is not a tokenizer"),
        (without_unknown, r"fails on plain texts: .*\[UNK\]"),
        (edit("tokenizer.json", model=None), "is not a tokenizer"),
        (edit("tokenizer.json", model=nested(400)), "is not a tokenizer"),
        (edit("tokenizer.json", added_tokens=7), "is not a tokenizer"),
        (text("tokenizer.json", DEEP), "is not a tokenizer"),
        (text("tokenizer.json", ""), "is not a tokenizer"),
    ],
)
def test_a_hostile_tokenizer_is_refused(model: Path, damage: Damage, message: str) -> None:
    damage(model)
    with pytest.raises(ModelRefusedError, match=message) as refusal:
        load(model)
    assert "tokenizer.json" in str(refusal.value)


def test_a_pooler_that_nothing_reads_is_left_out_and_said(
    xlm_roberta_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(xlm_roberta_directory).compute_score([("apple", "bread")])
    model = copy_model(xlm_roberta_directory, tmp_path / "model")
    tensors = read_weights(model)
    pooler = {"roberta.pooler.dense.weight": torch.ones(32, 32), "roberta.pooler.dense.bias": torch.ones(32)}
    write_weights(model, tensors | pooler)
    assert load(model).compute_score([("apple", "bread")]) == expected
    assert "roberta.pooler.dense.bias, roberta.pooler.dense.weight" in caplog.text


@pytest.mark.parametrize("name", ["pooler.dense.weight", "roberta.poolers.weight", "bert.pooler.dense.weight"])
def test_only_that_pooler_is_left_out(xlm_roberta_directory: Path, tmp_path: Path, name: str) -> None:
    model = copy_model(xlm_roberta_directory, tmp_path / "model")
    write_weights(model, read_weights(model) | {name: torch.ones(32, 32)})
    with pytest.raises(ModelRefusedError, match=rf"1 unexpected \({name}\)"):
        load(model)


HOSTILE_VALUES = (None, True, -1, 0, 1 << 70, 1e300, -0.5, NAN, "", "1", "../x", "\ud800", [], {}, [[]], {"a": []})


def mutated(generator: random.Random, content: str) -> str:
    """A JSON text with one thing wrong: a value replaced, moved or removed, or the text cut or changed in a place."""
    kind, place = generator.randrange(8), generator.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + chr(generator.randrange(1, 0x7F)) + content[place + 1 :]
    root = [json.loads(content)]
    holder, key = root, 0
    while isinstance(holder[key], dict | list) and holder[key] and generator.random() < 0.8:
        holder = holder[key]
        key = generator.choice(list(holder)) if isinstance(holder, dict) else generator.randrange(len(holder))
    if kind == 2:
        del holder[key]
    else:
        holder[key] = generator.choice(HOSTILE_VALUES)
    return json.dumps(root[0]) if root else "null"


def outcomes(model: Path, name: str, expected: list[float] | None, rounds: int) -> dict[str, int]:
    """How often a model with a wrong thing in a file loaded, with scores as expected, or was refused."""
    path = model / name
    good, generator = path.read_text(), random.Random(17)
    counts = {"loaded": 0, "refused": 0}
    for _ in range(rounds):
        path.write_text(mutated(generator, good), errors="surrogatepass")
        try:
            reranker = load(model)
        except ModelRefusedError as error:
            str(error).encode()  # it can be printed
            counts["refused"] += 1
            continue
        counts["loaded"] += 1
        scores = [document.relevance_score for document in reranker.rerank(*TEXTS)]
        assert expected is None or scores == pytest.approx(expected, abs=1e-4), path.read_text(errors="replace")[:2_000]
    return counts


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["config.json", INDEX, "tokenizer_config.json"])
def test_a_model_with_a_wrong_thing_in_it_scores_as_before_or_is_refused(model: Path, name: str) -> None:
    shard_weights(model)
    expected = [document.relevance_score for document in load(model).rerank(*TEXTS)]
    counts = outcomes(model, name, expected, rounds=60)
    assert counts["loaded"] > 5
    assert counts["refused"] > 5


@pytest.mark.timeout(120)
def test_a_tokenizer_with_a_wrong_thing_in_it_is_refused_or_works(model: Path) -> None:
    """It may work otherwise: nobody can tell that a word had another id."""
    counts = outcomes(model, "tokenizer.json", None, rounds=60)
    assert counts["loaded"] > 5
    assert counts["refused"] > 5
