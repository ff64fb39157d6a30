"""Where tokenizer_config.json and tokenizer.json do not say the same of a tokenizer: transformers follows the former.

Its classes for BERT, ELECTRA and RoBERTa make the first step of their tokenizers anew, of settings and defaults alone.
Version 5 does the same for XLM-RoBERTa, CamemBERT and DeBERTa-v2. Their models were published with version 4, which
took tokenizer.json as it is, and so do we.
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
WORD_PIECES = ("BertTokenizer", "ElectraTokenizer")
BYTE_LEVELS = ("RobertaTokenizer", "GPT2Tokenizer", "BartTokenizer", "LongformerTokenizer")
AS_IT_IS = ("modernbert", "qwen2")
"""Values of model_type whose tokenizer.json transformers takes as it is, whatever class is named."""


def named_class(settings: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """The class that tokenizer_config.json names, or else config.json; None where neither does."""
    return settings.get("tokenizer_class") or config.get("tokenizer_class")


def class_of(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The class that transformers takes, if it is one that we know; None for another one."""
    model_type = config.get("model_type")
    name = str(named_class(settings, config) or CLASSES.get(str(model_type))).removesuffix("Fast")
    return name if name in (*WORD_PIECES, *BYTE_LEVELS) and model_type not in AS_IT_IS else None


def follow_settings(tokenizer: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Changes the tokenizer as the class of transformers would, and returns whether anything is other than before.

    `settings` are those of tokenizer_config.json, `config` is config.json. Raises ModelRefusedError for a setting that
    is not true or false, and for one of a DeBERTa-v2 that tokenizer.json does not follow: who saved them at odds has to
    say what is meant.
    """
    if config.get("model_type") == "deberta-v2":
        check_followed(tokenizer, settings)
    name = class_of(settings, config)
    if name in WORD_PIECES and isinstance(tokenizer.normalizer, BertNormalizer):
        wanted = BertNormalizer(
            lowercase=bool(truth(settings, "do_lower_case", True)),
            handle_chinese_chars=bool(truth(settings, "tokenize_chinese_chars", True)),
            strip_accents=truth(settings, "strip_accents", None),
        )
        if state(tokenizer.normalizer) != state(wanted):
            tokenizer.normalizer = wanted
            return True
    if name in BYTE_LEVELS and isinstance(tokenizer.pre_tokenizer, ByteLevel):
        prefix = bool(truth(settings, "add_prefix_space", False))
        if tokenizer.pre_tokenizer.add_prefix_space != prefix:
            tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=prefix)
            return True
    return False


def check_followed(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Raises ModelRefusedError where tokenizer.json does not do what tokenizer_config.json asks of a DeBERTa-v2."""
    lowers = tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"
    splits = tokenizer.pre_tokenizer is not None and len(tokenizer.pre_tokenizer.pre_tokenize_str("a,a")) > 1
    for name, is_done in (("do_lower_case", lowers), ("split_by_punct", splits)):
        if truth(settings, name, False) and not is_done:
            raise ModelRefusedError(
                f"tokenizer_config.json: {name} is true, and tokenizer.json does not do so; "
                "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers makes it one that does"
            )


def truth(settings: Mapping[str, Any], name: str, otherwise: bool | None) -> bool | None:
    """A setting that is true or false, or `otherwise` where it is null or absent; raises ModelRefusedError."""
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ModelRefusedError(f"tokenizer_config.json: {name} is {str(value)[:60]!r}; it is true or false")
    return otherwise if value is None else value


def state(normalizer: BertNormalizer) -> Any:
    """What a normalizer does, as JSON."""
    return json.loads(normalizer.__getstate__())
