"""The model in the package: it ranks the announcement's English examples right, and is the file it claims to be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from pipelines.model_files import EMBEDDED_DIRECTORY
from pipelines.reranker import Reranker

EXAMPLES = json.loads((Path(__file__).parents[1] / "data" / "announcement_examples.json").read_text(encoding="utf-8"))
RIGHT_DOCUMENT = 2  # calculateCarbonFootprint; the table of transactions
MAX_BYTES = 50_000_000


@pytest.fixture(scope="module")
def embedded() -> Reranker:
    return Reranker.load("embedded", device="cpu")


@pytest.mark.parametrize("request_body", EXAMPLES.values(), ids=EXAMPLES)
def test_the_right_document_of_the_announcement_comes_first(embedded: Reranker, request_body: dict[str, Any]) -> None:
    ranked = embedded.rerank(request_body["query"], request_body["documents"])

    assert ranked[0].index == RIGHT_DOCUMENT
    assert all(0 <= document.relevance_score <= 1 for document in ranked)


def test_its_directory_is_small_enough_to_ship() -> None:
    assert 0 < sum(path.stat().st_size for path in EMBEDDED_DIRECTORY.rglob("*") if path.is_file()) <= MAX_BYTES


def test_its_weights_are_stored_in_half_precision() -> None:
    with safe_open(EMBEDDED_DIRECTORY / "model.safetensors", framework="pt") as weights:
        dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118 - not a dict

    assert dtypes == {"F16"}


def test_its_files_are_those_of_its_hash_list() -> None:
    """SHA256SUMS as sha256sum writes it names every file of the model."""
    lines = (EMBEDDED_DIRECTORY / "SHA256SUMS").read_text().splitlines()
    expected = {name.lstrip("*"): digest for digest, name in (line.split(maxsplit=1) for line in lines)}

    actual = {name: hashlib.sha256((EMBEDDED_DIRECTORY / name).read_bytes()).hexdigest() for name in expected}

    assert actual == expected
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(expected)
