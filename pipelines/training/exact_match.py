"""A head for a cross-encoder that sees which words of the query the passage has.

A bi-encoder's vectors know what a text is about, and forget its names, numbers and rare words: what BM25 goes by. So
the cross-encoder begins as a fusion of both. Its vectors get the coordinates of one head more:

- a code of the word, which only equal words share (endings left aside), and the importance of the word in `texts`;
- in the first layer each token of the query looks at the tokens of the passage that have its code, and else at the
  first token. What it sees is its match: 0 for a word that the passage lacks, and more the more often it stands there.
  A norm makes codes larger or smaller, by what else its token holds; a pair of coordinates tells their size;
- in the second layer the first token takes the mean of the query's matches, weighted by importance;
- in the third the first token takes from that how long the passage is, as a long one has many words by chance;
- the last layers carry it to the logit, beside the similarity.

Shape legend: V pieces of the vocabulary, K coordinates of a code; others as in `from_bi_encoder`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from ..errors import ConfigError, ModelRefusedError
from ..evaluation.analysis import load_stemmers
from ..families.int8_rows import INT8_MAX
from .similarity import GAIN, MARK, PENALTY, Builder, Measures, Tensors
from .vocabulary import WORD_START

IMPORTANCE = 7.0
"""The least important word counts exp(-7) times as much as the most important one."""
CODE_IN, CODE = 0.5, 0.3
"""Size of the coordinates of a code among the embeddings, in standard deviations of the token's others, and behind the
first norm."""
IMPORTANCE_IN = 0.5
"""The same of the coordinate of the importance."""
SHARPNESS = 20.0
"""The logit of two equal codes before a threshold: the larger, the less codes count that are nearly equal."""
FOUND = 1.0
"""What is left of it for a word that the passage has once, where a word that it lacks has 0 for the first token."""
USUAL_LENGTH, BREVITY = 120.0, 0.2
"""Of a passage of L tokens, BREVITY L / (USUAL_LENGTH + L) is taken from the part of the query that is matched."""
SHARE = 0.5
"""Of the match beside the coordinates of a mean."""
WEIGHT = 20.0
"""Of the match in the logit, where the similarity has OUT_SCALE (`similarity`)."""
FEWEST_CODES = 16
ALL_CODES = 200_000
"""Where there are fewer, all are listed."""
BEHIND_CODES = 6
"""Coordinates of the head for importance, match and total."""
TOTAL_UNITS, IN_LINE = 6, 8.0
"""Feed-forward units that keep the total, and what makes of -0.6 to 1 something that gelu leaves as it is."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the head knows of each piece of a vocabulary."""

    codes_VK: torch.Tensor
    """Half 1 and half -1; 0 for special tokens."""
    importance_V: torch.Tensor
    """-1 to 0: the logarithm of the inverse document frequency, in units of IMPORTANCE, below that of the rarest."""


def check_weight(weight: float) -> None:
    """Raises ConfigError for a weight of exact matches that is below 0 or no finite number."""
    if not 0 <= weight < math.inf:
        raise ConfigError(f"the weight is {weight}; it is a number from 0 on")


def words_of(tokenizer: Tokenizer, texts: Iterable[str], width: int, rows: int) -> Words:
    """Codes of `width` coordinates, and the importance of words in `texts`, for embeddings of so many `rows`.

    Raises ConfigError without PyStemmer, and ModelRefusedError where there are fewer codes than words.
    """
    without_ending = load_stemmers().Stemmer("english").stemWord
    vocabulary, unlike_others = tokenizer.get_vocab(), ids_without_word(tokenizer)
    numbers: dict[str, int] = {}
    word_V = np.zeros(max(rows, *(number + 1 for number in vocabulary.values())), dtype=np.int64)
    for piece, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        if number not in unlike_others:
            word_V[number] = numbers.setdefault(word_of(piece, without_ending), len(numbers) + 1)
    counts, documents = np.zeros(len(numbers) + 1), 0
    for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        counts[np.unique(word_V[encoding.ids])] += 1
        documents += 1
    rarity = np.log1p((documents - counts + 0.5) / (counts + 0.5))
    importance = np.log(rarity / rarity.max()).clip(-IMPORTANCE, 0) / IMPORTANCE
    importance[0] = -1.0
    codes = np.vstack([np.zeros(width), distinct_codes(len(numbers), width)])
    return Words(torch.from_numpy(codes[word_V[:rows]]).float(), torch.from_numpy(importance[word_V[:rows]]).float())


