"""Reads the sizes of an encoder from config.json, and refuses what would be computed wrongly."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..encoder import HIDDEN_ACTIVATIONS, EncoderShape
from ..errors import ModelRefusedError
from ..model_files import shown

MAX_SIZE = (1 << 31) - 1
"""Of anything in a config: ids and sizes are 32-bit numbers."""
QUANTISED = "quantization_config"
UNSCALED = "default"
"""The `rope_type` of positions as they are."""


def encoder_shape(config: dict[str, Any]) -> EncoderShape:
    """The sizes of the encoder; the defaults are those of transformers' BertConfig and XLMRobertaConfig.

    Raises ModelRefusedError for a model that would load and score wrongly, KeyError for a size that is missing.
    """
    check_computable(config)
    shape = EncoderShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=size(config, "hidden_size"),
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=size(config, "num_attention_heads"),
        intermediate_size=size(config, "intermediate_size"),
        max_position_embeddings=size(config, "max_position_embeddings"),
        type_vocab_size=size(config, "type_vocab_size"),
        layer_norm_eps=epsilon(config),
        hidden_act=config.get("hidden_act", "gelu"),
    )
    if shape.hidden_size % shape.num_attention_heads:
        raise ModelRefusedError(
            f"num_attention_heads is {shape.num_attention_heads}, which does not divide hidden_size "
            f"({shape.hidden_size})"
        )
    return shape


def size(config: dict[str, Any], key: str, least: int = 1) -> int:
    """A whole number of config.json.

    Raises ModelRefusedError for what is none, or not between `least` and MAX_SIZE; KeyError where the key is missing.
    """
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SIZE:
        raise ModelRefusedError(f"{key} is {shown(value)}; it is a whole number between {least} and {MAX_SIZE:,}")
    return value


def epsilon(config: dict[str, Any]) -> float:
    """`layer_norm_eps`; raises ModelRefusedError for what is no number, or not between 0 and 1."""
    value = config.get("layer_norm_eps", 1e-12)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ModelRefusedError(f"layer_norm_eps is {shown(value)}; it is a small number, such as 1e-12")
    return float(value)


def check_computable(config: dict[str, Any]) -> None:
    """Raises ModelRefusedError for what would load as garbage although its tensors have the right names."""
    position_type = config.get("position_embedding_type", "absolute")
    if position_type != "absolute":
        kind = shown(position_type)
        raise ModelRefusedError(f"position_embedding_type is {kind}; only absolute positions are supported")
    check_reads_both_ways(config)
    one_label(config)
    choice(config, "hidden_act", "gelu", HIDDEN_ACTIVATIONS)


def check_reads_both_ways(config: dict[str, Any]) -> None:
    """Raises ModelRefusedError where config.json has each token see only those before it."""
    for key in ("is_decoder", "is_causal"):
        if config.get(key):
            raise ModelRefusedError(f"{key} is {shown(config[key])}; a model of this family reads in both directions")


def check_reads_forwards(config: dict[str, Any]) -> None:
    """Raises ModelRefusedError where config.json has tokens see those after them.

    transformers 5 gives any language model a mask for both directions where `is_causal` is false.
    """
    if config.get("is_causal") not in (None, True):
        raise ModelRefusedError(
            f"is_causal is {shown(config['is_causal'])}, and transformers 5 reads in both directions then; a model of "
            "this family reads in one here. If it was trained so, take is_causal out of config.json"
        )


def check_not_set(config: dict[str, Any], keys: tuple[str, ...], layout: str) -> None:
    """Raises ModelRefusedError where a key is set that changes what a model computes in a way that is not done here."""
    for key in keys:
        if config.get(key):
            instead = "; take the weights before they were quantised" if key == QUANTISED else ""
            raise ModelRefusedError(
                f"{key} is {shown(config[key])}; this is not implemented for {layout} models{instead}"
            )


def one_label(config: dict[str, Any]) -> None:
    """Raises ModelRefusedError for a model that gives a pair more or less than one logit."""
    labels = number_of_labels(config)
    if labels != 1:
        raise ModelRefusedError(f"the model has {labels} labels; a reranker has one (a classifier is no reranker)")


def number_of_labels(config: dict[str, Any]) -> int:
    """How many logits a pair gets; raises ModelRefusedError where config.json says it in no way that is known."""
    if "num_labels" in config:
        return size(config, "num_labels", least=0)
    names = config.get("id2label")
    if names is not None and not isinstance(names, dict):
        raise ModelRefusedError(f"id2label is {shown(names)}; it is an object with a name for each label")
    return len(names or {}) or 2  # transformers' default


def rotary_settings(config: dict[str, Any], theta: float) -> dict[str, Any]:
    """What config.json says of rotary positions, put together as transformers 5 does; `theta` is the family's base.

    `rope_scaling` takes the place of all of `rope_parameters`, and the keys beside them count for what neither has. The
    result has a `rope_type` and a `rope_theta`. Raises ModelRefusedError for what is no object.
    """
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given: Any = config.get(key) or {}
    if not isinstance(given, dict):
        raise ModelRefusedError(f"{key} is {shown(given)}; it is an object")
    beside = {"rope_theta": config.get("rope_theta", theta)}
    if config.get("partial_rotary_factor") is not None:
        beside["partial_rotary_factor"] = config["partial_rotary_factor"]
    settings = beside | given
    return {"rope_type": settings.pop("type", UNSCALED)} | settings


def choice(config: dict[str, Any], key: str, default: str, known: Collection[str]) -> str:
    """A word of config.json; raises ModelRefusedError for one that is not known."""
    value = config.get(key, default)
    if not isinstance(value, str) or value not in known:
        raise ModelRefusedError(f"{key} is {shown(value)}; supported are {', '.join(known)}")
    return value


def flag(config: dict[str, Any], key: str, default: bool) -> bool:
    """A yes or no of config.json; raises ModelRefusedError for what is neither."""
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ModelRefusedError(f"{key} is {shown(value)}; it is true or false")
    return value


def number(config: dict[str, Any], key: str, default: float | None = None, most: float | None = 1.0) -> float:
    """A positive number of config.json, below `most`; raises ModelRefusedError for what is none."""
    value: Any = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < (most or float("inf")):
        raise ModelRefusedError(f"{key} is {shown(value)}; it is a positive number{f' below {most}' if most else ''}")
    return float(value)
