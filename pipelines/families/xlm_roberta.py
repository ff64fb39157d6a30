"""XLM-RoBERTa as transformers writes it: bge-reranker-base, -large and -v2-m3."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ModelRefusedError
from .checkpoint import TensorNames
from .encoder_config import encoder_shape, size
from .family import Config, EncoderSpec, Family, PairStyle

UNUSED = ("roberta.pooler.",)
"""A pooler that transformers' XLMRobertaModel saves along; the head reads the first token without it."""
NAMES = TensorNames(
    layout="xlm-roberta", body="roberta", head_dense="classifier.dense", head_out="classifier.out_proj", unused=UNUSED
)
XLM_ROBERTA_PAIRS = PairStyle("<s>", "</s>", separators_between=2, has_segments=False)


def is_xlm_roberta(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == NAMES.layout


def xlm_roberta_spec(config: Config) -> EncoderSpec:
    """What config.json says of an XLM-RoBERTa, whose positions begin after that of the padding token."""
    shape = encoder_shape(config)
    padding_id = size({"pad_token_id": 1} | config, "pad_token_id", least=0)
    if padding_id >= shape.max_position_embeddings:
        raise ModelRefusedError(
            f"pad_token_id is {padding_id}; positions are counted from it, and there are only "
            f"{shape.max_position_embeddings} (max_position_embeddings)"
        )
    return EncoderSpec(
        names=NAMES,
        shape=shape,
        max_length=shape.max_position_embeddings - padding_id - 1,
        padding_id=padding_id,
        pair_styles=(XLM_ROBERTA_PAIRS,),
    )


XLM_ROBERTA = Family(NAMES.layout, is_xlm_roberta, xlm_roberta_spec)
