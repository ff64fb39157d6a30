"""Models and one Ray for all tests. Models are read only: a test that damages one takes `copy_model` first."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from hypothesis import settings

from tests.checkpoints import write_bert, write_jina_v2, write_xlm_roberta

settings.register_profile("crossray", deadline=None)  # a busy machine is no failure
settings.load_profile("crossray")


@pytest.fixture(scope="session")
def bert_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT cross-encoder of 512 tokens."""
    return write_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def xlm_roberta_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-RoBERTa reranker of 512 tokens."""
    return write_xlm_roberta(tmp_path_factory.mktemp("models") / "xlm_roberta")


@pytest.fixture(scope="session")
def jina_v2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reranker of 1,024 tokens in the layout of jina-reranker-v2."""
    return write_jina_v2(tmp_path_factory.mktemp("models") / "jina_v2")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A Ray of two CPUs: jobs of this process use it instead of starting one, others by its address."""
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
