"""What a language model reads of a pair: its publisher's words around the query and the passage.

A tokenizer may join the end of one text with the beginning of the next. So the words are cut where it never does, and a
query or passage is tokenized with the spaces and line breaks that belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError
from tokenizers import Tokenizer

from ..errors import ConfigError, ModelRefusedError
from ..tokens import PairTemplate

PROBES = ("how long?", " 3 days")
"""Texts by which the places where we cut are compared with what the tokenizer makes of the whole."""
BLANK = "\0"
"""Stands for what a chat template puts between its words."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A publisher's words; `{instruction}` stands for the instruction."""

    first: tuple[str, ...]
    """Before the query; each text is tokenized by itself."""
    query: tuple[str, str]
    """Characters before and after the query that are tokenized with it."""
    middle: tuple[str, ...]
    """Between query and passage, as `first`."""
    passage: str
    """Characters before the passage that are tokenized with it."""
    last: tuple[str, ...]
    """After the passage, as `first`."""
    marks: tuple[str, ...] = ()
    """Special tokens that the words hold."""
    instruction: str | None = None
    """Taken where the user gives none."""
    without_instruction: tuple[str, ...] | None = None
    """`first`, where there is none."""

    @property
    def takes_instruction(self) -> bool:
        """Whether some of the words are the user's."""
        return any("{instruction}" in words for words in self.first + self.last)

    def is_that_of(self, chat_template: str, instruction: str | None) -> bool:
        """Whether the words of a chat template are these, and `instruction`, or else ours, is what it asks for."""
        words = words_of(chat_template)
        before, after = self.query
        rest = "".join((before, BLANK, after, *self.middle, self.passage, BLANK, *self.last))
        if (
            instruction is None
            and self.without_instruction is not None
            and words == "".join((*self.without_instruction, rest))
        ):
            return True
        is_ours = instruction is not None or self.instruction is None or self.instruction in chat_template
        return is_ours and words == "".join((*self.first, rest)).replace("{instruction}", BLANK)

    def template(self, tokenizer: Tokenizer, instruction: str | None, layout: str) -> PairTemplate:
        """The ids of these words.

        Raises ModelRefusedError for a tokenizer that is not the model's, ConfigError for an instruction that has no
        place in them.
        """
        if instruction is not None and not self.takes_instruction:
            raise ConfigError(f"{layout} models take no instruction, and one is given; leave it out")
        for mark in self.marks:
            if tokenizer.token_to_id(mark) is None:
                raise ModelRefusedError(f"tokenizer.json has no {mark}; it does not belong to a {layout} model")
        asked = instruction if instruction is not None else self.instruction
        first = self.first
        if asked is None and self.without_instruction is not None:
            first = self.without_instruction
        first, last = (
            tuple(words.replace("{instruction}", asked or "") for words in part) for part in (first, self.last)
        )
        before, after = self.query
        for probe in PROBES:
            self._check_cut(tokenizer, first[-1], f"{before}{probe}{after}", layout)
            if after:
                self._check_cut(tokenizer, f"{before}{probe}{after}", "".join(self.middle), layout)
            self._check_cut(tokenizer, self.middle[-1], f"{self.passage}{probe}", layout)
        return PairTemplate(
            ids_of(tokenizer, first),
            ids_of(tokenizer, self.middle),
            ids_of(tokenizer, last),
            has_segments=False,
            around_query=self.query,
            before_passage=self.passage,
            before_later_chunk=ids_of(tokenizer, (self.passage.rstrip(),)),
            after_cut_query=ids_of(tokenizer, (after,)) if after else (),
            is_prompt=True,
            takes_instruction=self.takes_instruction,
            instruction=asked,
        )

    def _check_cut(self, tokenizer: Tokenizer, words: str, text: str, layout: str) -> None:
        if ids_of(tokenizer, (words + text,)) != ids_of(tokenizer, (words, text)):
            raise ModelRefusedError(
                f"tokenizer.json joins {words[-12:]!r} with {text!r}; it does not belong to a {layout} model"
            )


def words_of(chat_template: str) -> str:
    """The text of a template of jinja outside its expressions, with BLANK for each of these; nothing of it is run."""
    try:
        # The settings of transformers, which decide what becomes of white space.
        tokens = list(Environment(trim_blocks=True, lstrip_blocks=True).lex(chat_template))
    except TemplateSyntaxError as error:
        raise ModelRefusedError(f"the chat template is no template of jinja: {error}") from None
    return "".join(
        BLANK if kind == "variable_begin" else value for _, kind, value in tokens if kind in ("variable_begin", "data")
    )


def ids_of(tokenizer: Tokenizer, texts: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of texts, each tokenized by itself, one after the other."""
    return tuple(one for text in texts for one in tokenizer.encode(text, add_special_tokens=False).ids)
