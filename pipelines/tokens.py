"""Texts -> token ids, ids -> pairs by the model's template, and what a text counts for in `Usage`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from .config import SPECIAL_TOKENS_PER_TEXT
from .errors import ConfigError, InvalidInputError, ModelRefusedError, NoScore, tokenizer_faults
from .long_texts import cuts_at_spaces, pieces_of
from .packing import TokenPair, cut_by_size

CHARACTERS_PER_CALL = 1_000_000
"""The tokenizer keeps ~100 bytes per token until a call ends: long inputs go through it in slices."""
MAX_INSTRUCTION_CHARACTERS = 16_384
"""Strangers send instructions, and each is tokenized before its length in tokens is known."""
PIECES_PER_CALL = 4
"""A long text is cut, if it can be, so that a slice holds some pieces, which are tokenized side by side."""
UNKNOWN_CHARACTERS = "\u0001 \u0378 \u6f22\u5b57 \U0001f600 \U0010ffff"
"""Any text may hold such: a control character, one that is not assigned, Chinese, an emoji, Unicode's last."""
PROBE = ("how long", "as long as needed")
"""The pair that a tokenizer is asked to join by itself."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens of a pair: first, query, middle, passage, last."""

    first: tuple[int, ...]
    middle: tuple[int, ...]
    last: tuple[int, ...]
    has_segments: bool
    """Whether the model reads token_type_ids: 0 up to the middle, 1 from the passage on."""
    around_query: tuple[str, str] = ("", "")
    """Characters before and after a query that are tokenized with it."""
    before_passage: str = ""
    """Characters before a passage that are tokenized with it."""
    before_later_chunk: tuple[int, ...] = ()
    """What stands before each chunk of a passage but the first, which has `before_passage`."""
    after_cut_query: tuple[int, ...] = ()
    """What stands in the place of the end of a query that is cut."""
    is_prompt: bool = False
    """Whether these are words to a language model, which no tokenizer puts around a pair by itself."""
    takes_instruction: bool = False
    """Whether some of these words may be the user's."""
    instruction: str | None = None
    """What the model is told to look for, in its own words or the user's."""

    @property
    def size(self) -> int:
        """Special tokens of one pair."""
        return len(self.first) + len(self.middle) + len(self.last)

    def cut(self, query_ids: np.ndarray, most: int) -> np.ndarray:
        """The query, of `most` tokens at most."""
        if len(query_ids) <= most:
            return query_ids
        return np.concatenate([query_ids[: max(0, most - len(self.after_cut_query))], self.after_cut_query])

    def join(self, query_ids: np.ndarray, passage_ids: np.ndarray) -> TokenPair:
        """The pair as the model reads it."""
        input_ids = np.concatenate([self.first, query_ids, self.middle, passage_ids, self.last]).astype(np.int32)
        if not self.has_segments:
            return TokenPair(input_ids, None)
        token_type_ids = np.zeros(len(input_ids), dtype=np.int32)
        token_type_ids[len(self.first) + len(query_ids) + len(self.middle) :] = 1
        return TokenPair(input_ids, token_type_ids)


