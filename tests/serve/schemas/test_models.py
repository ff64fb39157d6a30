"""The list of models."""

from __future__ import annotations

from pipelines.fingerprint import Fingerprint
from serve.schemas import models_answer


def test_the_list_of_models_shows_what_decides_the_scores() -> None:
    fingerprint = Fingerprint("files", "bert", "sigmoid", "float32", 512, 256, 80, None)
    assert models_answer("m", fingerprint, 1_800_000_000) == {
        "object": "list",
        "data": [
            {
                "id": "m",
                "object": "model",
                "created": 1_800_000_000,
                "owned_by": "crossray",
                "max_length": 512,
                "max_query_length": 256,
                "overlap_tokens": 80,
                "max_chunks_per_doc": None,
                "dtype": "float32",
                "fingerprint": fingerprint.hash,
            }
        ],
    }
