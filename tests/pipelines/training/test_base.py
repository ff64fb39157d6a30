"""What training begins from: every layout and every plain encoder, strictly, and the directory that it writes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
)

from pipelines import Reranker
from pipelines.errors import ModelRefusedError
from pipelines.training.base import Base, load_base, write_model
from tests.checkpoints import (
    copy_model,
    edit_config,
    read_weights,
    unigram_tokenizer,
    wordpiece_tokenizer,
    write_weights,
    xlm_roberta_tokenizer_config,
)

PAIRS = [
    ("apple bread", "river salmon"),
    ("zebra", "winter window weather walnut violin"),
    ("table", "table"),
    ("cloud copper desert", "ocean"),
]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "initializer_range": 0.3,  # with the usual 0.02 all pairs score alike
}


def bert(**tokens: Any) -> BertConfig:
    return BertConfig(**SIZES, max_position_embeddings=64, vocab_size=wordpiece_tokenizer().get_vocab_size(), **tokens)


def xlm_roberta() -> XLMRobertaConfig:
    vocab_size = unigram_tokenizer().get_vocab_size()
    return XLMRobertaConfig(**SIZES, max_position_embeddings=66, vocab_size=vocab_size, type_vocab_size=1)


def e5() -> BertConfig:
    """multilingual-e5-small: a BERT of two segments before which XLM-RoBERTa's tokenizer stands."""
    return BertConfig(**SIZES, max_position_embeddings=64, vocab_size=unigram_tokenizer().get_vocab_size())


PLAIN: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "bert": (lambda: BertModel(bert()), "BertTokenizer"),
    "bert-without-pooler": (lambda: BertModel(bert(), add_pooling_layer=False), "BertTokenizer"),
    "bert-masked-lm": (lambda: BertForMaskedLM(bert()), "BertTokenizer"),
    "xlm-roberta": (lambda: XLMRobertaModel(xlm_roberta()), "XLMRobertaTokenizer"),
    "xlm-roberta-masked-lm": (lambda: XLMRobertaForMaskedLM(xlm_roberta()), "XLMRobertaTokenizer"),
    "e5": (lambda: BertModel(e5()), "XLMRobertaTokenizer"),
    "e5-generic-tokenizer": (lambda: BertModel(e5()), "PreTrainedTokenizerFast"),
}
"""Encoders as transformers saves them, each with the class of its tokenizer."""
PUBLISHED = ("bert_directory", "xlm_roberta_directory", "jina_v2_directory")


def write_plain(folder: Path, kind: str) -> PreTrainedModel:
    """Writes an encoder without a classifier into a new folder and returns it."""
    torch.manual_seed(1)
    make, tokenizer_class = PLAIN[kind]
    model = make().eval()
    model.save_pretrained(folder)
    if tokenizer_class == "BertTokenizer":
        wordpiece_tokenizer().save(str(folder / "tokenizer.json"))
        tokenizer_config: dict[str, Any] = {"tokenizer_class": tokenizer_class, "model_max_length": 64}
    else:
        unigram_tokenizer().save(str(folder / "tokenizer.json"))
        tokenizer_config = xlm_roberta_tokenizer_config(64) | {"tokenizer_class": tokenizer_class}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return model


@pytest.fixture(params=[*PUBLISHED, *PLAIN])
def any_base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    """Each cross-encoder layout and each plain encoder in turn."""
    if request.param in PUBLISHED:
        return load_base(str(request.getfixturevalue(request.param)))
    write_plain(tmp_path / "plain", request.param)
    return load_base(str(tmp_path / "plain"))


def our_logits(directory: Path) -> np.ndarray:
    reranker = Reranker.load(str(directory), device="cpu", dtype="float32", raw_scores=True, num_threads=1)
    return np.array(reranker.compute_score(PAIRS))


@torch.inference_mode()
def their_logits(directory: Path) -> np.ndarray:
    """By transformers alone, with the tokenizer that it makes of the directory."""
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    queries, documents = map(list, zip(*PAIRS, strict=True))
    batch = AutoTokenizer.from_pretrained(directory)(queries, documents, padding=True, return_tensors="pt")
    logits: np.ndarray = model(**batch).logits[:, 0].numpy()
    return logits


