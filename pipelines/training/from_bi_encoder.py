"""Makes a cross-encoder whose logit is, before any training, the similarity that a bi-encoder gives its two texts.

    python -m pipelines.training.from_bi_encoder BI_ENCODER OUTPUT --texts "train/*/*.parquet"

A plain encoder with a new head ranks at random, and needs hundreds of thousands of pairs to find again what the
bi-encoder knew. This model has the bi-encoder's order from the start. Training teaches it the rest: to look from one
text into the other. It is an ordinary BERT. Its weights are those of the bi-encoder, and some that are built:

- Each vector gets the coordinates of one more head. Marks there say to which text a token belongs. Two of the
  dimensions of each head are given up for them: they forbid a token to look into the other text. The first token is
  looked at by both, as each of them had it alone. What little the heads lose is chosen by how queries and keys spread.
- The added head and the rest of the feed-forward units are free: training can use them to look across. What keeps the
  texts apart are zeros, and config.json asks for them to be kept (`keep_zeros`).
- Of two layers more, the first gives each token the mean of its text, and the second takes the passage's mean from that
  in the first token. The norm behind it divides by the length of what is left, and so tells the distance of the two: a
  coordinate that was a constant before it is larger after it, the nearer the texts are.

A norm over more coordinates is the old one where the new coordinates have the old ones' mean. So what is written to a
vector is centred, which no norm after it notices, and some new coordinates carry the mean that is left.

Shape legend: D width of the bi-encoder, W of the cross-encoder, H of a head, F feed-forward units, K any.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..encoder import HIDDEN_ACTIVATIONS
from ..errors import ModelError, ModelRefusedError
from ..families.int8_rows import INT8_MAX
from ..model_files import ModelFiles
from .base import KEEP_ZEROS, check_free, load_base, write_directory
from .dense import load_backbone
from .embedding import Pooling, read_embedding
from .vocabulary import files_that_match, queries_and_positives

MARK = 1.0
"""Size of a mark, that of the other coordinates: what training adds to marks by chance stays small beside it."""
PENALTY = 60.0
"""Taken from the logit of a token of the other text: exp(-60) of it is left. The larger, the more a small change of a
mark changes the logit: with 2000 the first step of training destroyed the order."""
STEEPNESS, THRESHOLD, HALF_RAMP = 250.0, 8.0, 2.0
"""A mark x becomes 0 or 1 by gelu(z + HALF_RAMP) - gelu(z - HALF_RAMP), where z = STEEPNESS x - THRESHOLD: exactly 0
below, also in bfloat16, and about 1 from a twentieth of a mark on. What is 0 has to be exact, the rest has not."""
EXTRA_UNITS = 32
"""Feed-forward units beside those of the bi-encoder; 22 keep marks and means."""
FREE_DEVIATION = 0.02
"""Of the weights that training can use as it likes."""
BARELY = 1e-4
"""Of those among them through which it would show at once: not zero, in half precision neither, since training keeps
zeros."""
GAIN = 100.0
"""Of the mean of a text beside what its tokens held before."""
SCORE = 3.0
"""Of the coordinate that holds the similarity, for each unit of 1 / distance; its zero is at a distance of 1."""
REFERENCE = 0.25
"""Of the constants that the last norm divides: small beside the distance of two texts."""
HEAD_SCALE, OUT_SCALE = 0.3, 6.0
"""Of the head: tanh of a small number is nearly that number."""
OTHER_SPECIAL = (("pad", "<pad>"), ("unk", "<unk>"), ("pad", "[PAD]"), ("unk", "[UNK]"))
"""Special tokens that keep their names; a tokenizer has those of BERT or of XLM-RoBERTa."""
SAMPLE, SAMPLE_TOKENS = 2000, 96
"""Texts that are measured, and tokens of each."""
BATCH = 50

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class Measures:
    """What the bi-encoder does on a sample of texts."""

    spreads: dict[str, float] = field(default_factory=dict)
    """By norm: the median over tokens of the standard deviation of what comes in."""
    moments: Tensors = field(default_factory=dict)
    """By linear layer of queries or keys: float64 [heads, H, H]; of keys about their mean, which no softmax notices."""
    means: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """[texts, D]: the mean over each text's tokens."""


