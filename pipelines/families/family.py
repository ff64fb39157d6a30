"""What a family of models says of itself, and what scoring needs to know of one model besides its tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Protocol, Self

import torch
from tokenizers import Tokenizer

from ..encoder import EncoderShape, PackedEncoder, PackedNetwork
from ..errors import ConfigError, ModelRefusedError
from ..model_files import TensorHeader, shown
from ..tokens import PairTemplate, joined
from .chain import Chain, LogitScore
from .checkpoint import (
    TensorNames,
    Tensors,
    check_headers,
    check_number_of_layers,
    check_same_names,
    check_same_shapes,
    check_types,
    from_checkpoint,
)

Config = dict[str, Any]
"""A parsed config.json."""


@dataclass(frozen=True, slots=True)
class PairStyle:
    """How the tokenizers of a family join a query and a passage."""

    start: str
    """The special token before the query."""
    separator: str
    """The special token between the two texts, and after the passage."""
    separators_between: int
    has_segments: bool
    """Whether the model reads token_type_ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(ABC):
    """All that scoring needs to know of a model besides its tensors; what they are called, its family knows."""

    max_length: int
    """Tokens of the longest pair the model can read."""
    padding_id: int | None
    """Where RoBERTa's positions count from; None counts from 0."""
    pair_styles: tuple[PairStyle, ...]
    """Usually one. The first whose start token the tokenizer has is taken."""
    activation: str = "sigmoid"
    """Logit -> relevance_score."""
    gives_segments: bool = True
    """Whether the model is given token_type_ids; without, all tokens are of segment 0, as transformers has it then."""
    licence_note: str | None = None
    """What a user must know of the published weights' licence; said when the model is loaded."""

    @property
    @abstractmethod
    def layout(self) -> str:
        """The name of the family in fingerprints and messages."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many tokens have an embedding."""

    @property
    def segments(self) -> int:
        """How many values of token_type_ids have an embedding."""
        return 1

    @property
    def shares_prefixes(self) -> bool:
        """Whether `network` takes a `SharedBatch`, in which what pairs begin with alike stands once."""
        return False

    @property
    def own_instruction(self) -> str | None:
        """The instruction that the model reads where none is given."""
        return None

    @property
    def unused(self) -> tuple[str, ...]:
        """What the names of tensors begin with that a checkpoint may hold and that no score depends on."""
        return ()

    def with_vocabulary(self, load: Callable[[], Tokenizer]) -> ModelSpec:  # noqa: ARG002 - most know enough
        """The same, once the tokenizer, which `load` loads, has said what config.json does not; mostly nothing.

        Raises ModelRefusedError for a tokenizer that is not the model's.
        """
        return self

    def with_segments(self, *, given: bool) -> Self:
        """The same, with `gives_segments`."""
        return replace(self, gives_segments=given)

    @abstractmethod
    def network(self) -> PackedNetwork:
        """The forward pass, whose weights are still to be loaded."""

    @abstractmethod
    def check_tensors(self, headers: Mapping[str, TensorHeader]) -> None:
        """Raises ModelRefusedError for a checkpoint that holds other tensors than config.json describes."""

    @abstractmethod
    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """The checkpoint's tensors under the names of `network`; raises ModelRefusedError for other tensors."""

    def plain_checkpoint(self, tensors: Mapping[str, torch.Tensor], config: Config) -> tuple[Tensors, Config]:
        """Tensors and config.json of a class of transformers that gives the same logits: here, they are as they were.

        Raises ModelRefusedError where there is no such class.
        """
        return dict(tensors), config

    def pair_template(self, tokenizer: Tokenizer, instruction: str | None = None) -> PairTemplate:
        """The template with this tokenizer's ids, and an instruction, if the model takes one.

        Raises ModelRefusedError when the tokenizer lacks the special tokens, ConfigError for an instruction that the
        model does not take.
        """
        if instruction is not None:
            raise ConfigError(f"{self.layout} models take no instruction, and one is given; leave it out")
        template = self.plain_template(tokenizer)
        check_highest_id(tokenizer, self.vocab_size)
        if self.gives_segments and self.segments > 1 and not template.has_segments and any(joined(tokenizer).type_ids):
            raise ModelRefusedError(
                f"type_vocab_size is {self.segments}, and tokenizer.json gives the passage of a pair a segment of its "
                f"own; that is not supported for {self.layout} models with its special tokens. If the model was "
                "trained without, model_input_names of tokenizer_config.json has to list its inputs without "
                "token_type_ids"
            )
        return template

    def plain_template(self, tokenizer: Tokenizer) -> PairTemplate:
        """As `pair_template`, of a model that takes no instruction."""
        known = (style for style in self.pair_styles if tokenizer.token_to_id(style.start) is not None)
        style = next(known, self.pair_styles[0])
        start, separator = tokenizer.token_to_id(style.start), tokenizer.token_to_id(style.separator)
        if start is None or separator is None:
            raise ModelRefusedError(
                f"tokenizer.json has no {style.start} or {style.separator}, which pairs of a {self.layout} model are "
                "built with; one with other tokens is not supported"
            )
        has_segments = style.has_segments and self.gives_segments
        if has_segments and self.segments < 2:  # the passage is segment 1
            raise ModelRefusedError(
                f"type_vocab_size is {self.segments}, and the passages of a pair are segment 1 with the "
                f"tokenizer's {style.start} and {style.separator}; a cross-encoder with this tokenizer has 2 segments"
            )
        return PairTemplate((start,), (separator,) * style.separators_between, (separator,), has_segments)


