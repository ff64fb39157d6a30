"""Qwen2 and Qwen3 as rerankers: Qwen3-Reranker and mxbai-rerank-v2, in the three forms in which teams have them.

A causal language model is asked for a word, and the logit is that of yes minus that of no. Published are the language
model (the logits of two rows of `lm_head`), the same with `modules.json` of sentence-transformers, which names the two
rows (LogitScore), and a sequence classifier whose one row is their difference. All three give the same logits here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from ..decoder import Decoder, DecoderShape
from ..errors import ModelRefusedError
from ..model_files import shown
from ..tokens import PairTemplate
from .chain import LogitScore
from .checkpoint import Tensors
from .encoder_config import choice, flag, number, one_label, size
from .family import Config, Family, OwnSpec, check_highest_id
from .prompt import Prompt

ANSWER_TOKENS = {"yes": 9693, "no": 2152, "1": 16, "0": 15}
"""Of the tokenizers of all Qwen2 and Qwen3 models."""
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
    answers=("yes", "no"),
    telltale="Judge whether the Document meets the requirements based on the Query and the Instruct provided.",
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
    answers=("1", "0"),
    telltale="You are a search relevance expert who evaluates how well documents match search queries.",
    without_instruction=(MXBAI_BEGINNING, "query:"),
)
PROMPTS = {"qwen3": QWEN3, "qwen2": MXBAI}
LAYOUTS = {"qwen3": "qwen3-reranker", "qwen2": "mxbai-rerank-v2"}
"""By model_type."""
CLASSIFIER, LANGUAGE_MODEL = "ForSequenceClassification", "ForCausalLM"
HEAD, SCORE, EMBEDDINGS = "lm_head.weight", "score.weight", "model.embed_tokens.weight"
NOT_COMPUTED = ("auto_map", "rope_scaling", "quantization_config", "use_sliding_window")
"""Keys that change what a model computes in a way that is not implemented here."""
UNSCALED = {"rope_type": "default", "rope_theta": 0}
"""What `rope_parameters` says, besides the base itself."""
NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "q",
    "self_attn.q_norm": "q_norm",
    "self_attn.k_norm": "k_norm",
    "self_attn.o_proj": "attention_out",
    "post_attention_layernorm": "feed_forward_norm",
    "mlp.gate_proj": "feed_forward_gate",
    "mlp.up_proj": "feed_forward_in",
    "mlp.down_proj": "feed_forward_out",
}
"""Modules of a layer in a checkpoint, and ours; keys and values are one of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenSpec(OwnSpec):
    """A Qwen2 or Qwen3, and how a logit is made of its last token."""

    kind: str
    """Its model_type."""
    shape: DecoderShape
    answers: tuple[int, int | None] | None
    """The rows of the language model's head for yes and no; None for a sequence classifier, which has one row."""
    named_by_modules: bool = False
    """Whether modules.json names these rows; else they are the words of the prompt, and the tokenizer has to agree."""
    is_tied: bool = False
    """Whether the head is the embeddings, whatever the checkpoint has beside them."""

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return LAYOUTS[self.kind]

    @property
    def sizes(self) -> DecoderShape:
        """As in `OwnSpec`."""
        return self.shape

    @property
    def shares_prefixes(self) -> bool:
        """As in `ModelSpec`."""
        return True

    @property
    def own_instruction(self) -> str | None:
        """As in `ModelSpec`."""
        return PROMPTS[self.kind].instruction

    def network(self) -> Decoder:
        """As in `ModelSpec`."""
        return Decoder(self.shape)

    def pair_template(self, tokenizer: Tokenizer, instruction: str | None = None) -> PairTemplate:
        """As in `ModelSpec`."""
        check_highest_id(tokenizer, self.vocab_size)
        prompt = PROMPTS[self.kind]
        if self.answers is not None and not self.named_by_modules:
            for word, expected in zip(prompt.answers, self.answers, strict=True):
                found = tokenizer.token_to_id(word)
                if found != expected:
                    raise ModelRefusedError(
                        f"tokenizer.json gives {word!r} the id {found}, and {self.layout} answers with {expected}; "
                        "take the tokenizer that belongs to the weights"
                    )
        return prompt.template(tokenizer, instruction, self.layout)

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`."""
        count = self.shape.num_hidden_layers
        self.check_names(tensors)
        state = {"word_embeddings.weight": tensors[EMBEDDINGS], "final_norm.weight": tensors["model.norm.weight"]}
        state[SCORE] = self.score(tensors)
        for i in range(count):
            theirs, ours = f"model.layers.{i}", f"layers.{i}"
            for kind in ("weight", "bias"):
                for name, module in NAMES.items():
                    tensor = tensors.get(f"{theirs}.{name}.{kind}")
                    if tensor is not None:
                        state[f"{ours}.{module}.{kind}"] = tensor
                key = tensors.get(f"{theirs}.self_attn.k_proj.{kind}")
                if key is not None:
                    state[f"{ours}.kv.{kind}"] = torch.cat([key, tensors[f"{theirs}.self_attn.v_proj.{kind}"]])
        return state

    def score(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The row that makes the logit, [1, D]."""
        if self.answers is None:
            return tensors[SCORE]
        head = tensors[EMBEDDINGS if self.is_tied else HEAD]
        yes, no = self.answers
        row = head[yes].float() if no is None else head[yes].float() - head[no].float()
        return row[None]

    def plain_checkpoint(self, tensors: Mapping[str, torch.Tensor], config: Config) -> tuple[Tensors, Config]:
        """As in `ModelSpec`, of transformers' Qwen3ForSequenceClassification or Qwen2ForSequenceClassification."""
        body = {name: tensor for name, tensor in tensors.items() if name not in (HEAD, SCORE)}
        return body | {SCORE: self.score(tensors)}, config | {
            "architectures": [f"Qwen{self.kind[-1]}{CLASSIFIER}"],
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "tie_word_embeddings": False,
        }

    @property
    def may_lack(self) -> tuple[str, ...]:
        """As in `OwnSpec`: a head that is the embeddings."""
        return (HEAD,) if self.is_tied else ()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As in `OwnSpec`."""
        shape = self.shape
        width, wide, queries = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim
        found = {EMBEDDINGS: (shape.vocab_size, width), "model.norm.weight": (width,)}
        if self.answers is None:
            found[SCORE] = (1, width)
        else:
            found[HEAD] = (shape.vocab_size, width)
        for i in range(shape.num_hidden_layers):
            layer = f"model.layers.{i}"
            heads = {"q_proj": queries, "k_proj": shape.kv_width, "v_proj": shape.kv_width}
            for name, rows in heads.items():
                found[f"{layer}.self_attn.{name}.weight"] = (rows, width)
                if shape.qkv_bias:
                    found[f"{layer}.self_attn.{name}.bias"] = (rows,)
            if shape.qk_norm:
                found |= {f"{layer}.self_attn.{name}.weight": (shape.head_dim,) for name in ("q_norm", "k_norm")}
            found[f"{layer}.self_attn.o_proj.weight"] = (width, queries)
            found |= {f"{layer}.mlp.{name}.weight": (wide, width) for name in ("gate_proj", "up_proj")}
            found[f"{layer}.mlp.down_proj.weight"] = (width, wide)
            norms = ("input_layernorm", "post_attention_layernorm")
            found |= {f"{layer}.{name}.weight": (width,) for name in norms}
        return found


def is_qwen(config: Config, tensor_names: Collection[str]) -> bool:
    """Whether config.json says so."""
    return config.get("model_type") in tuple(PROMPTS)


def qwen_spec(config: Config) -> QwenSpec:
    """What config.json says of a language model, or of a sequence classifier with one label.

    Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing.
    """
    kind, listed = str(config["model_type"]), config.get("architectures", [LANGUAGE_MODEL])
    architecture = str(listed[0]) if isinstance(listed, list) and listed else shown(listed)
    if architecture.endswith(CLASSIFIER):
        one_label(config)
        return of_config(config, answers=None)
    if not architecture.endswith(LANGUAGE_MODEL):
        raise ModelRefusedError(
            f"architectures is {shown(architecture)}; a {LAYOUTS[kind]} model is a {LANGUAGE_MODEL} or {CLASSIFIER}"
        )
    yes, no = (ANSWER_TOKENS[word] for word in PROMPTS[kind].answers)
    check_rows(config, yes, no)
    return of_config(config, answers=(yes, no))


def qwen_with_logit_score(config: Config, module: LogitScore) -> QwenSpec:
    """What config.json says of a language model whose rows modules.json names; raises as `qwen_spec`."""
    check_rows(config, module.true_token_id, module.false_token_id or 0)
    kind = str(config["model_type"])
    if module.chat_template is not None and PROMPTS[kind].telltale not in module.chat_template:
        raise ModelRefusedError(
            f"the chat template does not say {PROMPTS[kind].telltale!r}, as that of {LAYOUTS[kind]} does; other "
            "prompts are not supported"
        )
    answers = module.true_token_id, module.false_token_id
    return of_config(config, answers, named_by_modules=True, max_length=module.max_length)


def check_rows(config: Config, *rows: int) -> None:
    """Raises ModelRefusedError for a token that the model's head has no row of."""
    if max(rows) >= size(config, "vocab_size"):
        raise ModelRefusedError(f"the score is that of token {max(rows)}, and vocab_size is {config['vocab_size']}")


def of_config(
    config: Config,
    answers: tuple[int, int | None] | None,
    named_by_modules: bool = False,
    max_length: int | None = None,
) -> QwenSpec:
    """The sizes of the decoder; defaults are those of transformers' Qwen2Config and Qwen3Config."""
    for key in NOT_COMPUTED:
        if config.get(key):
            raise ModelRefusedError(f"{key} is {shown(config[key])}; this is not implemented for Qwen models")
    kind = str(config["model_type"])
    layers = config.get("layer_types") or []
    if not isinstance(layers, list) or any(one != "full_attention" for one in layers):
        raise ModelRefusedError(f"layer_types is {shown(config['layer_types'])}; supported is full_attention")
    choice(config, "hidden_act", "silu", ("silu",))
    heads, width = size(config, "num_attention_heads"), size(config, "hidden_size")
    groups = size(config, "num_key_value_heads")
    head_dim = size({"head_dim": 128 if kind == "qwen3" else width // heads} | config, "head_dim")
    if heads % groups or head_dim % 2:
        raise ModelRefusedError(
            f"num_attention_heads is {heads}, num_key_value_heads {groups} and head_dim {head_dim}; the second divides "
            "the first, and the third is even"
        )
    is_qwen3 = kind == "qwen3"
    if is_qwen3 and flag(config, "attention_bias", False):
        raise ModelRefusedError("attention_bias is true; no published Qwen3 reranker has it, and it is not supported")
    shape = DecoderShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        intermediate_size=size(config, "intermediate_size"),
        rms_norm_eps=number(config, "rms_norm_eps", 1e-6),
        rope_theta=rope_theta(config),
        qkv_bias=not is_qwen3,
        qk_norm=is_qwen3,
    )
    positions = size(config, "max_position_embeddings")
    return QwenSpec(
        kind=kind,
        shape=shape,
        answers=answers,
        named_by_modules=named_by_modules,
        is_tied=flag(config, "tie_word_embeddings", False),
        max_length=min(positions, max_length or positions),
        padding_id=None,
        pair_styles=(),
    )


def rope_theta(config: Config) -> float:
    """The base of the rotary positions; raises ModelRefusedError for positions that are scaled."""
    given: Any = config.get("rope_parameters") or {}
    if not isinstance(given, dict) or {"rope_type": "default", **given, "rope_theta": 0} != UNSCALED:
        raise ModelRefusedError(f"rope_parameters is {shown(given)}; only unscaled positions are known")
    return number({"rope_theta": config.get("rope_theta", 10_000.0)} | given, "rope_theta", most=None)


QWEN = Family("qwen", is_qwen, qwen_spec, is_packed_encoder=False, with_logit_score=qwen_with_logit_score)
