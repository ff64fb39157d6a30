"""The list of models, and what TEI's clients ask for first."""

from __future__ import annotations

from pipelines.calibration import Calibration
from pipelines.config import RerankerConfig
from pipelines.fingerprint import Fingerprint, ServedModel
from serve.schemas import info_answer, models_answer


def test_the_list_of_models_shows_what_decides_the_scores() -> None:
    fingerprint = Fingerprint("files", "qwen3-reranker", "sigmoid", "float32", 512, 256, 80, None, instruction="Find")
    config = RerankerConfig(model="Qwen/Qwen3-Reranker-0.6B", calibration=Calibration(1.5, 0.0, "files"))
    served = ServedModel(config, 512, fingerprint, 1_800_000_000, takes_instruction=True)
    assert models_answer("m", served) == {
        "object": "list",
        "data": [
            {
                "id": "m",
                "object": "model",
                "created": 1_800_000_000,
                "owned_by": "crossray",
                "family": "Qwen3-Reranker",
                "licence": "Apache-2.0",
                "takes_instruction": True,
                "instruction": "Find",
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


def test_a_model_of_ones_own_has_no_licence_that_we_know() -> None:
    fingerprint = Fingerprint("files", "modernbert", "sigmoid", "float32", 512, 256, 80, None)
    [card] = models_answer("m", ServedModel(RerankerConfig(model="./mine"), 512, fingerprint, 0))["data"]
    assert (card["family"], card["licence"], card["calibrated"]) == ("ModernBERT", None, False)
    assert (card["takes_instruction"], card["instruction"]) == (False, None)


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
