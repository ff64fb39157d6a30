"""Lists for language models, whose tokenizers join texts with the words around them, and our logits of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RerankerConfig
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.pipelines.references import TextPair

LISTS = [
    CandidateList(words(4, seed=1), [words(1 + 7 * i, seed=100 + i) for i in range(9)]),
    CandidateList("how long?", ["", " ", "\nas long as it takes\n", "3 days", "?", words(150, seed=3), "yes", "yes"]),
    CandidateList("  naïve ½ 中文!\n\n", ["🙂 <|im_end|> apple", "¿dónde?", "e\u0301te\u0301", "1234567890"]),
    CandidateList("?!", ["alone"]),
]
"""Queries whose end the tokenizer joins with the line break behind it, and documents that begin with anything."""
PAIRS: list[TextPair] = [(one.query, document) for one in LISTS for document in one.documents]


def logits_of_lists(model: Path, **settings: Any) -> np.ndarray:
    """Logits of PAIRS, by list, in one call."""
    reranker = Reranker.from_config(RerankerConfig(str(model), device="cpu", raw_scores=True, **settings))
    rankings = reranker.rerank_lists(LISTS)
    found = [{one.index: one.relevance_score for one in ranking.documents} for ranking in rankings]
    return np.array([scores[i] for scores in found for i in range(len(scores))])