class PairTokenizer:
    """A `tokenizer.json` with the template of its model; truncation and padding are ours, not the tokenizer's."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: PairTemplate,
        characters_per_call: int = CHARACTERS_PER_CALL,
        ask: Callable[[str], PairTemplate] | None = None,
    ) -> None:
        """Raises ModelRefusedError when the tokenizer itself builds pairs otherwise than `template` says, or fails.

        `ask` gives the template with another instruction, or raises ConfigError where the model takes none.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.template = template
        self.characters_per_call = characters_per_call
        self.ask = ask
        self.cuts_at_spaces = cuts_at_spaces(tokenizer)
        with tokenizer_faults("tokenizer.json fails on plain texts"):
            if not template.is_prompt:
                self._check_template()
            self.token_ids([UNKNOWN_CHARACTERS])

    def with_instruction(self, instruction: str | None) -> PairTokenizer:
        """The same with another instruction, or this one where there is none; raises ConfigError."""
        if instruction is None:
            return self
        check_instruction(instruction)
        if self.ask is None:
            raise ConfigError("the model takes no instruction, and one is given; leave it out")
        other = copy.copy(self)
        other.template = self.ask(instruction)
        return other

    def query_ids(self, queries: Sequence[str]) -> list[np.ndarray]:
        """As `token_ids`, of texts that are queries."""
        before, after = self.template.around_query
        return self.token_ids([f"{before}{query}{after}" for query in queries] if before or after else queries)

    def passage_ids(self, passages: Sequence[str]) -> list[np.ndarray]:
        """As `token_ids`, of texts that are passages."""
        before = self.template.before_passage
        return self.token_ids([f"{before}{passage}" for passage in passages] if before else passages)

    def token_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text without special tokens, int32, uncut; all texts must be valid (see `check_text`)."""
        pieces = [self.pieces(text) for text in texts]
        ids = iter(self._ids_of_pieces([piece for of_text in pieces for piece in of_text]))
        return [next(ids) if len(of_text) == 1 else np.concatenate([next(ids) for _ in of_text]) for of_text in pieces]

    def pieces(self, text: str) -> list[str]:
        """The pieces that a text goes through the tokenizer in, which have the tokens of the text; mostly itself."""
        limit = max(1, self.characters_per_call // PIECES_PER_CALL)
        return pieces_of(text, limit) if self.cuts_at_spaces and len(text) > limit else [text]

    def _ids_of_pieces(self, pieces: Sequence[str]) -> list[np.ndarray]:
        ids: list[np.ndarray] = []
        for start, end in slices_by_characters(pieces, self.characters_per_call):
            encodings = self.tokenizer.encode_batch_fast(list(pieces[start:end]), add_special_tokens=False)
            ids += [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return ids

    def _check_template(self) -> None:
        probe = joined(self.tokenizer)
        query_ids, passage_ids = self.token_ids(PROBE)
        ours = self.template.join(query_ids, passage_ids)
        ids = [int(one) for one in ours.input_ids]
        if ids != probe.ids or (ours.token_type_ids is not None and list(ours.token_type_ids) != probe.type_ids):
            raise ModelRefusedError(
                f"tokenizer.json joins a pair as {probe.ids} (segments {probe.type_ids}), the model's family as "
                f"{ids}; scores would be wrong, so take the tokenizer that belongs to the weights"
            )


def joined(tokenizer: Tokenizer) -> Encoding:
    """PROBE as the tokenizer itself joins it."""
    with tokenizer_faults("tokenizer.json fails on plain texts"):
        return tokenizer.encode(*PROBE)


def template_of(tokenizer: Tokenizer) -> PairTemplate:
    """The template that a tokenizer itself has for pairs, without segments.

    Raises ModelRefusedError unless it puts tokens before, between and behind the two texts.
    """
    probe = joined(tokenizer)
    own: list[list[int]] = [[], [], []]
    place = 0
    for token, text in zip(probe.ids, probe.sequence_ids, strict=True):
        if text is None:
            own[place].append(token)
        else:
            place = text + 1
    if not all(own):
        raise ModelRefusedError(
            f"tokenizer.json joins a pair as {probe.tokens}, without tokens of its own before, between and behind the "
            "two texts; take the tokenizer that belongs to the weights"
        )
    first, middle, last = map(tuple, own)
    return PairTemplate(first, middle, last, has_segments=False)


def check_text(text: object, what: str) -> str:
    """`text` itself, if it is one that can be tokenized; raises InvalidInputError, which starts with its reason."""
    if not isinstance(text, str):
        raise InvalidInputError(f"{NoScore.NOT_TEXT}: {what} is {type(text).__name__}, not a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                f"{NoScore.INVALID_UNICODE}: {what} holds a lone surrogate at character {error.start}; "
                "replace it before sending"
            ) from None
    return text


def check_instruction(instruction: object) -> None:
    """Raises ConfigError for what is no text that can be tokenized, or is no instruction for its length."""
    try:
        text = check_text(instruction, "instruction")
    except InvalidInputError as error:
        raise ConfigError(str(error)) from None
    if not text.strip():  # which publishers' programs do not take alike: for none, or for an empty one
        raise ConfigError("instruction has nothing but white space; leave it out, and the model has its publisher's")
    if len(text) > MAX_INSTRUCTION_CHARACTERS:
        raise ConfigError(
            f"instruction has {len(text):,} characters, so that the prompt of a model would leave no room for a pair; "
            f"at most {MAX_INSTRUCTION_CHARACTERS:,} are read"
        )


def check_query(text: object, what: str) -> str:
    """As `check_text`; a query also has something to ask for."""
    query = check_text(text, what)
    if not query.strip():
        raise InvalidInputError(f"{NoScore.BLANK_QUERY}: {what} has nothing but white space")
    return query


def count_tokens(query_ids: np.ndarray, documents_ids: Sequence[np.ndarray]) -> int:
    """Tokens that a list is billed for: query once, each document once, uncut, each with its own special tokens.

    The rule behind all three published answers of Jina's API (383, 253 and 815 tokens).
    """
    texts = [query_ids, *documents_ids]
    return sum(len(ids) + SPECIAL_TOKENS_PER_TEXT for ids in texts)


def slices_by_characters(texts: Sequence[str], limit: int) -> list[tuple[int, int]]:
    """Ranges of `texts` with at most `limit` characters each; a longer text is a range of its own."""
    return list(cut_by_size(map(len, texts), limit))