@torch.inference_mode()
def measure(model: torch.nn.Module, ids: Sequence[Sequence[int]]) -> Measures:
    """Runs a BertModel on texts."""
    outputs: dict[str, list[torch.Tensor]] = {}
    mask = torch.empty(0)

    def kept(name: str, of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., None]:
        """A hook that keeps something of each token's input and output."""
        return lambda _module, inputs, output: outputs.setdefault(name, []).append(of(inputs[0], output)[mask])

    hooks = []
    for name, module in model.named_modules():
        if name.endswith("LayerNorm"):
            hooks.append(module.register_forward_hook(kept(name, lambda x, _: x.std(-1, correction=0))))
        elif name.endswith((".query", ".key")):
            hooks.append(module.register_forward_hook(kept(name, lambda _, y: y)))
    measures, pooled = Measures(), []
    for at in range(0, len(ids), BATCH):
        batch = [torch.tensor(row) for row in ids[at : at + BATCH]]
        input_ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        lengths = torch.tensor([len(row) for row in batch])
        mask = torch.arange(input_ids.shape[1]) < lengths[:, None]
        hidden = model(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
        pooled.append((hidden * mask[..., None]).sum(1) / lengths[:, None])
    for hook in hooks:
        hook.remove()
    heads = model.config.num_attention_heads  # type: ignore[union-attr]
    for name, parts in outputs.items():
        x = torch.cat(parts)
        if x.dim() == 1:
            measures.spreads[name] = float(x.median())
            continue
        x = x.double().unflatten(-1, (heads, -1)).transpose(0, 1)
        x = x - x.mean(1, keepdim=True) if name.endswith(".key") else x
        measures.moments[name] = x.transpose(1, 2) @ x / x.shape[1]
    measures.means = torch.cat(pooled)
    return measures


class Builder:
    """Puts the weights of the cross-encoder together, under the names that transformers gives to a BertModel."""

    def __init__(self, tensors: Tensors, config: dict[str, Any], measures: Measures, first_token: int) -> None:
        self.old, self.measures, self.first_token = tensors, measures, first_token
        self.new: Tensors = {}
        self.depth = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.width = int(config["hidden_size"])
        self.head = self.width // self.heads
        self.wide = self.width + self.head
        self.units = int(config["intermediate_size"])
        self.wide_units = self.units + EXTRA_UNITS
        self.random = torch.Generator().manual_seed(0)
        # Marks are pairs of coordinates, x and -x, so that they add nothing to a mean. A reader takes their difference.
        self.asks_as_query, self.passage, self.seen_as_query = (self.width + 2 * i for i in range(3))
        marks_end = self.width + 6
        self.score = marks_end
        """The coordinate of the similarity in the last layer; what it is minus stands in the next."""
        self.pairs = (self.head - 6) // 2
        self.carriers = slice(marks_end, marks_end + self.pairs)
        self.counterweights = slice(marks_end + self.pairs, self.wide)
        if self.pairs < 1 or self.head % 2:
            raise ModelRefusedError(f"heads of {self.head} dimensions; 8 or more are needed, and an even number")

    def build(self) -> Tensors:
        """The tensors of a BertForSequenceClassification with two layers more than the bi-encoder."""
        self.embed()
        for i in range(self.depth):
            self.attend(f"encoder.layer.{i}.", self.norm_before(i))
            self.feed_forward(f"encoder.layer.{i}.")
        self.pool(f"encoder.layer.{self.depth}.")
        self.compare(f"encoder.layer.{self.depth + 1}.")
        head = {
            "bert.pooler.dense.weight": HEAD_SCALE * torch.eye(self.wide),
            "bert.pooler.dense.bias": torch.zeros(self.wide),
            "classifier.weight": torch.zeros(1, self.wide),
            "classifier.bias": torch.zeros(1),
        }
        head["classifier.weight"][0, self.score] = OUT_SCALE
        return {f"bert.{name}": tensor for name, tensor in self.new.items()} | head

    def norm_before(self, layer: int) -> str:
        """The norm whose output is the input of a layer."""
        return f"encoder.layer.{layer - 1}.output.LayerNorm" if layer else "embeddings.LayerNorm"

    def embed(self) -> None:
        """The embeddings, centred, with the marks in those of the segments."""
        first_D = self.old["embeddings.word_embeddings.weight"][self.first_token]
        first_D = first_D - first_D.mean()
        # Embeddings may be as small as they like.
        mark, largest = exact_in_8_bits(
            MARK * self.measures.spreads["embeddings.LayerNorm"], float(first_D.abs().max())
        )
        weights_D = self.norm("embeddings.LayerNorm", carries_mean=True, mark=mark)
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            rows_KD = self.old[f"embeddings.{name}.weight"]
            if name == "token_type_embeddings":  # a text of a bi-encoder is segment 0
                rows_KD = rows_KD[:1].expand(2, -1)
            rows_KD = rows_KD - rows_KD.mean(1, keepdim=True)
            wide = torch.zeros(len(rows_KD), self.wide)
            wide[:, : self.width] = rows_KD
            self.carry_mean(wide.T, self.mean_left(weights_D, rows_KD.T))
            self.new[f"embeddings.{name}.weight"] = wide
        segments = self.new["embeddings.token_type_embeddings.weight"]
        for place, segment in ((self.asks_as_query, 0), (self.seen_as_query, 0), (self.passage, 1)):
            segments[segment, place : place + 2] = torch.tensor([mark, -mark])
        seen = slice(self.seen_as_query, self.seen_as_query + 2)  # both texts look at the first token
        first_W = self.new["embeddings.word_embeddings.weight"][self.first_token]
        first_W[seen] = -segments[0, seen]
        at = first_D.abs().argmax()
        first_W[at] = first_D[at].sign() * largest

    def norm(self, name: str, *, carries_mean: bool, mark: float = MARK) -> torch.Tensor:
        """A norm over W coordinates that does to the first D what the old one did; the weights [D] of these.

        Marks of this size come out in the size MARK.
        """
        spread = self.measures.spreads[name]
        scale = math.sqrt(self.width / self.wide * (1 + 4 * mark**2 / (self.width * spread**2)))
        weight, bias = torch.zeros(self.wide), torch.zeros(self.wide)
        weight[: self.width] = self.old[f"{name}.weight"] * scale
        bias[: self.width] = self.old[f"{name}.bias"]
        weight[self.width : self.score] = spread * scale * MARK / mark
        weight[self.carriers] = float(carries_mean)
        self.new[f"{name}.weight"], self.new[f"{name}.bias"] = weight, bias
        return weight[: self.width]

    def mean_left(self, weights_D: torch.Tensor, x_DK: torch.Tensor) -> torch.Tensor:
        """What each carrier has to be before a norm with these weights: [K], for the coordinates x before it.

        After the norm all carriers together are W - D times the mean of the first D coordinates, biases left aside.
        """
        return weights_D @ x_DK * ((self.wide - self.width) / self.width / self.pairs)

    def carry_mean(self, x_WK: torch.Tensor, values_K: torch.Tensor) -> None:
        """Sets the carriers; their counterweights keep the mean before the norm, which then removes them."""
        x_WK[self.carriers] = values_K
        x_WK[self.counterweights] = -values_K

    def attend(self, layer: str, norm_before: str) -> None:
        """The attention of a layer, in which no token looks into the other text."""
        kept = self.head - 2
        query, key = (f"{layer}attention.self.{name}" for name in ("query", "key"))
        weights = {name: torch.zeros(self.wide, self.wide) for name in ("query", "key", "value")}
        biases = {name: torch.zeros(self.wide) for name in weights}
        for head in range(self.heads):
            rows = slice(head * self.head, (head + 1) * self.head)
            to_q, to_k = best_of_lower_rank(self.measures.moments[query][head], self.measures.moments[key][head], kept)
            into = slice(rows.start, rows.start + kept)
            weights["query"][into, : self.width] = to_q @ self.old[f"{query}.weight"][rows]
            biases["query"][into] = to_q @ self.old[f"{query}.bias"][rows]
            weights["key"][into, : self.width] = to_k @ self.old[f"{key}.weight"][rows]
            self.forbid(weights, into.stop, self.asks_as_query, self.passage)
            self.forbid(weights, into.stop + 1, self.passage, self.seen_as_query)
        value = f"{layer}attention.self.value"
        weights["value"][: self.width, : self.width] = self.old[f"{value}.weight"]
        biases["value"][: self.width] = self.old[f"{value}.bias"]
        for name, weight in weights.items():
            weight[self.width :] = self.free(self.head, self.wide)
            self.new[f"{layer}attention.self.{name}.weight"] = weight
            self.new[f"{layer}attention.self.{name}.bias"] = biases[name]
        out = f"{layer}attention.output.dense"
        weight, bias = torch.zeros(self.wide, self.wide), torch.zeros(self.wide)
        weight[: self.width, : self.width] = centred(self.old[f"{out}.weight"])
        weight[: self.width, self.width :] = BARELY * self.free(self.width, self.head)
        # The mean of the biases of the norm before goes here; the carriers have the rest of the mean.
        bias[: self.width] = centred(self.old[f"{out}.bias"]) - self.old[f"{norm_before}.bias"].mean()
        self.new[f"{out}.weight"], self.new[f"{out}.bias"] = weight, bias
        self.norm(f"{layer}attention.output.LayerNorm", carries_mean=False)

    def forbid(self, weights: Tensors, row: int, asks: int, seen: int) -> None:
        """Takes PENALTY from the logit of a key with the mark `seen` for a query with the mark `asks`."""
        size = math.sqrt(PENALTY * math.sqrt(self.head)) / MARK / 2
        weights["query"][row, asks : asks + 2] = torch.tensor([-size, size])
        weights["key"][row, seen : seen + 2] = torch.tensor([size, -size])

    def feed_forward(self, layer: str) -> None:
        """The units of a layer, and those that keep means and marks."""
        weights_D = self.norm(f"{layer}output.LayerNorm", carries_mean=True)
        into, out = torch.zeros(self.wide_units, self.wide), torch.zeros(self.wide, self.wide_units)
        into_bias, out_bias = torch.zeros(self.wide_units), torch.zeros(self.wide)
        into[: self.units, : self.width] = self.old[f"{layer}intermediate.dense.weight"]
        into_bias[: self.units] = self.old[f"{layer}intermediate.dense.bias"]
        out[: self.width, : self.units] = centred(self.old[f"{layer}output.dense.weight"])
        out_bias[: self.width] = centred(self.old[f"{layer}output.dense.bias"])
        self.carry_mean(out[:, : self.units], self.mean_left(weights_D, out[: self.width, : self.units]))
        self.carry_mean(out_bias[:, None], self.mean_left(weights_D, out_bias[: self.width, None]))
        unit = iter(range(self.units, self.wide_units))

        def pass_on(from_W: torch.Tensor, to_W: torch.Tensor) -> None:
            """Adds a linear function of the input, since gelu(z) - gelu(-z) = z."""
            for sign in (1, -1):
                at = next(unit)
                into[at], out[:, at] = sign * from_W, sign * to_W

        first_D = torch.zeros(self.wide)
        first_D[: self.width] = 1
        pass_on(first_D / self.width, -first_D)  # centred, as all else that is written
        of_mean, to_carriers = torch.zeros(self.wide), torch.zeros(self.wide, 1)
        of_mean[: self.width] = centred(weights_D)
        self.carry_mean(to_carriers, torch.tensor([(self.wide - self.width) / self.width / self.pairs]))
        pass_on(of_mean, to_carriers[:, 0])
        for mark in (self.asks_as_query, self.passage, self.seen_as_query):
            for place in (mark, mark + 1):
                one = torch.zeros(self.wide)
                one[place] = 4 / MARK
                pass_on(one, -one * (MARK / 4) ** 2)  # what is left of the mark goes
            for sign in (1, -1):  # and it comes in its first size
                at = next(unit)
                into[at, mark : mark + 2] = torch.tensor([1.0, -1.0]) * STEEPNESS / MARK / 2
                into_bias[at] = sign * HALF_RAMP - THRESHOLD
                out[mark : mark + 2, at] = torch.tensor([1.0, -1.0]) * sign * MARK / 2 / HALF_RAMP
        left = list(unit)
        into[left] = self.free(len(left), self.wide)
        out[: self.width, left] = BARELY * self.free(self.width, len(left))
        self.new[f"{layer}intermediate.dense.weight"], self.new[f"{layer}intermediate.dense.bias"] = into, into_bias
        self.new[f"{layer}output.dense.weight"], self.new[f"{layer}output.dense.bias"] = out, out_bias

    def pool(self, layer: str) -> None:
        """The layer in which each token gets the mean of its text, about that of all texts."""
        mean_D = self.measures.means.mean(0)
        size = float((self.measures.means - mean_D).square().mean().sqrt())
        if not size:
            raise ModelRefusedError("all texts that were measured have the same vector; give some hundreds that differ")
        weights = {"query": torch.zeros(self.wide, self.wide), "key": self.free(self.wide, self.wide)}
        for row in range(0, self.wide, self.head):
            weights["key"][row : row + 2] = 0
            self.forbid(weights, row, self.asks_as_query, self.passage)
            self.forbid(weights, row + 1, self.passage, self.asks_as_query)
        out = torch.eye(self.wide) * GAIN  # of the marks too, which are the mean of their text
        out[: self.width] /= size
        out[self.score :] = 0
        self.last_layer(layer, weights, {"value": torch.cat([-mean_D, torch.zeros(self.head)])}, out)
        self.new[f"{layer}output.dense.weight"] = torch.zeros(self.wide, self.wide_units)

    def compare(self, layer: str) -> None:
        """The layer in which the first token takes the mean of the passage from that of the query."""
        weights = {"query": torch.zeros(self.wide, self.wide), "key": self.free(self.wide, self.wide)}
        constant = torch.zeros(self.wide)
        rows = torch.arange(0, self.wide, self.head)
        constant[rows] = -math.sqrt(PENALTY * math.sqrt(self.head))
        weights["key"][rows] = 0
        weights["key"][rows, self.asks_as_query] = -constant[rows] / MARK / 2
        weights["key"][rows, self.asks_as_query + 1] = constant[rows] / MARK / 2
        out = torch.zeros(self.wide, self.wide)
        out[: self.width, : self.width] = -torch.eye(self.width)
        self.last_layer(layer, weights, {"query": constant}, out)
        # Several constants, so that in half precision not all are rounded alike.
        pairs = (self.wide - self.score) // 2
        constants = REFERENCE * (1 + torch.arange(pairs) / pairs)
        ahead = torch.arange(self.score, self.wide, 2)
        bias = self.new[f"{layer}attention.output.dense.bias"]
        bias[ahead], bias[ahead + 1] = constants, -constants
        to_score = torch.zeros(self.wide, self.wide_units)
        for unit, sign in enumerate((1, -1)):  # gelu(z) - gelu(-z) = z
            into = self.new[f"{layer}intermediate.dense.weight"]
            into[unit] = 0
            into[unit, ahead], into[unit, ahead + 1] = sign / constants / pairs / 2, -sign / constants / pairs / 2
            self.new[f"{layer}intermediate.dense.bias"][unit] = -sign
            to_score[self.score, unit], to_score[self.score + 1, unit] = sign * SCORE, -sign * SCORE
        self.new[f"{layer}output.dense.weight"] = to_score

    def last_layer(self, layer: str, weights: Tensors, biases: Tensors, out: torch.Tensor) -> None:
        """Sets a layer whose values are its input, and whose feed-forward units do nothing yet.

        Where queries are 0, keys are not, so that training can look at something else.
        """
        weights = weights | {"value": torch.eye(self.wide)}
        zeros = torch.zeros(self.wide)
        for name, weight in weights.items():
            self.new[f"{layer}attention.self.{name}.weight"] = weight
            self.new[f"{layer}attention.self.{name}.bias"] = biases.get(name, zeros)
        self.new[f"{layer}attention.output.dense.weight"] = out
        self.new[f"{layer}attention.output.dense.bias"] = zeros.clone()
        self.new[f"{layer}intermediate.dense.weight"] = self.free(self.wide_units, self.wide)
        self.new[f"{layer}intermediate.dense.bias"] = torch.zeros(self.wide_units)
        self.new[f"{layer}output.dense.bias"] = zeros
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            self.new |= {f"{layer}{norm}.weight": torch.ones(self.wide), f"{layer}{norm}.bias": zeros}

    def free(self, *size: int) -> torch.Tensor:
        """Weights for training to use."""
        return torch.randn(*size, generator=self.random) * FREE_DEVIATION


def centred(x: torch.Tensor) -> torch.Tensor:
    """Without the mean over the coordinates that come out."""
    return x - x.mean(0, keepdim=True)


def exact_in_8_bits(mark: float, largest: float) -> tuple[float, float]:
    """A mark and a largest value of its row near those given, such that the mark is exact where the row is in 8 bits.

    It is exact in bfloat16 too. The mark of the first token has to cancel that of its segment: a penalty depends on it.
    """
    if not largest:
        return float(torch.tensor(mark).bfloat16()), 0.0
    steps = min(max(round(mark / largest * INT8_MAX), 1), INT8_MAX)
    mark = float(torch.tensor(largest * steps / INT8_MAX).bfloat16())
    return mark, mark * INT8_MAX / steps


def best_of_lower_rank(of_queries: torch.Tensor, of_keys: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps [rank, H], of queries and keys, whose products are nearest to those of H dimensions.

    Nearest in the mean square for the second moments given, float64 [H, H]: the singular value decomposition between
    whitened queries and keys (Eckart and Young 1936).
    """
    ridge = torch.eye(len(of_queries), dtype=torch.float64) * 1e-9
    root_q, root_k = (torch.linalg.cholesky(moments + ridge) for moments in (of_queries, of_keys))
    left, sizes, right = torch.linalg.svd(root_q.T @ root_k)
    roots = sizes[:rank].sqrt()[:, None]
    to_q = roots * (left[:, :rank].T @ torch.linalg.inv(root_q))
    return to_q.float(), (roots * (right[:rank] @ torch.linalg.inv(root_k))).float()


def with_berts_pairs(tokenizer: dict[str, Any], first: str | None, last: str | None) -> dict[str, Any]:
    """The content of a tokenizer.json that joins pairs as BERT's does; its own special tokens get BERT's names."""
    names = {first: "[CLS]", last: "[SEP]"}
    model = tokenizer["model"]
    changed = tokenizer | {
        "added_tokens": [
            token | {"content": names.get(token["content"], token["content"])} for token in tokenizer["added_tokens"]
        ]
    }
    if isinstance(model["vocab"], dict):
        vocabulary: Any = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        vocabulary = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    ids = {names[token["content"]]: token["id"] for token in tokenizer["added_tokens"] if token["content"] in names}

    def special(name: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": segment}}

    query, passage = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    single = [special("[CLS]", 0), query, special("[SEP]", 0)]
    changed["model"] = model | {"vocab": vocabulary}
    changed["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, passage, special("[SEP]", 1)],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()},
    }
    return changed


def convert(bi_encoder: Path, output: Path, texts: Iterable[str]) -> None:
    """Writes the cross-encoder of a bi-encoder; `texts` are a sample of what it reads.

    Raises ModelRefusedError for one that is no BERT, or does not take the mean of its tokens, and for fewer than two
    texts; FileExistsError where something lies at `output`.
    """
    check_free(output)
    embedding = read_embedding(bi_encoder)
    files = ModelFiles(str(bi_encoder), embedding.transformer)
    config = files.config()
    if config.get("model_type") != "bert" or embedding.pooling is not Pooling.MEAN or embedding.lower_case:
        raise ModelRefusedError(
            f"{bi_encoder} is a model of type {config.get('model_type')!r} that takes the {embedding.pooling} of its "
            "tokens; this wants a bert that takes their mean, and whose tokenizer lower-cases by itself"
        )
    if config.get("hidden_act") not in HIDDEN_ACTIVATIONS:
        raise ModelRefusedError(f"hidden_act is {config.get('hidden_act')!r}; it is one of {list(HIDDEN_ACTIVATIONS)}")
    base = load_base(str(embedding.transformer))  # which refuses what would not load, or would be garbage
    tokenizer = files.tokenizer()
    tokenizer.enable_truncation(min(SAMPLE_TOKENS, base.max_length))
    distinct = list(dict.fromkeys(texts))
    if len(distinct) < 2:
        raise ModelRefusedError(f"{len(distinct)} texts to measure {bi_encoder} on; give some hundreds that differ")
    ids = [encoding.ids for encoding in tokenizer.encode_batch(distinct)]
    model = load_backbone(embedding.transformer).eval()
    first, last = ids[0][0], ids[0][-1]
    tensors = {name: tensor.float() for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelRefusedError(f"{bi_encoder}: {name} has values that are no finite numbers")
    builder = Builder(tensors, config, measure(model, ids), first)
    weights = builder.build()
    own = {
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": builder.wide,
        "num_hidden_layers": builder.depth + 2,
        "num_attention_heads": builder.heads + 1,
        "intermediate_size": builder.wide_units,
        "type_vocab_size": 2,
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "dtype": "float32",
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
        KEEP_ZEROS: True,
    }
    of_tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        **{f"{name}_token": token for name, token in OTHER_SPECIAL if tokenizer.token_to_id(token) is not None},
        "model_max_length": base.max_length,
        # Without segments the two texts would not be told apart.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    content = json.loads((embedding.transformer / "tokenizer.json").read_text(encoding="utf-8"))
    if tokenizer.token_to_id("[CLS]") is None:
        content = with_berts_pairs(content, tokenizer.id_to_token(first), tokenizer.id_to_token(last))

    def fill(folder: Path) -> None:
        config.pop("tokenizer_class", None)
        save_file({name: tensor.clone() for name, tensor in weights.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config | own, indent=2) + "\n")
        (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(of_tokenizer, indent=2) + "\n")

    write_directory(fill, output)


def sample(patterns: Sequence[str], count: int) -> list[str]:
    """About `count` texts, as many of each Parquet file that matches a pattern; raises FileNotFoundError for none."""
    paths = files_that_match(patterns)
    texts = []
    for path in paths:
        of_file = list(queries_and_positives([glob.escape(path)]))
        texts += random.Random(0).sample(of_file, min(len(of_file), math.ceil(count / len(paths))))
    return texts


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "bi_encoder", type=Path, help="directory of a BERT bi-encoder that takes the mean of its tokens"
    )
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--texts", nargs="+", required=True, help="Parquet files (`query`, `positive`) to measure it on"
    )
    args = parser.parse_args()
    try:
        check_free(args.output)  # before the texts are read
        texts = sample(args.texts, SAMPLE)
        print(f"measuring {len(texts):,} texts, a minute or more ...", flush=True)
        convert(args.bi_encoder, args.output, texts)
    except (ModelError, ValueError, FileNotFoundError, FileExistsError) as error:
        parser.error(str(error))
    print(f"a cross-encoder that ranks as its bi-encoder does, in {args.output}")


if __name__ == "__main__":
    main()
