"""The models in the package: they rank the announcement's examples right, and are the files they claim to be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from pipelines.calibration import CALIBRATION, Calibration
from pipelines.evaluation.analysis import load_stemmers
from pipelines.model_files import EMBEDDED_DIRECTORIES, ModelFiles
from pipelines.reranker import Reranker
from pipelines.training.base import load_base, write_model
from pipelines.training.exact_match import MatchingBuilder, word_of, words_of

DATA = Path(__file__).parents[1] / "data"
EXAMPLES = json.loads((DATA / "announcement_examples.json").read_text(encoding="utf-8"))
RIGHT_DOCUMENT = 2  # calculateCarbonFootprint; the table of transactions
MULTILINGUAL = "embedded-multilingual"
MAX_BYTES = {"embedded": 50_000_000, MULTILINGUAL: 80_000_000}
STORED = {"F16", "F32", "I8"}

MINILM = {"hidden_size": 384, "num_attention_heads": 12}
HEAD = 32
"""Coordinates of one head of it; the last ones of the model begin with the codes of words."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

every_model = pytest.mark.parametrize("name", EMBEDDED_DIRECTORIES)


@pytest.fixture(scope="module")
def embedded() -> dict[str, Reranker]:
    return {name: Reranker.load(name, device="cpu") for name in EMBEDDED_DIRECTORIES}


@every_model
@pytest.mark.parametrize("request_body", EXAMPLES.values(), ids=EXAMPLES)
def test_the_right_document_of_the_announcement_comes_first(
    embedded: dict[str, Reranker], name: str, request_body: dict[str, Any]
) -> None:
    ranked = embedded[name].rerank(request_body["query"], request_body["documents"])

    assert ranked[0].index == RIGHT_DOCUMENT
    assert all(0 <= document.relevance_score <= 1 for document in ranked)


def test_the_five_documents_of_the_announcement_about_skincare_come_first_in_five_languages(
    embedded: dict[str, Reranker],
) -> None:
    example = json.loads((DATA / "announcement_skincare.json").read_text(encoding="utf-8"))
    ranked = embedded[MULTILINGUAL].rerank(example["query"], example["documents"])

    assert {document.index for document in ranked[:5]} == set(example["about_skincare"])


def test_each_word_of_the_english_model_has_a_code_of_its_own() -> None:
    base, without_ending = load_base("embedded"), load_stemmers().Stemmer("english").stemWord
    rows = base.encoder.word_embeddings.weight.shape[0]
    known = words_of(base.tokenizer, ["a sample"], MatchingBuilder.code_width(MINILM), rows)
    head = base.encoder.word_embeddings.weight[:, -HEAD:]
    stored = torch.sign(head[:, : known.codes_VK.shape[1]])
    assert torch.equal(stored, known.codes_VK)
    words = {tuple(code) for code in known.codes_VK.tolist() if any(code)}
    assert len(words) == len(
        {word_of(piece, without_ending) for piece in base.tokenizer.get_vocab() if piece not in SPECIAL}
    )


@every_model
def test_its_directory_is_small_enough_to_ship(name: str) -> None:
    files = [path for path in EMBEDDED_DIRECTORIES[name].rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= MAX_BYTES[name]


@every_model
def test_its_weights_are_stored_in_few_bits(name: str) -> None:
    with safe_open(EMBEDDED_DIRECTORIES[name] / "model.safetensors", framework="pt") as weights:
        dtypes = {weights.get_slice(tensor).get_dtype() for tensor in weights.keys()}  # noqa: SIM118 - not a dict

    assert dtypes == STORED


@every_model
def test_its_files_are_those_of_its_hash_list(name: str) -> None:
    """SHA256SUMS as sha256sum writes it names every file of the model."""
    directory = EMBEDDED_DIRECTORIES[name]
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    expected = {file.lstrip("*"): digest for digest, file in (line.split(maxsplit=1) for line in lines)}

    actual = {file: hashlib.sha256((directory / file).read_bytes()).hexdigest() for file in expected}

    assert actual == expected
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(expected)


@every_model
def test_its_calibration_was_fitted_for_its_files(name: str) -> None:
    """Which nothing checks at run time, as the files come together."""
    directory = EMBEDDED_DIRECTORIES[name]
    assert Calibration.read(directory / CALIBRATION).files == ModelFiles(name, directory).digest()


def test_a_converted_one_has_the_same_scores(embedded: dict[str, Reranker], tmp_path: Path) -> None:
    """Where 8 bits became floats again."""
    base = load_base(MULTILINGUAL)
    write_model(base.encoder, base, tmp_path / "plain", torch.float32)
    plain = Reranker.load(str(tmp_path / "plain"), device="cpu")
    query, documents = EXAMPLES["functions"]["query"], EXAMPLES["functions"]["documents"]
    scores = [
        {one.index: one.relevance_score for one in reranker.rerank(query, documents)}
        for reranker in (embedded[MULTILINGUAL], plain)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
