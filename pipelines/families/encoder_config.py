"""Reads the sizes of a BERT-like encoder from config.json, and refuses what our encoder would compute wrongly."""

from __future__ import annotations

from typing import Any

from ..encoder import HIDDEN_ACTIVATIONS, EncoderShape
from ..errors import ModelRefusedError


def encoder_shape(config: dict[str, Any]) -> EncoderShape:
    """The sizes of the encoder; the defaults are those of transformers' BertConfig and XLMRobertaConfig.

    Raises ModelRefusedError for a model that would load and score wrongly, KeyError for a size that is missing.
    """
    check_computable(config)
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ModelRefusedError(
            f"num_attention_heads is {config['num_attention_heads']}, which does not divide hidden_size "
            f"({config['hidden_size']})"
        )
    return EncoderShape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        max_position_embeddings=config["max_position_embeddings"],
        type_vocab_size=config["type_vocab_size"],
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        hidden_act=config.get("hidden_act", "gelu"),
    )


def check_computable(config: dict[str, Any]) -> None:
    """Raises ModelRefusedError for what would load as garbage although its tensors have the right names."""
    position_type = config.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        raise ModelRefusedError(f"position_embedding_type is {position_type!r}; only absolute positions are supported")
    if config.get("is_decoder"):
        raise ModelRefusedError("is_decoder is true; a cross-encoder of this family reads in both directions")
    labels = config.get("num_labels", len(config.get("id2label") or {}) or 2)  # 2 is transformers' default
    if labels != 1:
        raise ModelRefusedError(f"the model has {labels} labels; a reranker has one (a classifier is no reranker)")
    activation = config.get("hidden_act", "gelu")
    if activation not in HIDDEN_ACTIVATIONS:
        raise ModelRefusedError(f"hidden_act is {activation!r}; supported are {', '.join(HIDDEN_ACTIVATIONS)}")
