"""docs/frameworks.md as it stands: its lines are run with the real packages, which are in the clients' environment.

They run in a process of its own with our Python, which has torch, and with the frameworks' packages behind ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.serve.test_clients import ENVIRONMENT, PYTHON
from tests.test_recipes import check_lines

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = {heading: BLOCK.findall(text) for heading, text in SECTION.findall(PAGE)}
"""By framework: its class, how it is used, and what that prints."""
FRAMEWORKS = {"LangChain": "langchain", "LlamaIndex": "llama_index", "Haystack": "haystack"}
VERSIONS = {"LangChain": "langchain-core", "LlamaIndex": "llama-index-core", "Haystack": "haystack-ai"}
PACKAGES = PYTHON.parents[1] / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
WAYS = ("alone", "at once", "in a chain")
"""In a call of its own, in many asynchronous ones, and by what calls it in real life."""

QUERY = "sort a list"
DOCUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("bananas", {"page": 1}),
    ("sorted() returns a list", {"page": 2, "tags": ["a", "b"]}),
    ("", {}),
    ("bananas", {"page": 3}),
    (words(600), {"page": 4}),
]
"""A blank one, two that are equal, and one of several chunks."""

needs_packages = pytest.mark.skipif(
    not PACKAGES.exists(),
    reason=f"{PACKAGES} is missing: `make test-slow` builds the clients' environment for the Python 3.11 that it takes",
)
each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


def run(arguments: list[str], sent: str = "") -> str:
    """What our Python prints."""
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    finished = subprocess.run(
        command, input=sent, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def texts_of(framework: str, documents: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """What is scored: LlamaIndex' rerankers read metadata, too."""
    if framework != "LlamaIndex":
        return [text for text, _ in documents]
    lines = ["\n".join(f"{key}: {value}" for key, value in metadata.items()) for _, metadata in documents]
    return [f"{said}\n\n{text}" if said else text for said, (text, _) in zip(lines, documents, strict=True)]


CALLS = [
    {"way": way, "query": QUERY, "documents": documents, "top_n": top_n}
    for way in WAYS
    for documents, top_n in ((DOCUMENTS, None), (DOCUMENTS, 2), ([], None))
]
WRONG = [
    {"way": "alone", "query": query, "documents": DOCUMENTS, "top_n": top_n}
    for query, top_n in ((" ", None), (QUERY, 0))
]


@pytest.fixture(scope="module")
def outcomes_of() -> Callable[[str], list[dict[str, Any]]]:
    """What comes of the calls in a framework, which takes seconds to import."""

    @cache
    def of_framework(framework: str) -> list[dict[str, Any]]:
        sent = json.dumps({"code": BLOCKS[framework][0][1], "calls": CALLS + WRONG})
        program = str(ROOT / "tests" / "frameworks" / "rank.py")
        outcomes: list[dict[str, Any]] = json.loads(run([program, str(PACKAGES), FRAMEWORKS[framework]], sent))
        return outcomes

    return of_framework


@pytest.mark.slow
@needs_packages
@each_framework
def test_what_is_ranked_is_what_the_reranker_says_with_everything_that_was_sent(
    framework: str, outcomes_of: Callable[[str], list[dict[str, Any]]]
) -> None:
    """Alone, many at a time, and in a chain; with and without a number, and without documents."""
    reranker = Reranker.load("embedded")
    for call, outcome in zip(CALLS, outcomes_of(framework), strict=False):
        texts = texts_of(framework, call["documents"])
        expected = reranker.rerank(QUERY, texts, top_n=call["top_n"])
        assert "ranking" in outcome, outcome
        ranking = outcome["ranking"]
        assert [place for *_, place in ranking] == [one.index for one in expected]
        assert [score for _, _, score, _ in ranking] == pytest.approx(
            [one.relevance_score for one in expected], abs=1e-4
        )
        assert [(text, metadata) for text, metadata, *_ in ranking] == [DOCUMENTS[one.index] for one in expected]


@pytest.mark.slow
@needs_packages
@each_framework
def test_what_cannot_be_ranked_is_an_error_that_says_why(
    framework: str, outcomes_of: Callable[[str], list[dict[str, Any]]]
) -> None:
    blank, none = outcomes_of(framework)[len(CALLS) :]
    assert blank == {"error": "InvalidInputError", "message": "blank_query: query has nothing but white space"}
    assert none["error"] == "ConfigError"
    assert none["message"].startswith("top_n is 0; it is at least 1")


@pytest.mark.slow
@needs_packages
@each_framework
def test_the_lines_of_the_page_print_what_it_says(framework: str) -> None:
    (_, code), (_, use), (_, printed) = BLOCKS[framework]
    append = f"import sys; sys.path.append({str(PACKAGES)!r})"  # at the end, as in frameworks/rank.py
    check_lines(printed, run(["-c", f"{append}\n{code}\n{use}"]))


@each_framework
def test_a_section_has_a_class_its_use_and_what_it_prints(framework: str) -> None:
    assert [language for language, _ in BLOCKS[framework]] == ["python", "python", "text"]


@each_framework
def test_the_version_of_the_page_is_the_one_of_the_tests(framework: str) -> None:
    requirements = (ROOT / "tests" / "serve" / "clients" / "requirements.txt").read_text(encoding="utf-8")
    [version] = re.findall(rf"^{VERSIONS[framework]}==(\d+\.\d+)", requirements, re.MULTILINE)
    assert f"| {VERSIONS[framework]} {version} |" in PAGE
