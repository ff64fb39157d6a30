"""Training begins from any model of the families, and what it writes is one that everything loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.config import RerankerConfig
from pipelines.errors import ModelRefusedError
from pipelines.reranker import Reranker
from pipelines.training.base import load_base, write_model

PAIRS = [("zebra river", "meadow salmon zebra"), ("walnut", "silver window walnut winter"), ("river", "zebra")]


def logits_of(model: Path) -> list[float]:
    config = RerankerConfig(str(model), raw_scores=True, device="cpu", dtype="float32")
    return Reranker.from_config(config).compute_score(PAIRS)


def logits_of_transformers(model: Path) -> list[float]:
    theirs = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    with torch.inference_mode():
        batch = tokenizer([query for query, _ in PAIRS], [text for _, text in PAIRS], padding=True, return_tensors="pt")
        return theirs(**batch).logits[:, 0].tolist()  # type: ignore[no-any-return]


@pytest.fixture(params=["bert_directory", "xlm_roberta_directory", "jina_v2_directory"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_a_cross_encoder_comes_out_as_it_went_in(checkpoint: Path, tmp_path: Path) -> None:
    base = load_base(str(checkpoint))
    assert base.has_head
    write_model(base.encoder, base, tmp_path / "exact", torch.float32)
    write_model(base.encoder, base, tmp_path / "half")
    before = logits_of(checkpoint)
    assert logits_of(tmp_path / "exact") == pytest.approx(before, abs=1e-5)
    assert logits_of_transformers(tmp_path / "exact") == pytest.approx(before, abs=1e-4)
    assert logits_of(tmp_path / "half") == pytest.approx(before, abs=2e-2)


def test_embeddings_in_8_bits_score_as_what_is_restored_of_them(checkpoint: Path, tmp_path: Path) -> None:
    base = load_base(str(checkpoint))
    write_model(base.encoder, base, tmp_path / "small", torch.float32, small=True)
    again = load_base(str(tmp_path / "small"))
    before, after = base.encoder.word_embeddings.weight, again.encoder.word_embeddings.weight
    assert 0 < (before - after).abs().max() <= before.abs().max() / 254 + 1e-6
    write_model(again.encoder, again, tmp_path / "restored", torch.float32)
    assert logits_of(tmp_path / "small") == pytest.approx(logits_of(tmp_path / "restored"), abs=1e-5)
    assert logits_of_transformers(tmp_path / "restored") == pytest.approx(logits_of(tmp_path / "small"), abs=1e-4)


def test_8_bits_without_their_scales_are_refused(bert_directory: Path, tmp_path: Path) -> None:
    base = load_base(str(bert_directory))
    write_model(base.encoder, base, tmp_path / "small", small=True)
    tensors = load_file(tmp_path / "small" / "model.safetensors")
    del tensors["bert.embeddings.word_embeddings.weight.row_scales"]
    save_file(tensors, tmp_path / "small" / "model.safetensors")
    with pytest.raises(ModelRefusedError, match="is in 8 bits"):
        logits_of(tmp_path / "small")


def plain_encoder(checkpoint: Path, folder: Path, prefix: str, extra: dict[str, torch.Tensor]) -> Path:
    """The encoder alone, under names with or without a prefix, as bi-encoders and masked language models have them."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, folder / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_labels": 2, "architectures": ["AnyModel"]}))
    kept = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        family, _, rest = name.partition(".")
        if family in ("bert", "roberta") and not rest.startswith("pooler."):
            kept[prefix + rest] = tensor
    save_file(kept | extra, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_plain_encoder_gets_a_new_head(
    family: str, prefix: bool, bert_directory: Path, xlm_roberta_directory: Path, tmp_path: Path
) -> None:
    checkpoint = bert_directory if family == "bert" else xlm_roberta_directory
    start = f"{family}." if prefix else ""
    heads = {f"{start}pooler.dense.weight": torch.ones(32, 32), "lm_head.bias": torch.ones(7)}
    folder = plain_encoder(checkpoint, tmp_path / "plain", start, heads)
    base = load_base(str(folder), seed=1)
    assert not base.has_head
    state, whole = base.encoder.state_dict(), load_base(str(checkpoint)).encoder.state_dict()
    for name, tensor in state.items():
        if not name.startswith("head_"):
            torch.testing.assert_close(tensor, whole[name])
    torch.testing.assert_close(state["head_dense.weight"], torch.eye(32))
    assert 0.01 < state["head_out.weight"].std() < 0.03
    same, other = (load_base(str(folder), seed=seed).encoder.state_dict() for seed in (1, 2))
    torch.testing.assert_close(same["head_out.weight"], state["head_out.weight"])
    assert (other["head_out.weight"] != state["head_out.weight"]).any()

    write_model(base.encoder, base, tmp_path / "model", torch.float32)
    assert logits_of(tmp_path / "model") == pytest.approx(logits_of_transformers(tmp_path / "model"), abs=1e-4)


def test_a_bert_with_the_tokenizer_of_xlm_roberta_joins_pairs_as_that_does(
    bert_directory: Path, xlm_roberta_directory: Path, tmp_path: Path
) -> None:
    """The layout of multilingual-e5-small."""
    folder = plain_encoder(bert_directory, tmp_path / "e5", "", {})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(xlm_roberta_directory / name, folder / name)
    rows = load_base(str(xlm_roberta_directory)).spec.shape.vocab_size
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows, "pad_token_id": 1}))
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(0)
    tensors["embeddings.word_embeddings.weight"] = torch.randn(rows, 32)
    save_file(tensors, folder / "model.safetensors")

    base = load_base(str(folder))
    assert (base.layout.separators_between, base.layout.has_segments, base.layout.padding_id) == (2, False, None)
    write_model(base.encoder, base, tmp_path / "model", torch.float32)
    assert logits_of(tmp_path / "model") == pytest.approx(logits_of_transformers(tmp_path / "model"), abs=1e-4)


def test_a_tensor_that_belongs_to_nothing_is_refused_by_name(bert_directory: Path, tmp_path: Path) -> None:
    folder = plain_encoder(bert_directory, tmp_path / "plain", "bert.", {"bert.encoder.adapter.weight": torch.ones(1)})
    with pytest.raises(ModelRefusedError, match=r"1 unexpected \(bert\.encoder\.adapter\.weight\)"):
        load_base(str(folder))


def test_another_directory_is_never_overwritten(bert_directory: Path, tmp_path: Path) -> None:
    base = load_base(str(bert_directory))
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        write_model(base.encoder, base, tmp_path / "model", overwrite=True)
    (tmp_path / "model").rmdir()
    write_model(base.encoder, base, tmp_path / "model")
    with pytest.raises(FileExistsError, match="is there already"):
        write_model(base.encoder, base, tmp_path / "model")
    write_model(base.encoder, base, tmp_path / "model", overwrite=True)
