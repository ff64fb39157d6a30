"""The list of models, and what TEI's clients ask for first."""

from __future__ import annotations

from pipelines.config import RerankerConfig
from pipelines.fingerprint import Fingerprint, ServedModel
from serve.schemas import info_answer, models_answer


def test_the_list_of_models_shows_what_decides_the_scores() -> None:
    fingerprint = Fingerprint("files", "bert", "sigmoid", "float32", 512, 256, 80, None)
    assert models_answer("m", fingerprint, 1_800_000_000, calibrated=True) == {
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
                "calibrated": True,
                "fingerprint": fingerprint.hash,
            }
        ],
    }


def test_teis_info_has_what_its_clients_look_at() -> None:
    fingerprint = Fingerprint("files", "bert", "sigmoid", "float16", 512, 256, 80, None)
    served = ServedModel(RerankerConfig(model="owner/model", revision="0123abc"), 512, fingerprint, 1_800_000_000)
    assert info_answer("m", served, 10_000, "1.0") == {
        "model_id": "m",
        "model_sha": "0123abc",
        "model_dtype": "float16",
        "served_model_name": "m",
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_input_length": 512,
        "max_client_batch_size": 10_000,
        "auto_truncate": True,
        "version": "1.0",
    }
