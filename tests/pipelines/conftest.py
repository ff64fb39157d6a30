"""Loaded rerankers, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.reranker import Reranker


@pytest.fixture(scope="session")
def bert(bert_directory: Path) -> Reranker:
    return Reranker.load(str(bert_directory), device="cpu", num_threads=1)


@pytest.fixture(scope="session")
def xlm_roberta(xlm_roberta_directory: Path) -> Reranker:
    return Reranker.load(str(xlm_roberta_directory), device="cpu", num_threads=1)


@pytest.fixture(scope="session")
def mmarco(mmarco_directory: Path) -> Reranker:
    return Reranker.load(str(mmarco_directory), device="cpu", num_threads=1)


@pytest.fixture(scope="session")
def jina_v2(jina_v2_directory: Path) -> Reranker:
    return Reranker.load(str(jina_v2_directory), device="cpu", num_threads=1)


@pytest.fixture(scope="session")
def modernbert(modernbert_directory: Path) -> Reranker:
    return Reranker.load(str(modernbert_directory), device="cpu", num_threads=1)


@pytest.fixture(scope="session")
def ettin(ettin_directory: Path) -> Reranker:
    return Reranker.load(str(ettin_directory), device="cpu", num_threads=1)


@pytest.fixture(scope="session", params=["bert", "xlm_roberta", "jina_v2", "modernbert", "ettin"])
def reranker(request: pytest.FixtureRequest) -> Reranker:
    """Each family in turn."""
    loaded: Reranker = request.getfixturevalue(request.param)
    return loaded


@pytest.fixture(scope="session")
def cuda() -> str:
    """The name of the GPU, for tests marked `gpu`."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch sees none here")
    return "cuda"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny models run faster so, whatever else the machine computes."""
    torch.set_num_threads(1)
