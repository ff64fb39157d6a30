"""jina-reranker-v2: XLM-RoBERTa's network under the tensor names of Dao-AILab/flash-attention's models/bert.py."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..errors import ModelRefusedError
from .checkpoint import TensorNames
from .family import Config, EncoderSpec, Family
from .roberta import UNUSED, roberta_spec

NAMES = TensorNames(
    layout="flash-xlm-roberta",
    body="roberta",
    head_dense="classifier.dense",
    head_out="classifier.out_proj",
    embedding_norm="emb_ln",
    layer="encoder.layers",
    qkv=("mixer.Wqkv",),
    attention_out="mixer.out_proj",
    attention_norm="norm1",
    feed_forward_in="mlp.fc1",
    feed_forward_out="mlp.fc2",
    feed_forward_norm="norm2",
    unused=UNUSED,
)
LICENCE_NOTE = "jina-reranker-v2's published weights are CC-BY-NC-4.0: commercial use needs Jina's licence"


def is_jina_v2(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether the tensors have its names: it is published without a model_type."""
    return any(".mixer.Wqkv." in name for name in tensor_names)


def jina_v2_spec(config: Config) -> EncoderSpec:
    """What config.json says of it; its epsilon differs from transformers' default and must be there."""
    if "layer_norm_eps" not in config:
        raise ModelRefusedError("config.json lacks layer_norm_eps, whose default would be wrong for jina-reranker-v2")
    return replace(roberta_spec(NAMES, config), licence_note=LICENCE_NOTE)


JINA_V2 = Family(NAMES.layout, is_jina_v2, jina_v2_spec)
