"""`pipelines` needs neither Ray nor HTTP nor S3, and importing it is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import crossray
import pipelines

LOAD_AND_SCORE_WITHOUT_RAY = """
import sys
for name in ("ray", "fastapi", "starlette", "boto3", "botocore"):
    sys.modules[name] = None  # importing it raises ImportError

from pipelines import Reranker

reranker = Reranker.load(sys.argv[1], device="cpu", num_threads=1)
print([name for name in ("torch._dynamo", "sympy", "transformers") if name in sys.modules])
print(sorted(document.index for document in reranker.rerank("apple", ["bread", "candle"])))
"""

IMPORT_ALONE = """
import sys
import crossray
import pipelines
from pipelines import CandidateList, CrossrayError, RerankerConfig
print([name for name in ("torch", "tokenizers", "transformers", "ray") if name in sys.modules])
"""


def run_python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


@pytest.fixture(scope="module")
def said(bert_directory: Path) -> list[str]:
    """What a process without Ray, HTTP and S3 says: modules that loading imported, and the documents that it ranked."""
    return run_python(LOAD_AND_SCORE_WITHOUT_RAY, str(bert_directory)).splitlines()


def test_a_model_scores_where_ray_http_and_s3_are_not_installed(said: list[str]) -> None:
    assert said[1:] == ["[0, 1]"]


def test_loading_a_model_does_not_import_a_compiler(said: list[str]) -> None:
    """It would take longer than all the rest of loading."""
    assert said[0] == "[]"


def test_importing_the_package_loads_no_torch() -> None:
    assert run_python(IMPORT_ALONE) == "[]"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(pipelines, name) for name in pipelines.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Rerankr'"):
        pipelines.Rerankr  # noqa: B018 - the access is what is tested


def test_the_library_run_as_a_module_is_the_command() -> None:
    command = [sys.executable, "-m", "crossray", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == f"crossray {crossray.__version__}\n"
