"""bge-reranker-v2-gemma: a Gemma that is asked whether a passage answers a query, as language model or as classifier.

The logit is that of "Yes" alone, whose token the tokenizer names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import torch
from tokenizers import Tokenizer

from ..errors import ModelRefusedError
from ..tokens import PairTemplate
from .checkpoint import Tensors
from .encoder_config import check_not_set, check_reads_forwards, choice, flag, size
from .family import Config, Family, check_highest_id
from .language_model import LanguageModelSpec, check_rows, decoder_shape, is_classifier
from .prompt import Prompt, ids_of

LAYOUT = "gemma"
BGE = Prompt(
    # https://github.com/FlagOpen/FlagEmbedding/blob/master/FlagEmbedding/inference/reranker/decoder_only/base.py, which
    # tokenizes each line by itself: the empty words say that query and passage are joined with nothing before them.
    first=("<bos>", ""),
    query=("A: ", ""),
    middle=("\n", ""),
    passage="B: ",
    last=("\n", "{instruction}"),
    marks=("<bos>",),
    instruction=(
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    ),
)
ANSWER = "Yes"
NOT_COMPUTED = ("auto_map", "quantization_config", "use_bidirectional_attention", "attention_bias")
"""Keys that change what a model computes in a way that is not implemented here."""
LICENCE_NOTE = "bge-reranker-v2-gemma's published weights are under Gemma's terms of use, ai.google.dev/gemma/terms"
NOT_YET_KNOWN = (-1, None)
"""The answers of a language model until the tokenizer is asked: config.json says nothing of them."""
TANH = "gelu_pytorch_tanh"


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaSpec(LanguageModelSpec):
    """A Gemma of the first generation."""

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUT

    @property
    def classifier(self) -> str:
        """As in `LanguageModelSpec`."""
        return "GemmaForSequenceClassification"

    @property
    def own_instruction(self) -> str | None:
        """As in `ModelSpec`."""
        return BGE.instruction

    def with_vocabulary(self, load: Callable[[], Tokenizer]) -> GemmaSpec:
        """As in `ModelSpec`: the row of the head is that of "Yes"."""
        if self.answers is None:
            return self
        ids = ids_of(load(), (ANSWER,))
        if len(ids) != 1:
            raise ModelRefusedError(
                f"tokenizer.json makes {len(ids)} tokens of {ANSWER!r}, the answer of {LAYOUT} models"
            )
        check_rows({"vocab_size": self.vocab_size}, ids[0])
        return replace(self, answers=(ids[0], None))

    def pair_template(self, tokenizer: Tokenizer, instruction: str | None = None) -> PairTemplate:
        """As in `ModelSpec`."""
        check_highest_id(tokenizer, self.vocab_size)
        return BGE.template(tokenizer, instruction, LAYOUT)

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`; what a checkpoint calls the weight of a norm is what it has beyond 1."""
        assert self.answers != NOT_YET_KNOWN
        state = super(GemmaSpec, self).state_dict(tensors)  # slots make another class of this one
        return {name: 1.0 + tensor.float() if "_norm." in name else tensor for name, tensor in state.items()}


def is_gemma(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") == "gemma"


def gemma_spec(config: Config) -> GemmaSpec:
    """What config.json says of a language model, or of a sequence classifier with one label; defaults are those of
    transformers' GemmaConfig.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    check_reads_forwards(config)
    check_not_set(config, NOT_COMPUTED, "Gemma")
    choice(config, "hidden_act", TANH, ("gelu", TANH))  # in a Gemma both mean the approximation by tanh
    if config.get("hidden_activation") is not None:
        choice(config, "hidden_activation", TANH, (TANH,))
    width = size(config, "hidden_size")
    return GemmaSpec(
        shape=decoder_shape(
            config, head_dim=256, qkv_bias=False, qk_norm=False, hidden_act=TANH, embedding_scale=math.sqrt(width)
        ),
        answers=None if is_classifier(config, LAYOUT) else NOT_YET_KNOWN,
        is_tied=flag(config, "tie_word_embeddings", True),
        max_length=size(config, "max_position_embeddings"),
        padding_id=None,
        pair_styles=(),
        licence_note=LICENCE_NOTE,
    )


GEMMA = Family(LAYOUT, is_gemma, gemma_spec, is_trained=False)
