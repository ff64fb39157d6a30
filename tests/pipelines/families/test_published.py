"""The published models themselves, from the hub: the scores that sentence-transformers has on record for them.

Run by hand, where the hub can be reached: `pytest -m hub` downloads some 25 GB, `-k "MiniLM or bge"` less.
"""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.published import PUBLISHED
from pipelines.reranker import Reranker

QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]
LOGITS = {
    "cross-encoder/mmarco-mMiniLMv2-L12-H384-v1": (-3.28125, 10.1875, 3.4375, 7.46875),
    "cross-encoder/ms-marco-MiniLM-L6-v2": (-6.53125, 9.6875, 6.90625, 6.6875),
}
PROBABILITIES = {
    "Alibaba-NLP/gte-multilingual-reranker-base": (0.38672, 0.85156, 0.70312, 0.65234),
    "Alibaba-NLP/gte-reranker-modernbert-base": (0.80859, 0.95312, 0.875, 0.91797),
    "BAAI/bge-reranker-base": (0.87891, 0.99609, 0.99609, 0.05029),
    "BAAI/bge-reranker-large": (0.69922, 1.0, 0.97266, 0.81641),
    "BAAI/bge-reranker-v2-m3": (0.01855, 1.0, 0.78906, 0.98828),
    "cross-encoder/ms-marco-electra-base": (3e-05, 0.92969, 0.78906, 0.80469),
    "cross-encoder/quora-roberta-base": (0.00193, 0.22852, 0.00308, 0.01495),
    "ibm-granite/granite-embedding-reranker-english-r2": (0.78906, 0.96484, 0.89062, 0.94141),
    "jinaai/jina-reranker-v1-tiny-en": (0.53516, 0.92969, 0.87891, 0.88672),
    "jinaai/jina-reranker-v1-turbo-en": (0.27148, 0.82422, 0.64844, 0.68359),
    "jinaai/jina-reranker-v2-base-multilingual": (0.23633, 0.71484, 0.50391, 0.31055),
    "mixedbread-ai/mxbai-rerank-base-v1": (0.05176, 0.96875, 0.71484, 0.16895),
    "mixedbread-ai/mxbai-rerank-large-v1": (0.00711, 0.99219, 0.80469, 0.3418),
    "mixedbread-ai/mxbai-rerank-xsmall-v1": (0.21484, 0.9375, 0.57031, 0.72656),
}
"""In bfloat16, of QUERY and each of DOCUMENTS. The texts and the scores, as an activation leaves them, are those of
https://github.com/huggingface/sentence-transformers/blob/cad211983f36ce458e9b3360f3e11b29fc54cbd8/tests/cross_encoder/test_pretrained.py
"""
TOLERANCE = 0.02
"""Of a probability; twice what sentence-transformers allows, which computes in bfloat16 itself."""
TOLERANCE_OF_LOGITS = 0.15
"""Two steps of bfloat16 at 10."""
TOO_LARGE = ("Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B")
ON_THE_HUB = [name for one in PUBLISHED for name in one.models if "/" in name]
NOT_ON_RECORD = [name for name in ON_THE_HUB if name not in {*LOGITS, *PROBABILITIES, *TOO_LARGE}]


def logits(name: str) -> np.ndarray:
    reranker = Reranker.load(name, raw_scores=True)
    return np.array(reranker.compute_score([(QUERY, document) for document in DOCUMENTS]))


def test_all_models_on_record_are_in_the_table() -> None:
    assert {*LOGITS, *PROBABILITIES} <= set(ON_THE_HUB)


@pytest.mark.hub
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [*LOGITS, *PROBABILITIES])
def test_scores_are_those_on_record(name: str) -> None:
    ours = logits(name)

    if name in LOGITS:
        np.testing.assert_allclose(ours, LOGITS[name], atol=TOLERANCE_OF_LOGITS, rtol=0)
    else:
        np.testing.assert_allclose(1 / (1 + np.exp(-ours)), PROBABILITIES[name], atol=TOLERANCE, rtol=0)


@pytest.mark.hub
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NOT_ON_RECORD)
def test_models_without_a_record_load_and_find_the_answer(name: str) -> None:
    ours = logits(name)

    assert np.isfinite(ours).all()
    assert ours.argmax() == 1, ours
