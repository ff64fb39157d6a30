"""Which model is which: layout, sizes, lengths, pair template; what is refused, and why.

A further family is one entry in FAMILIES: a function from a parsed `config.json` to a ModelSpec. One that is no
BERT / XLM-RoBERTa encoder needs a forward path in `engine.py` too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from .config import MIN_MAX_LENGTH
from .encoder import HIDDEN_ACTIVATIONS, EncoderShape
from .errors import ModelRefusedError
from .model_files import ModelFiles
from .tokens import PairTemplate

Config = dict[str, Any]

XLM_ROBERTA_PAIRS: dict[str, Any] = {
    "special_tokens": ("<s>", "</s>"),
    "separators_between": 2,
    "has_segments": False,
}
"""How XLM-RoBERTa's tokenizer joins a pair, also where it stands before a BERT (multilingual-e5-small)."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All that scoring needs to know of a model besides its tensors."""

    layout: str
    """Names of the checkpoint's tensors, for weights.py."""
    shape: EncoderShape
    max_length: int
    """Tokens of the longest pair the position embeddings can hold."""
    padding_id: int | None
    """Where RoBERTa's positions count from; None counts from 0 (BERT)."""
    special_tokens: tuple[str, str]
    """Start and separator."""
    separators_between: int
    has_segments: bool
    activation: str = "sigmoid"
    """Logit -> relevance_score."""

    def pair_template(self, tokenizer: Tokenizer) -> PairTemplate:
        """The template with this tokenizer's ids; raises ModelRefusedError when it lacks the special tokens."""
        start, separator = (tokenizer.token_to_id(token) for token in self.special_tokens)
        if start is None and self.layout == "bert" and tokenizer.token_to_id("<s>") is not None:
            return replace(self, **XLM_ROBERTA_PAIRS).pair_template(tokenizer)
        if start is None or separator is None:
            raise ModelRefusedError(
                f"tokenizer.json has no {' or '.join(self.special_tokens)}; it does not belong to a {self.layout} model"
            )
        if tokenizer.get_vocab_size() > self.shape.vocab_size:  # on a GPU such an id would kill the process
            raise ModelRefusedError(
                f"tokenizer.json has {tokenizer.get_vocab_size()} tokens, the model {self.shape.vocab_size}; "
                "take the tokenizer that belongs to the weights"
            )
        return PairTemplate((start,), (separator,) * self.separators_between, (separator,), self.has_segments)


def bert(config: Config) -> ModelSpec:
    """BERT: the ms-marco MiniLM cross-encoders, the embedded model."""
    return ModelSpec(
        layout="bert",
        shape=encoder_shape(config),
        max_length=config["max_position_embeddings"],
        padding_id=None,
        special_tokens=("[CLS]", "[SEP]"),
        separators_between=1,
        has_segments=True,
    )


def xlm_roberta(config: Config) -> ModelSpec:
    """XLM-RoBERTa as transformers writes it: bge-reranker-base, -large, -v2-m3."""
    padding_id = config.get("pad_token_id", 1)
    if not isinstance(padding_id, int):
        raise ModelRefusedError(
            f"pad_token_id is {padding_id!r}; positions are counted from it, so it must be a number"
        )
    return ModelSpec(
        layout="xlm-roberta",
        shape=encoder_shape(config),
        max_length=config["max_position_embeddings"] - padding_id - 1,
        padding_id=padding_id,
        **XLM_ROBERTA_PAIRS,
    )


def flash_xlm_roberta(config: Config) -> ModelSpec:
    """jina-reranker-v2: the same network under other names; its eps differs from transformers' default."""
    if "layer_norm_eps" not in config:
        raise ModelRefusedError("config.json lacks layer_norm_eps, whose default would be wrong for jina-reranker-v2")
    return replace(xlm_roberta(config), layout="flash-xlm-roberta")


FAMILIES: dict[str, Callable[[Config], ModelSpec]] = {
    "bert": bert,
    "xlm-roberta": xlm_roberta,
    "flash-xlm-roberta": flash_xlm_roberta,
}


def recognise(config: Config, tensor_names: Collection[str]) -> ModelSpec:
    """The model that a `config.json` and its tensors' names describe; raises ModelRefusedError."""
    check_loadable(config)
    try:
        return FAMILIES[family_name(config, tensor_names)](config)
    except KeyError as error:
        raise ModelRefusedError(f"config.json lacks {error}; it does not describe a model we know") from None


def model_limit(spec: ModelSpec, files: ModelFiles) -> int:
    """Tokens of the longest pair: what the positions hold, or less where the tokenizer says so."""
    limit = min(spec.max_length, files.tokenizer_limit() or spec.max_length)
    if limit < MIN_MAX_LENGTH:
        raise ModelRefusedError(f"{files.name} reads {limit} tokens at most; a pair needs at least {MIN_MAX_LENGTH}")
    return limit


def family_name(config: Config, tensor_names: Collection[str]) -> str:
    """A key of FAMILIES; raises ModelRefusedError for anything else."""
    if any(".mixer.Wqkv." in name for name in tensor_names):
        return "flash-xlm-roberta"  # published without a model_type
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ModelRefusedError(
            f"model_type is {model_type!r}; supported are BERT and XLM-RoBERTa cross-encoders and jina-reranker-v2 "
            f"({', '.join(FAMILIES)})"
        )
    return str(model_type)


def check_loadable(config: Config) -> None:
    """Refuses what would load as garbage although its tensors have the right names."""
    position_type = config.get("position_embedding_type", "absolute")
    if position_type == "alibi" or config.get("feed_forward_type"):
        raise ModelRefusedError(
            "this is a JinaBERT model (ALiBi positions, gated feed-forward; jina-reranker-v1), which would load as a "
            "BERT with random layers; it is not supported, take jina-reranker-v2 or a BERT / XLM-RoBERTa model"
        )
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


def encoder_shape(config: Config) -> EncoderShape:
    """Sizes of the encoder; the defaults are those of transformers' BertConfig and XLMRobertaConfig."""
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