def check_highest_id(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Raises ModelRefusedError for a tokenizer with ids that have no embedding."""
    token, highest = max(tokenizer.get_vocab(with_added_tokens=True).items(), key=itemgetter(1))
    if highest >= vocab_size:  # on a GPU such an id would kill the process
        raise ModelRefusedError(
            f"tokenizer.json gives {shown(token)} the id {highest}, and vocab_size of config.json is {vocab_size}; "
            "take the tokenizer that belongs to the weights"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec(ModelSpec):
    """A model that `PackedEncoder` computes: BERT and its descendants. Only of these some can be trained."""

    names: TensorNames
    shape: EncoderShape
    head_activation: str = "tanh"
    """One of `HEAD_ACTIVATIONS` of the encoder."""

    @property
    def layout(self) -> str:
        """As in `ModelSpec`."""
        return self.names.layout

    @property
    def vocab_size(self) -> int:
        """As in `ModelSpec`."""
        return self.shape.vocab_size

    @property
    def segments(self) -> int:
        """As in `ModelSpec`."""
        return self.shape.type_vocab_size

    @property
    def unused(self) -> tuple[str, ...]:
        """As in `ModelSpec`."""
        return self.names.unused

    def network(self) -> PackedEncoder:
        """As in `ModelSpec`."""
        return PackedEncoder(self.shape, self.head_activation)

    def check_tensors(self, headers: Mapping[str, TensorHeader]) -> None:
        """As in `ModelSpec`."""
        check_headers(headers, self.names, self.shape)

    def state_dict(self, tensors: Mapping[str, torch.Tensor]) -> Tensors:
        """As in `ModelSpec`."""
        return from_checkpoint(tensors, self.names, self.shape.num_hidden_layers)

    def plain_checkpoint(self, tensors: Mapping[str, torch.Tensor], config: Config) -> tuple[Tensors, Config]:
        """As in `ModelSpec`, without what no score depends on."""
        return {name: tensor for name, tensor in tensors.items() if not self.names.is_unread(name)}, config


class Sizes(Protocol):
    """What the shapes of all forward passes have, under the names that config.json gives them."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSpec(ModelSpec):
    """A model whose family has a forward pass of its own, and says which tensors a checkpoint holds."""

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """The sizes of the model."""

    @property
    def vocab_size(self) -> int:
        """As in `ModelSpec`."""
        return self.sizes.vocab_size

    @property
    def may_lack(self) -> tuple[str, ...]:
        """Names of tensors that a checkpoint may hold or not."""
        return ()

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a checkpoint, also of those in `may_lack`."""

    def check_tensors(self, headers: Mapping[str, TensorHeader]) -> None:
        """As in `ModelSpec`."""
        self.check_names(headers)
        sizes = {name: getattr(self.sizes, name) for name in ("vocab_size", "hidden_size", "intermediate_size")}
        found = {name: header.shape for name, header in headers.items()}
        check_same_shapes(found, self.expected(headers), sizes)
        check_types(headers)

    def check_names(self, found: Collection[str]) -> None:
        """Raises ModelRefusedError where tensors are missing or left over."""
        check_number_of_layers(found, self.sizes.num_hidden_layers)
        check_same_names(found, self.expected(found), self.layout, self.sizes.num_hidden_layers)

    def expected(self, found: Collection[str]) -> dict[str, tuple[int, ...]]:
        """The shapes that a checkpoint with these names of tensors is held against."""
        return {name: shape for name, shape in self.shapes().items() if name in found or name not in self.may_lack}


@dataclass(frozen=True, slots=True)
class Family:
    """One family of models, as its file describes it."""

    layout: str
    """Its name in fingerprints and messages."""
    recognises: Callable[[Config, Collection[str]], bool]
    """Whether the model with this config.json and these tensor names is of the family."""
    spec: Callable[[Config], ModelSpec]
    """Reads config.json. Raises ModelRefusedError for what would score wrongly, KeyError for a size that is missing."""
    behind_chain: Callable[[Config, Chain], ModelSpec] | None = None
    """As `spec`, for a model whose score sentence-transformers' modules make; None where this is not supported."""
    is_trained: bool = True
    """Whether training takes its models, and writes them."""
    with_logit_score: Callable[[Config, LogitScore], ModelSpec] | None = None
    """As `spec`, for a language model of which sentence-transformers takes one logit, or two."""