def ids_without_word(tokenizer: Tokenizer) -> set[int]:
    """The ids of special tokens and of the one for whatever is unknown: two of these need not be the same word."""
    model = json.loads(tokenizer.to_str())["model"]
    named = tokenizer.token_to_id(model.get("unk_token") or "")  # Unigram has the id instead
    unknown = model.get("unk_id", named)
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return special | ({unknown} if unknown is not None else set())


def distinct_codes(count: int, width: int) -> np.ndarray:
    """Rows of half 1 and half -1 in random order, all different: float64 [count, width].

    Raises ModelRefusedError where there are not so many.
    """
    most = math.comb(width, width // 2)
    if count > most:
        raise ModelRefusedError(
            f"the vocabulary has {count:,} words, and {width} coordinates tell {most:,} apart; prune the vocabulary "
            "(`python -m pipelines.training.vocabulary`)"
        )
    rng, plain = np.random.default_rng(0), np.repeat([1.0, -1.0], width // 2)
    if most <= ALL_CODES:
        codes = np.full((most, width), -1.0)
        for row, places in enumerate(itertools.combinations(range(width), width // 2)):
            codes[row, places] = 1.0
        return rng.permutation(codes)[:count]
    found = np.empty((0, width))
    while len(found) < count:
        drawn = np.vstack([found, rng.permuted(np.tile(plain, (count, 1)), axis=1)])
        found = drawn[np.sort(np.unique(drawn, axis=0, return_index=True)[1])]
    return found[:count]


def word_of(piece: str, without_ending: Callable[[str], str]) -> str:
    """What pieces that count as equal have in common: small letters, no mark of a word's start, no English ending."""
    word = piece.removeprefix(WORD_START).casefold()
    return without_ending(word) if word.isascii() and word.isalpha() else word


class MatchingBuilder(Builder):
    """Builds the cross-encoder with the head for exact matches."""

    added_heads = 2
    sharpness = SHARPNESS
    before_codes = 0
    """Coordinates of the head in front of those of the codes."""

    def __init__(
        self,
        tensors: Tensors,
        config: dict[str, Any],
        measures: Measures,
        first_token: int,
        words: Words,
        weight: float = WEIGHT,
    ) -> None:
        super().__init__(tensors, config, measures, first_token)
        if self.depth < 3:
            raise ModelRefusedError(f"{self.depth} layers; the head for exact matches needs 3")
        self.words, self.weight = words, weight
        self.block = slice(self.wide - self.head, self.wide)
        self.codes = slice(self.block.start + self.before_codes, self.wide - BEHIND_CODES)
        self.importance, self.match, self.total = (self.wide - i for i in (6, 4, 2))  # pairs, as marks are

    @classmethod
    def code_width(cls, config: dict[str, Any]) -> int:
        """Coordinates of a code, in a model of this config; raises ModelRefusedError where there are too few."""
        head = int(config["hidden_size"]) // int(config["num_attention_heads"])
        others = cls.before_codes + BEHIND_CODES
        if head - others < FEWEST_CODES:
            raise ModelRefusedError(f"heads of {head} dimensions; codes of words need {FEWEST_CODES + others}")
        return head - others

    def build(self) -> Tensors:
        tensors = super().build()
        tensors["classifier.weight"][0, self.total] = self.weight
        return tensors

    def embed(self) -> None:
        super().embed()
        tables = [self.new[f"embeddings.{name}_embeddings.weight"] for name in ("word", "token_type", "position")]
        word_VW, segment_W, position_KW = tables[0], tables[1][0], tables[2][5 : int(USUAL_LENGTH) : 10]
        # A norm divides by it, so codes that grow with it come out in one size.
        spread_V = torch.stack(
            [(word_VW + segment_W + one)[:, : self.width].std(1, correction=0) for one in position_KW]
        ).mean(0)
        coded = (self.words.codes_VK != 0).any(1) & (spread_V > 0)
        # In 8 bits a code has to be exact, too: so the largest value of its row is made a multiple of it.
        largest_V, place_V = word_VW.abs().max(1)
        wanted_V = CODE_IN * spread_V
        steps_V = (wanted_V / largest_V.clamp(min=1e-9) * INT8_MAX).round().clamp(1, INT8_MAX)
        rows = torch.nonzero(coded)[:, 0]
        places, largest = place_V[rows], (wanted_V * INT8_MAX / steps_V)[rows]
        signs = word_VW[rows, places].sign()
        word_VW[rows] = word_VW[rows].clamp(-largest[:, None], largest[:, None])
        word_VW[rows, places] = signs * largest
        word_VW[rows, self.codes] = wanted_V[rows, None] * self.words.codes_VK[rows]
        importance_V = IMPORTANCE_IN * spread_V * self.words.importance_V
        word_VW[:, self.importance], word_VW[:, self.importance + 1] = importance_V, -importance_V
        # The pair of the total is free before the second layer. The first token is looked at without a code.
        others = torch.arange(len(word_VW)) != self.first_token
        word_VW[others, self.total], word_VW[others, self.total + 1] = wanted_V[others], -wanted_V[others]

    def beside(self, name: str) -> float:
        with_size = self.codes.stop - self.codes.start + 2
        if name == "embeddings.LayerNorm":
            return with_size * (CODE_IN * self.measures.spreads[name]) ** 2
        return with_size * CODE**2 if name == "encoder.layer.0.attention.output.LayerNorm" else 0.0

    def norm(self, name: str, *, carries_mean: bool, mark: float = MARK) -> torch.Tensor:
        weights_D = super().norm(name, carries_mean=carries_mean, mark=mark)
        weight, scale = self.new[f"{name}.weight"], self.scale(name, mark)
        importance, match, total = (slice(place, place + 2) for place in (self.importance, self.match, self.total))
        if name == "embeddings.LayerNorm":
            weight[self.codes] = weight[total] = CODE / CODE_IN * scale
            weight[importance] = scale / IMPORTANCE_IN
        elif name.startswith("encoder.layer.0."):
            weight[importance] = weight[match] = self.measures.spreads[name] * scale
        else:  # only the first token has it
            weight[total] = self.measures.first_spreads[name] * scale
        return weights_D

    def attend(self, layer: str, norm_before: str) -> None:
        super().attend(layer, norm_before)
        heads = {"encoder.layer.0.": self.find, "encoder.layer.1.": self.sum_up, "encoder.layer.2.": self.see_length}
        if layer not in heads:
            return
        parts = {name: self.new[f"{layer}attention.self.{name}.weight"] for name in ("query", "key", "value")}
        biases = {name: self.new[f"{layer}attention.self.{name}.bias"] for name in parts}
        for weight in parts.values():
            weight[self.block] = 0
        out = self.new[f"{layer}attention.output.dense.weight"]
        out[:, self.block] = 0
        place, size = heads[layer](parts, biases)
        out[place, self.block.start], out[place + 1, self.block.start] = size, -size

    def find(self, parts: Tensors, biases: Tensors) -> tuple[int, float]:
        """The first layer: each token takes 1 from tokens of the passage with its code, and 0 from the first token.

        The logit of two tokens is FOUND - sharpness s t (1 - c), where s and t are the sizes of their codes, and c is
        the cosine of these: FOUND for equal codes of any size.
        """
        rows = torch.arange(self.codes.start, self.codes.stop)
        strength = math.sqrt(self.sharpness * math.sqrt(self.head)) / CODE
        parts["query"][rows, rows] = parts["key"][rows, rows] = strength / math.sqrt(len(rows))
        size_row, passage_row, query_row = range(self.codes.stop, self.codes.stop + 3)
        self.read(parts["query"][size_row], self.total, strength * MARK)
        self.read(parts["key"][size_row], self.total, -strength * MARK)
        self.add_to_logits(parts, biases, passage_row, self.passage, FOUND)
        self.add_to_logits(parts, biases, query_row, self.seen_as_query, -PENALTY)
        self.read(parts["value"][self.block.start], self.passage, 1.0)
        return self.match, MARK

    def sum_up(self, parts: Tensors, biases: Tensors) -> tuple[int, float]:
        """The second layer: the first token takes the mean of the query's matches, weighted by importance."""
        row = self.block.start
        self.add_to_logits(parts, biases, row, self.importance, IMPORTANCE)
        self.add_to_logits(parts, biases, row + 1, self.passage, -PENALTY)
        self.send_others_to_first(parts, row + 2)
        self.read(parts["value"][row], self.match, 1.0)
        return self.total, MARK

    def see_length(self, parts: Tensors, biases: Tensors) -> tuple[int, float]:
        """The third layer: of L tokens of the passage the first token takes -L / (USUAL_LENGTH + L)."""
        row = self.block.start
        self.add_to_logits(parts, biases, row, self.passage, -math.log(USUAL_LENGTH))
        self.add_to_logits(parts, biases, row + 1, self.seen_as_query, -PENALTY)
        self.send_others_to_first(parts, row + 2)
        self.read(parts["value"][row], self.passage, -1.0)
        return self.total, BREVITY

    def send_others_to_first(self, parts: Tensors, row: int) -> None:
        """Lets every token but the first see the first alone, whose value is 0."""
        size = math.sqrt(PENALTY * math.sqrt(self.head))
        for place in (self.passage, self.seen_as_query):
            self.read(parts["query"][row], place, size)
            self.read(parts["key"][row], place, -size)

    def add_to_logits(self, parts: Tensors, biases: Tensors, row: int, place: int, size: float) -> None:
        """Adds `size` times what a key has in the pair at `place` to the logits of all queries."""
        root = math.sqrt(abs(size) * math.sqrt(self.head))
        biases["query"][row] = root
        self.read(parts["key"][row], place, math.copysign(root, size))

    def read(self, row_W: torch.Tensor, place: int, size: float) -> None:
        """Lets a row of weights take `size` times what stands in the pair at `place`."""
        row_W[place : place + 2] = torch.tensor([size, -size]) / MARK / 2

    def feed_forward(self, layer: str) -> None:
        """As without exact matches, and the total stays what it is in the first token, and 0 in all others.

        What leaks into another token would grow from norm to norm, where the first token is unlike all others.
        """
        super().feed_forward(layer)
        into, out = (self.new[f"{layer}{name}.dense.weight"] for name in ("intermediate", "output"))
        bias = self.new[f"{layer}intermediate.dense.bias"]
        units = torch.arange(self.wide_units - TOTAL_UNITS, self.wide_units)
        into[units], out[:, units] = 0, 0
        for unit, place, sign in zip(units, [self.total] * 2 + [self.total + 1] * 2, (1, -1, 1, -1), strict=False):
            into[unit, place] = sign * IN_LINE  # gelu(z) - gelu(-z) = z, which takes away what is there
            out[place, unit] = -sign / IN_LINE
        for unit, sign in zip(units[4:], (1, -1), strict=True):  # gelu(z) = z from 3 on, and 0 below -20
            for place in (self.passage, self.seen_as_query):
                self.read(into[unit], place, -PENALTY)
            bias[unit] = IN_LINE
            out[self.total, unit], out[self.total + 1, unit] = sign * MARK / IN_LINE, -sign * MARK / IN_LINE
        self.read(into[units[4]], self.total, IN_LINE)

    def pool(self, layer: str) -> None:
        super().pool(layer)
        parts = {name: self.new[f"{layer}attention.self.{name}.weight"] for name in ("query", "key")}
        biases = {"query": self.new[f"{layer}attention.self.query.bias"].clone()}
        for weight in parts.values():
            weight[self.block] = 0
        for row, place in enumerate((self.passage, self.seen_as_query)):  # all but the first token
            self.add_to_logits(parts, biases, self.block.start + row, place, -PENALTY)
        self.new[f"{layer}attention.self.query.bias"] = biases["query"]
        out = self.new[f"{layer}attention.output.dense.weight"]
        for place in (self.total, self.total + 1):
            out[place, place] = GAIN * SHARE
