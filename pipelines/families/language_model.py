"""What Qwen, Llama and Gemma have in common: sizes and tensors in a checkpoint, and how a logit is made of their head.

A causal language model is asked for a word, and the logit is that of yes, or that of yes minus that of no: one row of
`lm_head`, or the difference of two. A sequence classifier that was made of it has this one row as `score`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..decoder import Decoder, DecoderShape
from ..encoder import PackedNetwork
from ..errors import ModelRefusedError
from ..model_files import shown
from ..rotary import Llama3Positions
from .checkpoint import Shapes, Tensors
from .encoder_config import UNSCALED, number, one_label, rotary_settings, size
from .family import Config, OwnSpec

CLASSIFIER, LANGUAGE_MODEL = "ForSequenceClassification", "ForCausalLM"
HEAD, SCORE, EMBEDDINGS = "lm_head.weight", "score.weight", "model.embed_tokens.weight"
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
class LanguageModelSpec(OwnSpec):
    """A language model, and how a logit is made of its last token."""

    shape: DecoderShape
    answers: tuple[int, int | None] | None
    """The rows of the language model's head for yes and no, or for yes alone; None for a sequence classifier."""
    is_tied: bool = False
    """Whether the head is the embeddings."""

    @property
    @abstractmethod
    def classifier(self) -> str:
        """The class of transformers that gives a pair one logit."""

    @property
    def sizes(self) -> DecoderShape:
        """As in `OwnSpec`."""
        return self.shape

    @property
    def shares_prefixes(self) -> bool:
        """As in `ModelSpec`."""
        return True

    def network(self) -> PackedNetwork:
        """As in `ModelSpec`."""
        return Decoder(self.shape)

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`."""
        self.check_names(tensors)
        state = {"word_embeddings.weight": tensors[EMBEDDINGS], "final_norm.weight": tensors["model.norm.weight"]}
        state[SCORE] = self.score(tensors)
        for i in range(self.shape.num_hidden_layers):
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
        yes, no = self.answers
        head = tensors[EMBEDDINGS if self.is_tied else HEAD]
        own = tensors.get(HEAD, head)
        for answer in (yes,) if no is None else (yes, no):
            if not torch.equal(own[answer], head[answer]):
                raise ModelRefusedError(
                    f"{HEAD} has another row {answer} than {EMBEDDINGS}, and tie_word_embeddings is true: version 4 of "
                    "transformers scores by the embeddings, version 5 by the head. Set tie_word_embeddings of "
                    f"config.json to false if the head is right; otherwise take {HEAD} out of the weights"
                )
        row = head[yes].float().clone() if no is None else head[yes].float() - head[no].float()
        return row[None]  # never a view of the head: safetensors refuses to write such

    def plain_checkpoint(self, tensors: Mapping[str, torch.Tensor], config: Config) -> tuple[Tensors, Config]:
        """As in `ModelSpec`, of the sequence classifier."""
        body = {name: tensor for name, tensor in tensors.items() if name not in (HEAD, SCORE)}
        return body | {SCORE: self.score(tensors)}, config | {
            "architectures": [self.classifier],
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "tie_word_embeddings": False,
        }

    @property
    def may_lack(self) -> tuple[str, ...]:
        """As in `OwnSpec`: a head that is the embeddings; where it is there all the same, `score` compares the two."""
        return (HEAD,) if self.is_tied else ()

    def shapes(self) -> Shapes:
        """As in `OwnSpec`."""
        shape = self.shape
        width, wide, queries = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads * shape.head_dim
        found = Shapes()
        found.add("model.embed_tokens", shape.vocab_size, width, bias=False)
        found.add("model.norm", width, bias=False)
        if self.answers is None:
            found.add("score", 1, width, bias=False)
        else:
            found.add("lm_head", shape.vocab_size, width, bias=False)
        for i in range(shape.num_hidden_layers):
            attention, feed_forward = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
            for name, rows in {"q_proj": queries, "k_proj": shape.kv_width, "v_proj": shape.kv_width}.items():
                found.add(f"{attention}.{name}", rows, width, bias=shape.qkv_bias)
            if shape.qk_norm:
                found.add(f"{attention}.q_norm", shape.head_dim, bias=False)
                found.add(f"{attention}.k_norm", shape.head_dim, bias=False)
            found.add(f"{attention}.o_proj", width, queries, bias=False)
            found.add(f"{feed_forward}.gate_proj", wide, width, bias=False)
            found.add(f"{feed_forward}.up_proj", wide, width, bias=False)
            found.add(f"{feed_forward}.down_proj", width, wide, bias=False)
            for name in ("input_layernorm", "post_attention_layernorm"):
                found.add(f"model.layers.{i}.{name}", width, bias=False)
        return found


def is_classifier(config: Config, layout: str) -> bool:
    """Whether config.json is that of a sequence classifier, with one label, and not of a language model.

    Raises ModelRefusedError for anything else.
    """
    listed = config.get("architectures", [LANGUAGE_MODEL])
    architecture = str(listed[0]) if isinstance(listed, list) and listed else shown(listed)
    if architecture.endswith(CLASSIFIER):
        one_label(config)
        return True
    if architecture.endswith(LANGUAGE_MODEL):
        return False
    raise ModelRefusedError(
        f"architectures is {shown(architecture)}; a {layout} model is a {LANGUAGE_MODEL} or {CLASSIFIER}"
    )


def check_rows(config: Config, *rows: int) -> None:
    """Raises ModelRefusedError for a token that the model's head has no row of."""
    if max(rows) >= size(config, "vocab_size"):
        raise ModelRefusedError(f"the score is that of token {max(rows)}, and vocab_size is {config['vocab_size']}")


def decoder_shape(config: Config, head_dim: int | None = None, **more: Any) -> DecoderShape:
    """The sizes of the decoder; `more` are those that its family says. Raises as `Family.spec`.

    `head_dim` is taken where config.json has none, and without it the heads share the width.
    """
    heads, width = size(config, "num_attention_heads"), size(config, "hidden_size")
    groups = size({"num_key_value_heads": heads} | given(config, "num_key_value_heads"), "num_key_value_heads")
    head_dim = size({"head_dim": head_dim or width // heads} | given(config, "head_dim"), "head_dim")
    if heads % groups or head_dim % 2:
        raise ModelRefusedError(
            f"num_attention_heads is {heads}, num_key_value_heads {groups} and head_dim {head_dim}; the second divides "
            "the first, and the third is even"
        )
    theta, positions = rotary_positions(config)
    return DecoderShape(
        vocab_size=size(config, "vocab_size"),
        hidden_size=width,
        num_hidden_layers=size(config, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        intermediate_size=size(config, "intermediate_size"),
        rms_norm_eps=number(config, "rms_norm_eps", 1e-6),
        rope_theta=theta,
        llama3_positions=positions,
        **more,
    )


def given(config: Config, key: str) -> Config:
    """The key with its value, unless that is null, which stands for the default."""
    return {key: config[key]} if config.get(key) is not None else {}


def rotary_positions(config: Config) -> tuple[float, Llama3Positions | None]:
    """The base of the rotary positions, and how they are scaled; raises ModelRefusedError for other scalings."""
    settings = rotary_settings(config, theta=10_000.0)
    theta = number(settings, "rope_theta", most=None)
    kind = settings.pop("rope_type")
    del settings["rope_theta"]
    if kind == UNSCALED and not settings:
        return theta, None
    if kind != "llama3" or set(settings) != set(Llama3Positions.__dataclass_fields__):
        raise ModelRefusedError(
            f"rotary positions are {shown(kind)} with {shown(settings)}; known are unscaled ones, and those of Llama 3"
        )
    low, high = (number(settings, key, most=None) for key in ("low_freq_factor", "high_freq_factor"))
    if not low < high:
        raise ModelRefusedError(f"low_freq_factor is {low} and high_freq_factor {high}; the second is larger")
    length = size(settings, "original_max_position_embeddings")
    return theta, Llama3Positions(number(settings, "factor", most=None), low, high, length)
