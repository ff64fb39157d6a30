"""Qwen2 and Qwen3 as rerankers: Qwen3-Reranker and mxbai-rerank-v2, in the three forms in which teams have them.

The logit is that of yes minus that of no. Published are the language model (two rows of `lm_head`), the same with
`modules.json` of sentence-transformers, which names the two rows (LogitScore), and a sequence classifier whose one row
is their difference. All three give the same logits here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

from tokenizers import Tokenizer

from ..errors import ModelRefusedError
from ..model_files import MODULES, shown
from ..tokens import PairTemplate
from .chain import LogitScore
from .encoder_config import check_not_set, check_reads_forwards, choice, flag, size
from .family import Config, Family, check_highest_id
from .language_model import LanguageModelSpec, check_rows, decoder_shape, is_classifier
from .prompt import Prompt

ANSWER_TOKENS = {"yes": 9693, "no": 2152, "1": 16, "0": 15}
"""Of the tokenizers of all Qwen2 and Qwen3 models."""
MARKS = ("<|im_start|>", "<|im_end|>")
QWEN3 = Prompt(
    # https://github.com/QwenLM/Qwen3-Embedding/blob/main/examples/qwen3_reranker_transformers.py
    first=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        "<Instruct>: {instruction}\n<Query>:",
    ),
    query=(" ", "\n"),
    middle=("<Document>:",),
    passage=" ",
    last=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    marks=MARKS,
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)
MXBAI_BEGINNING = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n"
)
MXBAI = Prompt(
    # https://github.com/mixedbread-ai/mxbai-rerank/blob/main/mxbai_rerank/mxbai_rerank_v2.py
    first=(MXBAI_BEGINNING, "instruction: {instruction}\nquery:"),
    query=(" ", ""),
    middle=("\n", "document:"),
    passage=" ",
    last=(
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    marks=MARKS,
    without_instruction=(MXBAI_BEGINNING, "query:"),
)


class Kind(NamedTuple):
    """What tells the rerankers of one model_type from others."""

    layout: str
    prompt: Prompt
    answers: tuple[str, str]
    """The words for yes and no, which are a token each."""


KINDS = {
    "qwen3": Kind("qwen3-reranker", QWEN3, ("yes", "no")),
    "qwen2": Kind("mxbai-rerank-v2", MXBAI, ("1", "0")),
}
"""By model_type."""
NOT_COMPUTED = ("auto_map", "quantization_config", "use_sliding_window")
"""Keys that change what a model computes in a way that is not implemented here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenSpec(LanguageModelSpec):
    """A Qwen2 or Qwen3."""

    model_type: str
    named_by_modules: bool = False
    """Whether modules.json names the rows of the head; else they are the words of the prompt, and the tokenizer has to
    agree."""
    default_instruction: str | None = None
    """That of the modules, which takes the place of the publisher's."""

    @property
    def kind(self) -> Kind:
        """Which rerankers it is one of."""
        return KINDS[self.model_type]

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return self.kind.layout

    @property
    def classifier(self) -> str:
        """As in `LanguageModelSpec`."""
        return f"Qwen{self.model_type[-1]}ForSequenceClassification"

    @property
    def own_instruction(self) -> str | None:
        """As in `ModelSpec`."""
        return self.default_instruction or self.kind.prompt.instruction

    def pair_template(self, tokenizer: Tokenizer, instruction: str | None = None) -> PairTemplate:
        """As in `ModelSpec`."""
        check_highest_id(tokenizer, self.vocab_size)
        if self.answers is not None and not self.named_by_modules:
            for word, expected in zip(self.kind.answers, self.answers, strict=True):
                found = tokenizer.token_to_id(word)
                if found != expected:
                    raise ModelRefusedError(
                        f"tokenizer.json gives {word!r} the id {found}, and {self.layout} answers with {expected}; "
                        "take the tokenizer that belongs to the weights"
                    )
        asked = self.default_instruction if instruction is None else instruction
        return self.kind.prompt.template(tokenizer, asked, self.layout)


def is_qwen(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") in tuple(KINDS)


def qwen_spec(config: Config) -> QwenSpec:
    """What config.json says of a language model, or of a sequence classifier with one label.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    kind = KINDS[config["model_type"]]
    if is_classifier(config, kind.layout):
        return of_config(config, answers=None)
    yes, no = (ANSWER_TOKENS[word] for word in kind.answers)
    check_rows(config, yes, no)
    return of_config(config, answers=(yes, no))


def qwen_with_logit_score(config: Config, module: LogitScore) -> QwenSpec:
    """What config.json says of a language model whose rows modules.json names; raises as `qwen_spec`."""
    check_rows(config, module.true_token_id, module.false_token_id or 0)
    kind = KINDS[config["model_type"]]
    found = kind.prompt.difference(module.chat_template, module.instruction)
    if found is not None:
        raise ModelRefusedError(
            f"{found}; supported behind a LogitScore is that of {kind.layout}, word by word. If the model was trained "
            f"with those words, delete {MODULES} (or give a revision without it), and it is asked in them"
        )
    answers = module.true_token_id, module.false_token_id
    spec = of_config(config, answers, named_by_modules=True)
    return replace(spec, default_instruction=module.instruction)


def of_config(
    config: Config,
    answers: tuple[int, int | None] | None,
    named_by_modules: bool = False,
) -> QwenSpec:
    """The sizes of the decoder; defaults are those of transformers' Qwen2Config and Qwen3Config."""
    check_reads_forwards(config)
    check_not_set(config, NOT_COMPUTED, "Qwen")
    layers = config.get("layer_types") or []
    if not isinstance(layers, list) or any(one != "full_attention" for one in layers):
        raise ModelRefusedError(f"layer_types is {shown(config['layer_types'])}; supported is full_attention")
    choice(config, "hidden_act", "silu", ("silu",))
    model_type = str(config["model_type"])
    is_qwen3 = model_type == "qwen3"
    if is_qwen3 and flag(config, "attention_bias", False):
        raise ModelRefusedError("attention_bias is true; no published Qwen3 reranker has it, and it is not supported")
    return QwenSpec(
        model_type=model_type,
        shape=decoder_shape(config, head_dim=128 if is_qwen3 else None, qkv_bias=not is_qwen3, qk_norm=is_qwen3),
        answers=answers,
        named_by_modules=named_by_modules,
        is_tied=flag(config, "tie_word_embeddings", False),
        max_length=size(config, "max_position_embeddings"),
        padding_id=None,
        pair_styles=(),
    )


QWEN = Family("qwen", is_qwen, qwen_spec, is_trained=False, with_logit_score=qwen_with_logit_score)