@pytest.mark.parametrize("directory", PUBLISHED)
def test_a_cross_encoder_is_taken_as_it_is(directory: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What is written untrained scores as the original does, in the layout of transformers."""
    original: Path = request.getfixturevalue(directory)
    base = load_base(str(original))
    write_model(base.encoder, base, tmp_path / "model", torch.float32)

    assert base.has_head
    assert {parameter.dtype for parameter in base.encoder.parameters()} == {torch.float32}
    np.testing.assert_allclose(our_logits(tmp_path / "model"), our_logits(original), atol=1e-5)


@pytest.mark.parametrize("kind", PLAIN)
@torch.inference_mode()
def test_a_plain_encoder_gets_a_head_that_its_seed_decides(kind: str, tmp_path: Path) -> None:
    """The logit is the drawn row times the tanh of what the encoder says at the first token."""
    model = write_plain(tmp_path / "plain", kind)
    base = load_base(str(tmp_path / "plain"), seed=7)
    write_model(base.encoder, base, tmp_path / "model", torch.float32)

    queries, documents = map(list, zip(*PAIRS, strict=True))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    batch = tokenizer(queries, documents, padding=True, return_tensors="pt")
    first_PD = model.base_model(**batch).last_hidden_state[:, 0]
    row_1D = torch.randn(1, 32, generator=torch.Generator().manual_seed(7)) * 0.02
    expected = (first_PD.tanh() @ row_1D.T)[:, 0].numpy()

    assert not base.has_head
    assert base.max_length == 64
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(our_logits(tmp_path / "model"), expected, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 1e-3)], ids=["fp32", "fp16"])
def test_what_is_written_scores_alike_here_and_in_transformers(
    any_base: Base, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    """Tokens, segments and positions too: transformers tokenizes the pairs on its own."""
    with torch.no_grad():
        for parameter in any_base.encoder.parameters():  # as training would
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05)
    directory = tmp_path / "model"
    write_model(any_base.encoder, any_base, directory, dtype)

    ours = our_logits(directory)
    assert {tensor.dtype for tensor in load_file(directory / "model.safetensors").values()} == {dtype}
    assert np.ptp(ours) > 0.01
    np.testing.assert_allclose(ours, their_logits(directory), atol=tolerance)
    again = load_base(str(directory))
    assert again.has_head
    assert (again.spec.shape, again.layout) == (any_base.spec.shape, any_base.layout)


def test_the_embedded_model_is_a_base() -> None:
    base = load_base("embedded")
    assert (base.has_head, base.spec.layout, base.max_length) == (True, "bert", 256)
    assert base.layout.special_tokens == 3


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta-masked-lm"])
def test_a_tensor_that_is_left_over_or_missing_is_named(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    write_plain(folder, kind)
    tensors = load_file(folder / "model.safetensors")

    save_file(tensors | {"qa_outputs.weight": torch.zeros(2, 32)}, folder / "model.safetensors")
    with pytest.raises(ModelRefusedError, match=r"1 unexpected \(\w+\.qa_outputs\.weight\)"):
        load_base(str(folder))

    lost = next(name for name in tensors if name.endswith("encoder.layer.1.output.dense.bias"))
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, folder / "model.safetensors")
    with pytest.raises(ModelRefusedError, match=r"1 missing \(\w+\.encoder\.layer\.1\.output\.dense\.bias\)"):
        load_base(str(folder))


def test_a_cross_encoder_without_its_dense_layer_is_refused(bert_directory: Path, tmp_path: Path) -> None:
    """It brought a classifier, so nothing of its head is replaced in silence."""
    folder = copy_model(bert_directory, tmp_path / "model")
    tensors = read_weights(folder)
    write_weights(folder, {name: tensor for name, tensor in tensors.items() if ".pooler." not in name})

    with pytest.raises(ModelRefusedError, match=r"2 missing \(bert\.pooler\.dense\.bias"):
        load_base(str(folder))


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    write_plain(tmp_path / "model", "bert")
    BertForSequenceClassification(bert(num_labels=3)).save_pretrained(tmp_path / "model")

    with pytest.raises(ModelRefusedError, match=rf"^{tmp_path}/model: the model has 3 labels"):
        load_base(str(tmp_path / "model"))


def test_a_tokenizer_that_joins_pairs_otherwise_is_refused_before_training(tmp_path: Path) -> None:
    write_plain(tmp_path / "model", "e5")
    path = tmp_path / "model" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    del tokenizer["post_processor"]["pair"][2]  # one </s> between the texts
    path.write_text(json.dumps(tokenizer))

    with pytest.raises(ModelRefusedError, match=r"tokenizer\.json joins a pair as"):
        load_base(str(tmp_path / "model"))


def test_sizes_other_than_the_configs_are_refused(bert_directory: Path, tmp_path: Path) -> None:
    folder = edit_config(copy_model(bert_directory, tmp_path / "model"), intermediate_size=96)

    with pytest.raises(ModelRefusedError, match=r"do not have the sizes of its config\.json"):
        load_base(str(folder))


def test_only_a_model_of_ours_is_overwritten(bert_directory: Path, tmp_path: Path) -> None:
    """And of its directory only what the model consists of."""
    base, output = load_base(str(copy_model(bert_directory, tmp_path / "base"))), tmp_path / "model"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is there already"):
        write_model(base.encoder, base, output, overwrite=True)
    assert (output / "thesis.txt").read_text() == "mine"

    ours = tmp_path / "ours"
    write_model(base.encoder, base, ours)
    before = (ours / "SHA256SUMS").read_text()
    with pytest.raises(FileExistsError, match="is there already"):
        write_model(base.encoder, base, ours)
    for name in ("README.md", "thesis.txt"):
        (ours / name).write_text("mine")
    (base.files.directory / "tokenizer_config.json").unlink()
    write_model(base.encoder, base, ours, torch.float32, overwrite=True)
    sums = (ours / "SHA256SUMS").read_text()
    assert sums != before
    names = [line.split()[1] for line in sums.splitlines()]
    assert "tokenizer_config.json" not in names
    assert sorted(path.name for path in ours.iterdir()) == sorted([*names, "SHA256SUMS", "README.md", "thesis.txt"])
    assert (ours / "README.md").read_text() == "mine"
    assert load_file(ours / "model.safetensors")["classifier.bias"].dtype == torch.float32


def test_a_directory_that_fails_on_the_way_is_not_there(
    bert_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later call writes it whole."""
    base, output = load_base(str(bert_directory)), tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_model(base.encoder, base, output)
    assert not output.exists()

    write_model(base.encoder, base, output)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
