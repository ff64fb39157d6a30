"""Directories of sentence-transformers: their vectors are that library's, and what we do not compute is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling as TheirPooling

from pipelines.errors import ModelError, ModelRefusedError
from pipelines.training.dense import DenseEncoder
from pipelines.training.embedding import Embedding, Pooling, read_embedding
from tests.checkpoints import words

TEXTS = [words(count, seed=count) for count in (1, 7, 30, 90)]


def saved(bert_directory: Path, folder: Path, mode: Any, *more: Any) -> Path:
    transformer = Transformer(str(bert_directory), max_seq_length=40)
    width = json.loads((bert_directory / "config.json").read_text())["hidden_size"]
    model = SentenceTransformer(modules=[transformer, TheirPooling(width, pooling_mode=mode), *more], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def as_before_version_6(folder: Path, mode: str, **settings: Any) -> Path:
    """The same directory in the words of earlier versions, as most that are published have them."""
    modules = json.loads((folder / "modules.json").read_text())
    for one in modules:
        one["type"] = "sentence_transformers.models." + one["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(modules))
    modes = {f"pooling_mode_{one}_tokens": one == mode for one in ("max", "mean", "mean_sqrt_len")}
    modes["pooling_mode_cls_token"] = mode == "cls"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_the_vectors_are_those_of_sentence_transformers(bert_directory: Path, tmp_path: Path, mode: str) -> None:
    """By both pooling modes, in directories of today and of earlier versions, with texts beyond the longest length."""
    folder = saved(bert_directory, tmp_path / "dense", mode, Normalize())
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert read_embedding(folder) == Embedding(folder, Pooling(mode), 40)
    np.testing.assert_allclose(DenseEncoder(folder).encode(TEXTS), theirs, atol=1e-5)
    as_before_version_6(folder, mode, max_seq_length=40, do_lower_case=False)
    np.testing.assert_allclose(DenseEncoder(folder).encode(TEXTS), theirs, atol=1e-5)
    assert not np.allclose(DenseEncoder(folder, max_length=20).encode(TEXTS), theirs, atol=1e-5)


def test_texts_are_lower_cased_where_the_directory_says_so(bert_directory: Path, tmp_path: Path) -> None:
    folder = as_before_version_6(saved(bert_directory, tmp_path / "dense", "cls"), "cls", do_lower_case=True)
    upper = [text.upper() for text in TEXTS]
    assert np.array_equal(DenseEncoder(folder).encode(upper), DenseEncoder(folder).encode(TEXTS))


def test_prefixes_are_the_prompts_of_the_directory(bert_directory: Path, tmp_path: Path) -> None:
    """As sentence-transformers puts them before queries and documents; what is given has precedence."""
    folder = saved(bert_directory, tmp_path / "dense", "mean", Normalize())
    bare = DenseEncoder(folder)
    config = folder / "config_sentence_transformers.json"
    config.write_text(json.dumps({"prompts": {"query": "meadow ", "document": "walnut ", "other": "zebra "}}))
    theirs, ours = SentenceTransformer(str(folder), device="cpu"), DenseEncoder(folder)
    np.testing.assert_allclose(ours.encode_queries(TEXTS), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(ours.encode_passages(TEXTS), theirs.encode_document(TEXTS), atol=1e-5)
    without = DenseEncoder(folder, query_prefix="", passage_prefix="")
    np.testing.assert_array_equal(without.encode_queries(TEXTS), bare.encode(TEXTS))
    assert not np.allclose(ours.encode_queries(TEXTS), ours.encode_passages(TEXTS), atol=1e-3)
    config.write_text(json.dumps({"prompts": {"query": None, "passage": "walnut "}}))
    assert (DenseEncoder(folder).query_prefix, DenseEncoder(folder).passage_prefix) == ("", "walnut ")
    config.write_text(json.dumps({"prompts": {"query": 3}}))
    assert "a prompt is 3; it is a text" in refused(folder)
    config.write_text(json.dumps({"prompts": ["query"]}))
    assert "prompts is ['query']; it is an object of texts" in refused(folder)


def refused(folder: Path) -> str:
    with pytest.raises(ModelRefusedError) as error:
        read_embedding(folder)
    return str(error.value)


def test_what_we_do_not_compute_is_refused_by_name(bert_directory: Path, tmp_path: Path) -> None:
    folder = saved(bert_directory, tmp_path / "dense", ("mean", "max"))
    assert "the pooling is ['mean', 'max']; a dense encoder pools by mean or cls" in refused(folder)
    assert "the pooling is 'mean_sqrt_len_tokens'" in refused(as_before_version_6(folder, "mean_sqrt_len"))
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": false}')
    assert "include_prompt is false" in refused(folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": "many"}')
    assert "max_seq_length is 'many'" in refused(folder)
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, dense]))
    assert "the chain is Transformer, Pooling, Dense; a dense encoder is" in refused(folder)
    (folder / "modules.json").write_text("{")
    assert "modules.json cannot be read" in refused(folder)
    (folder / "modules.json").write_text("3")
    assert "is no list of modules" in refused(folder)


def test_a_text_without_a_finite_vector_is_named(bert_directory: Path) -> None:
    encoder = DenseEncoder(bert_directory)
    hurt = encoder.tokenizer.encode(TEXTS[1], add_special_tokens=False).ids[0]
    embeddings = encoder.model.get_parameter("embeddings.word_embeddings.weight")
    embeddings.data[hurt] = float("nan")
    others = [text for text in TEXTS if hurt not in encoder.tokenizer.encode(text).ids]
    assert np.isfinite(encoder.encode(others)).all()
    count = len(TEXTS) - len(others)
    with pytest.raises(ModelError, match=f"no finite vector for {count} of 4 texts, such as '.*float16"):
        encoder.encode(TEXTS)
