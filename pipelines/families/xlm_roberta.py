"""XLM-RoBERTa as transformers writes it: bge-reranker-base, -large and -v2-m3."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ModelRefusedError
from .checkpoint import TensorNames
from .encoder_config import encoder_shape
from .family import Config, Family, ModelSpec, PairStyle

NAMES = TensorNames(layout="xlm-roberta", body="roberta", head_dense="classifier.dense", head_out="classifier.out_proj")
XLM_ROBERTA_PAIRS = PairStyle("<s>", "</s>", separators_between=2, has_segments=False)


def is_xlm_roberta(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == NAMES.layout


def xlm_roberta_spec(config: Config) -> ModelSpec:
    """What config.json says of an XLM-RoBERTa, whose positions begin after that of the padding token."""
    padding_id = config.get("pad_token_id", 1)
    if not isinstance(padding_id, int):
        raise ModelRefusedError(
            f"pad_token_id is {padding_id!r}; positions are counted from it, so it must be a number"
        )
    return ModelSpec(
        names=NAMES,
        shape=encoder_shape(config),
        max_length=config["max_position_embeddings"] - padding_id - 1,
        padding_id=padding_id,
        pair_styles=(XLM_ROBERTA_PAIRS,),
    )


XLM_ROBERTA = Family(NAMES, is_xlm_roberta, xlm_roberta_spec)
