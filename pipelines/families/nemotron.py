"""llama-nemotron-rerank: a Llama that was trained to read in both directions, with one logit of the mean of its tokens.

The publisher's own code computes it (model_type `llama_bidirec`); it is derived from transformers' LlamaModel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer

from ..decoder import POOLINGS, BidirectionalDecoder
from ..errors import ModelRefusedError
from ..tokens import PairTemplate
from .encoder_config import check_not_set, check_reads_both_ways, choice, number, one_label, size
from .family import Config, Family, check_highest_id
from .language_model import LanguageModelSpec, decoder_shape
from .prompt import Prompt

LAYOUT = "llama-nemotron"
MODEL_TYPE = "llama_bidirec"
WORDS = Prompt(
    # Of the model's card: "question:{query} \\n \\n passage:{passage}", which goes through the tokenizer in one piece.
    first=("question",),
    query=(":", " \n \n"),
    middle=(" passage",),
    passage=":",
    last=(),
)
MAX_LENGTH = 8192
"""Tokens that the publisher names; the positions would go on."""
NOT_COMPUTED = ("quantization_config", "attention_bias", "mlp_bias")
"""Keys that change what a model computes in a way that is not implemented here."""
LICENCE_NOTE = (
    "llama-nemotron-rerank's published weights are under NVIDIA's Open Model License and Llama 3.2's Community License"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NemotronSpec(LanguageModelSpec):
    """A Llama that reads in both directions."""

    pooling: str
    """One of POOLINGS."""
    temperature: float
    """What the logit is divided by."""

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUT

    @property
    def shares_prefixes(self) -> bool:
        """As in `ModelSpec`: a query is read together with its passage."""
        return False

    def network(self) -> BidirectionalDecoder:
        """As in `ModelSpec`."""
        return BidirectionalDecoder(self.shape, self.pooling)

    def pair_template(self, tokenizer: Tokenizer, instruction: str | None = None) -> PairTemplate:
        """As in `ModelSpec`; around the words stand the tokens that the tokenizer puts around any text."""
        check_highest_id(tokenizer, self.vocab_size)
        words = WORDS.template(tokenizer, instruction, LAYOUT)
        text, alone = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
        start = text.special_tokens_mask.index(0)
        end = start + len(alone.ids)
        if text.ids[start:end] != alone.ids:
            raise ModelRefusedError(
                f"tokenizer.json does not only put tokens around a text, as that of {LAYOUT} models does"
            )
        return replace(words, first=(*text.ids[:start], *words.first), last=(*words.last, *text.ids[end:]))

    def score(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """As in `LanguageModelSpec`."""
        return super(NemotronSpec, self).score(tensors).float() / self.temperature

    @property
    def classifier(self) -> str:
        """As in `LanguageModelSpec`; raises ModelRefusedError."""
        raise ModelRefusedError(f"transformers has no class for a {LAYOUT} model, which reads in both directions")


def is_nemotron(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == MODEL_TYPE


def nemotron_spec(config: Config) -> NemotronSpec:
    """What config.json says of it; defaults are those of the publisher's own LlamaBidirectionalConfig.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    check_reads_both_ways(config)
    check_not_set(config, NOT_COMPUTED, LAYOUT)
    choice(config, "hidden_act", "silu", ("silu",))
    one_label(config)
    return NemotronSpec(
        shape=decoder_shape(config, qkv_bias=False, qk_norm=False),
        answers=None,
        pooling=choice(config, "pooling", "avg", POOLINGS),
        temperature=number({"temperature": 1.0} | config, "temperature", most=None),
        max_length=min(size(config, "max_position_embeddings"), MAX_LENGTH),
        padding_id=None,
        pair_styles=(),
        licence_note=LICENCE_NOTE,
    )


NEMOTRON = Family(LAYOUT, is_nemotron, nemotron_spec, is_trained=False)
