"""A replica by itself: what it loads, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipelines.errors import ModelRefusedError
from serve.scorer import Scorer
from serve.settings import ServeArgs
from tests.checkpoints import read_weights, write_deberta, write_jina_v1, write_weights


@pytest.mark.parametrize(("writer", "number"), [(write_jina_v1, "nan"), (write_deberta, "inf")])
def test_a_model_whose_scores_are_no_numbers_is_refused_before_anybody_asks(
    writer: Callable[[Path], Path], number: str, tmp_path: Path
) -> None:
    model = writer(tmp_path)
    tensors = read_weights(model)
    write_weights(model, {**tensors, "classifier.bias": torch.full_like(tensors["classifier.bias"], float(number))})
    with pytest.raises(ModelRefusedError, match=f"gives {number} for plain texts; its weights are damaged"):
        Scorer(ServeArgs(model=str(model), max_length=16).reranker())
