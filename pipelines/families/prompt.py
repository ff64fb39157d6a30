"""What a language model reads of a pair: its publisher's words around the query and the passage.

A tokenizer may join the end of one text with the beginning of the next. So the words are cut where it never does, and a
query or passage is tokenized with the spaces and line breaks that belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from ..errors import ConfigError, ModelRefusedError
from ..tokens import PairTemplate
from .chat_template import DOCUMENT, INSTRUCTION, QUERY, read_chat_template

PROBES = ("how long?", " 3 days")
"""Texts by which the places where we cut are compared with what the tokenizer makes of the whole."""


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

    def difference(self, chat_template: str, instruction: str | None) -> str | None:
        """What a chat template does otherwise; None where its words are these, with `instruction` or else ours."""
        try:
            found = read_chat_template(chat_template)
        except ModelRefusedError as error:
            return str(error)
        before, after = self.query
        rest = "".join((before, QUERY, after, *self.middle, self.passage, DOCUMENT, *self.last))
        if instruction is None and self.without_instruction is not None:
            is_ours = found.words_without_instruction == "".join((*self.without_instruction, rest))
        else:
            is_ours = found.words == "".join((*self.first, rest)).replace("{instruction}", INSTRUCTION)
            is_ours &= instruction is not None or found.default_instruction == self.instruction
        return None if is_ours else "the chat template has other words"

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
        self._check_cuts(tokenizer, first[-1].replace("{instruction}", self.instruction or ""), layout)
        first, last = (
            tuple(words.replace("{instruction}", asked or "") for words in part) for part in (first, self.last)
        )
        _, after = self.query
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

    def _check_cuts(self, tokenizer: Tokenizer, before_query: str, layout: str) -> None:
        """Raises ModelRefusedError where the tokenizer joins what is tokenized apart here.

        `before_query` has the publisher's instruction: another one, which may be long, stands before the same words.
        """
        before, after = self.query
        for probe in PROBES:
            self._check_cut(tokenizer, before_query, f"{before}{probe}{after}", layout)
            if after:
                self._check_cut(tokenizer, f"{before}{probe}{after}", "".join(self.middle), layout)
            self._check_cut(tokenizer, self.middle[-1], f"{self.passage}{probe}", layout)

    def _check_cut(self, tokenizer: Tokenizer, words: str, text: str, layout: str) -> None:
        if ids_of(tokenizer, (words + text,)) != ids_of(tokenizer, (words, text)):
            raise ModelRefusedError(
                f"tokenizer.json joins {words[-12:]!r} with {text!r}; it does not belong to a {layout} model"
            )


def ids_of(tokenizer: Tokenizer, texts: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of texts, each tokenized by itself, one after the other."""
    return tuple(one for text in texts for one in tokenizer.encode(text, add_special_tokens=False).ids)
