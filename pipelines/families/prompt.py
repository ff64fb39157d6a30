"""What a causal language model is asked about a pair: its publisher's words around the query and the passage.

A tokenizer may join the end of one text with the beginning of the next. So the words are cut where it never does, and a
query or passage is tokenized with the spaces and line breaks that belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from ..errors import ModelRefusedError
from ..tokens import PairTemplate

MARKS = ("<|im_start|>", "<|im_end|>")
"""Special tokens of all prompts here."""
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
    answers: tuple[str, str]
    """The words for yes and no, which are a token each."""
    telltale: str
    """A sentence by which the template of a chat is known to be this prompt."""
    instruction: str | None = None
    """Taken where the user gives none."""
    without_instruction: tuple[str, ...] | None = None
    """`first`, where there is none."""

    def template(self, tokenizer: Tokenizer, instruction: str | None, layout: str) -> PairTemplate:
        """The ids of these words; raises ModelRefusedError for a tokenizer that is not the model's."""
        for mark in MARKS:
            if tokenizer.token_to_id(mark) is None:
                raise ModelRefusedError(f"tokenizer.json has no {mark}; it does not belong to a {layout} model")
        asked = instruction if instruction is not None else self.instruction
        if asked is None and self.without_instruction is not None:
            first = self.without_instruction
        else:
            first = tuple(part.replace("{instruction}", asked or "") for part in self.first)
        before, after = self.query
        for probe in PROBES:
            self._check_cut(tokenizer, first[-1], f"{before}{probe}{after}", layout)
            self._check_cut(tokenizer, self.middle[-1], f"{self.passage}{probe}", layout)
        return PairTemplate(
            ids_of(tokenizer, first),
            ids_of(tokenizer, self.middle),
            ids_of(tokenizer, self.last),
            has_segments=False,
            around_query=self.query,
            before_passage=self.passage,
            after_cut_query=ids_of(tokenizer, (after,)) if after else (),
            is_prompt=True,
        )

    def _check_cut(self, tokenizer: Tokenizer, words: str, text: str, layout: str) -> None:
        if ids_of(tokenizer, (words + text,)) != ids_of(tokenizer, (words, text)):
            raise ModelRefusedError(
                f"tokenizer.json joins {words[-12:]!r} with {text!r}; it does not belong to a {layout} model"
            )


def ids_of(tokenizer: Tokenizer, texts: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of texts, each tokenized by itself, one after the other."""
    return tuple(one for text in texts for one in tokenizer.encode(text, add_special_tokens=False).ids)
