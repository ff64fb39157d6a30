"""Every family on a GPU: the scores of a CPU, alone and in company, packed through the kernels of half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.reranker import Reranker
from tests.checkpoints import (
    words,
    write_bert,
    write_camembert,
    write_deberta,
    write_electra,
    write_ettin,
    write_gemma,
    write_gte,
    write_jina_v1,
    write_jina_v2,
    write_mmarco,
    write_modernbert,
    write_nemotron,
    write_qwen,
    write_roberta,
    write_xlm_roberta,
)

WRITERS = [
    write_bert,
    write_electra,
    write_roberta,
    write_camembert,
    write_xlm_roberta,
    write_mmarco,
    write_jina_v1,
    write_jina_v2,
    write_modernbert,
    write_ettin,
    write_gte,
    write_deberta,
    write_qwen,
    write_gemma,
    write_nemotron,
]
LISTS = [(words(3 + i, seed=i), [words(1 + 23 * j, seed=10 * i + j) for j in range(9)]) for i in range(3)]
"""Documents that are short, as long as a local window, and in chunks; of one list, so that what pairs begin with alike
is shared where a family shares it."""


def logits_of(reranker: Reranker, at_once: int) -> np.ndarray:
    """Of all pairs of LISTS, which go through in lists of `at_once` documents."""
    found = []
    for query, documents in LISTS:
        for start in range(0, len(documents), at_once):
            results = reranker.rerank(query, documents[start : start + at_once])
            found += [one.relevance_score for one in sorted(results, key=lambda one: one.index)]
    return np.array(found)


@pytest.mark.gpu
@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("float16", 0.05), ("bfloat16", 0.3)])
def test_a_gpu_gives_the_logits_of_a_cpu(
    write: Callable[[Path], Path], dtype: str, tolerance: float, tmp_path: Path, cuda: str
) -> None:
    model = str(write(tmp_path / "model"))
    expected = logits_of(Reranker.load(model, device="cpu", raw_scores=True, dtype="float32"), 9)

    on_gpu = Reranker.load(model, device=cuda, raw_scores=True, dtype=dtype)

    assert expected.std() > 0.01
    tolerance *= max(1.0, expected.std())
    np.testing.assert_allclose(logits_of(on_gpu, 9), expected, atol=tolerance, rtol=0)
    np.testing.assert_allclose(logits_of(on_gpu, 1), expected, atol=tolerance, rtol=0)
