"""Where tokenizer_config.json and tokenizer.json do not say the same of a tokenizer: transformers follows the former.

Its classes for BERT, ELECTRA and RoBERTa make the first step of their tokenizers anew, of settings and defaults alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel

from .errors import ModelRefusedError

CLASSES = {"bert": "BertTokenizer", "electra": "ElectraTokenizer", "roberta": "RobertaTokenizer"}
"""By model_type: the class where tokenizer_config.json names none."""


def class_of(settings: Mapping[str, Any], model_type: object) -> str | None:
    """That of the classes which transformers takes, or None for another one."""
    name = str(settings.get("tokenizer_class") or CLASSES.get(str(model_type))).removesuffix("Fast")
    return name if name in CLASSES.values() else None


def follow_settings(tokenizer: Tokenizer, settings: Mapping[str, Any], model_type: object) -> bool:
    """Changes the tokenizer as the class of transformers would, and returns whether anything is other than before.

    Raises ModelRefusedError for a setting that is not true or false.
    """
    name = class_of(settings, model_type)
    if name in (CLASSES["bert"], CLASSES["electra"]) and isinstance(tokenizer.normalizer, BertNormalizer):
        wanted = BertNormalizer(
            lowercase=bool(truth(settings, "do_lower_case", True)),
            handle_chinese_chars=bool(truth(settings, "tokenize_chinese_chars", True)),
            strip_accents=truth(settings, "strip_accents", None),
        )
        if state(tokenizer.normalizer) != state(wanted):
            tokenizer.normalizer = wanted
            return True
    if name == CLASSES["roberta"] and isinstance(tokenizer.pre_tokenizer, ByteLevel):
        prefix = bool(truth(settings, "add_prefix_space", False))
        if tokenizer.pre_tokenizer.add_prefix_space != prefix:
            tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=prefix)
            return True
    return False


def truth(settings: Mapping[str, Any], name: str, otherwise: bool | None) -> bool | None:
    """A setting that is true or false, or `otherwise` where it is null or absent; raises ModelRefusedError."""
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ModelRefusedError(f"tokenizer_config.json: {name} is {str(value)[:60]!r}; it is true or false")
    return otherwise if value is None else value


def state(normalizer: BertNormalizer) -> Any:
    """What a normalizer does, as JSON."""
    return json.loads(normalizer.__getstate__())
