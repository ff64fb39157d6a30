"""BERT as transformers writes it: the ms-marco MiniLM cross-encoders, and the embedded models."""

from __future__ import annotations

from collections.abc import Collection

from .checkpoint import TensorNames
from .encoder_config import encoder_shape
from .family import Config, EncoderSpec, Family, PairStyle
from .roberta import ROBERTA_PAIRS

NAMES = TensorNames(layout="bert", body="bert", head_dense="bert.pooler.dense", head_out="classifier")
BERT_PAIRS = PairStyle("[CLS]", "[SEP]", separators_between=1, has_segments=True)


def is_bert(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == NAMES.layout


def bert_spec(config: Config) -> EncoderSpec:
    """What config.json says of a BERT; some (multilingual-e5-small) have the tokenizer of XLM-RoBERTa."""
    shape = encoder_shape(config)
    return EncoderSpec(
        names=NAMES,
        shape=shape,
        max_length=shape.max_position_embeddings,
        padding_id=None,
        pair_styles=(BERT_PAIRS, ROBERTA_PAIRS),
    )


BERT = Family(NAMES.layout, is_bert, bert_spec)
