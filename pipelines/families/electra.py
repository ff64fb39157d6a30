"""ELECTRA: ms-marco-electra-base. A BERT whose head has a gelu."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..errors import ModelRefusedError
from .bert import bert_spec
from .checkpoint import TensorNames
from .encoder_config import size
from .family import Config, EncoderSpec, Family

NAMES = TensorNames("electra", body="electra", head_dense="classifier.dense", head_out="classifier.out_proj")
DEFAULT_EMBEDDING_SIZE = 128
"""That of transformers' ElectraConfig."""


def is_electra(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == NAMES.layout


def electra_spec(config: Config) -> EncoderSpec:
    """What config.json says of an ELECTRA whose embeddings are as wide as its layers."""
    spec = bert_spec(config)
    embedding_size = size({"embedding_size": DEFAULT_EMBEDDING_SIZE} | config, "embedding_size")
    if embedding_size != spec.shape.hidden_size:
        raise ModelRefusedError(
            f"embedding_size is {embedding_size} and hidden_size {spec.shape.hidden_size}; an ELECTRA whose embeddings "
            "are projected (electra-small) is not supported; one without (electra-base) is scored, and not trained"
        )
    return replace(spec, names=NAMES, head_activation="gelu")


ELECTRA = Family(NAMES.layout, is_electra, electra_spec, is_trained=False)
