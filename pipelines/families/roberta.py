"""RoBERTa and what differs from it in its tokenizer alone: XLM-RoBERTa (the BGE rerankers) and CamemBERT."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from ..errors import ModelRefusedError
from .checkpoint import TensorNames
from .encoder_config import encoder_shape, size
from .family import Config, EncoderSpec, Family, PairStyle

UNUSED = ("roberta.pooler.",)
"""A pooler that transformers' RobertaModel saves along; the head reads the first token without it."""
NAMES = {
    layout: TensorNames(
        layout, body="roberta", head_dense="classifier.dense", head_out="classifier.out_proj", unused=UNUSED
    )
    for layout in ("roberta", "xlm-roberta", "camembert")
}
"""By model_type."""
ROBERTA_PAIRS = PairStyle("<s>", "</s>", separators_between=2, has_segments=False)


def is_of_type(model_type: str, config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == model_type


def roberta_spec(names: TensorNames, config: Config) -> EncoderSpec:
    """What config.json says of a RoBERTa, whose positions begin after that of the padding token."""
    shape = encoder_shape(config)
    padding_id = size({"pad_token_id": 1} | config, "pad_token_id", least=0)
    if padding_id >= shape.max_position_embeddings:
        raise ModelRefusedError(
            f"pad_token_id is {padding_id}; positions are counted from it, and there are only "
            f"{shape.max_position_embeddings} (max_position_embeddings)"
        )
    return EncoderSpec(
        names=names,
        shape=shape,
        max_length=shape.max_position_embeddings - padding_id - 1,
        padding_id=padding_id,
        pair_styles=(ROBERTA_PAIRS,),
    )


ROBERTAS = tuple(
    Family(layout, partial(is_of_type, layout), partial(roberta_spec, names)) for layout, names in NAMES.items()
)
