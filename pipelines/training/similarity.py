"""The weights of a cross-encoder whose logit is the similarity that a bi-encoder gives its two texts.

They are those of the bi-encoder, and some that are built:

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

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import ModelRefusedError
from ..families.int8_rows import INT8_MAX

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
BATCH = 50
"""Texts that are measured at once."""

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class Measures:
    """What the bi-encoder does on a sample of texts."""

    spreads: dict[str, float] = field(default_factory=dict)
    """By norm: the median over tokens of the standard deviation of what comes in."""
    first_spreads: dict[str, float] = field(default_factory=dict)
    """The same over the first tokens of the texts."""
    moments: Tensors = field(default_factory=dict)
    """By linear layer of queries or keys: float64 [heads, H, H]; of keys about their mean, which no softmax notices."""
    means: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """[texts, D]: the mean over each text's tokens."""
    left_out: torch.Tensor | None = None
    """[D, directions], orthonormal: where texts differ that should not count as different (`languages`)."""


@torch.inference_mode()
def measure(
    model: torch.nn.Module, ids: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None = None
) -> Measures:
    """Runs a BertModel on texts, or on pairs whose `segments` are given."""
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
    measures, means = Measures(), []
    for inputs in batches_of(ids, segments):
        mask = inputs["attention_mask"].bool()
        means.append(mean_over_tokens(model(**inputs).last_hidden_state, mask))
    for hook in hooks:
        hook.remove()
    heads = model.config.num_attention_heads  # type: ignore[union-attr]
    firsts = torch.tensor([0, *(len(row) for row in ids[:-1])]).cumsum(0)
    for name, parts in outputs.items():
        x = torch.cat(parts)
        if x.dim() == 1:
            measures.spreads[name] = float(x.median())
            measures.first_spreads[name] = float(x[firsts].median())
            continue
        x = x.double().unflatten(-1, (heads, -1)).transpose(0, 1)
        x = x - x.mean(1, keepdim=True) if name.endswith(".key") else x
        measures.moments[name] = x.transpose(1, 2) @ x / x.shape[1]
    measures.means = torch.cat(means)
    return measures


@torch.inference_mode()
def means_of(model: torch.nn.Module, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """The mean over the tokens of each text, as a BertModel reads it: [texts, D]."""
    order = torch.tensor([len(row) for row in ids]).argsort()  # texts of one length together, for speed
    means = [
        mean_over_tokens(model(**inputs).last_hidden_state, inputs["attention_mask"].bool())
        for inputs in batches_of([ids[i] for i in order])
    ]
    return torch.cat(means)[order.argsort()]


def batches_of(
    ids: Sequence[Sequence[int]], segments: Sequence[Sequence[int]] | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """What a BertModel takes, of BATCH texts each, in the order given."""
    for at in range(0, len(ids), BATCH):
        rows = [torch.tensor(row) for row in ids[at : at + BATCH]]
        if segments is None:  # each text by itself
            types = [torch.zeros_like(row) for row in rows]
        else:
            types = [torch.tensor(row) for row in segments[at : at + BATCH]]
        parts = {"input_ids": rows, "attention_mask": [torch.ones_like(row) for row in rows], "token_type_ids": types}
        yield {name: torch.nn.utils.rnn.pad_sequence(part, batch_first=True) for name, part in parts.items()}


def mean_over_tokens(hidden_NTD: torch.Tensor, mask_NT: torch.Tensor) -> torch.Tensor:
    """The mean of the vectors of each text, whose tokens the mask tells from padding: [N, D]."""
    return (hidden_NTD * mask_NT[..., None]).sum(1) / mask_NT.sum(1, keepdim=True)


class Builder:
    """Puts the weights of the cross-encoder together, under the names that transformers gives to a BertModel."""

    added_heads = 1
    marked = 4
    """Coordinates that marks of the query's tokens take up."""

    def __init__(self, tensors: Tensors, config: dict[str, Any], measures: Measures, first_token: int) -> None:
        self.old, self.measures, self.first_token = tensors, measures, first_token
        self.new: Tensors = {}
        self.depth = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.width = int(config["hidden_size"])
        self.head = self.width // self.heads
        self.wide = self.width + self.added_heads * self.head
        self.units = int(config["intermediate_size"])
        self.wide_units = self.units + EXTRA_UNITS
        self.random = torch.Generator().manual_seed(0)
        if self.head < 8 or self.head % 2:
            raise ModelRefusedError(f"heads of {self.head} dimensions; 8 or more are needed, and an even number")
        self.lay_out()

    def lay_out(self) -> None:
        """Gives the new coordinates their parts."""
        self.asks_as_query, self.passage, self.seen_as_query = self.take(marks=3, pairs=(self.head - 6) // 2)
        self.score = self.carriers.start
        """The coordinate of the similarity in the last layer; what it is minus stands in the next."""

    def take(self, *, marks: int, pairs: int) -> list[int]:
        """Takes the first of the new coordinates for marks and for pairs of carrier and counterweight.

        Returns the places of the marks. These are two coordinates each, x and -x, so that they add nothing to a mean.
        A reader takes their difference.
        """
        self.marks = [self.width + 2 * i for i in range(marks)]
        self.pairs = pairs
        end = self.width + 2 * marks
        self.carriers, self.counterweights = slice(end, end + pairs), slice(end + pairs, end + 2 * pairs)
        return self.marks

    def build(self) -> Tensors:
        """The tensors of a BertForSequenceClassification with two layers more than the bi-encoder."""
        self.build_layers()
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

    def build_layers(self) -> None:
        """The embeddings, and the layers that were there before."""
        self.embed()
        for i in range(self.depth):
            self.attend(f"encoder.layer.{i}.", self.norm_before(i))
            self.feed_forward(f"encoder.layer.{i}.")

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
            if name == "token_type_embeddings":
                rows_KD = self.segments(rows_KD)
            rows_KD = rows_KD - rows_KD.mean(1, keepdim=True)
            wide = torch.zeros(len(rows_KD), self.wide)
            wide[:, : self.width] = rows_KD
            self.carry_mean(wide.T, self.mean_left(weights_D, rows_KD.T))
            self.new[f"embeddings.{name}.weight"] = wide
        segments = self.new["embeddings.token_type_embeddings.weight"]
        for place in self.marks:
            segments[int(place == self.passage), place : place + 2] = torch.tensor([mark, -mark])
        seen = slice(self.seen_as_query, self.seen_as_query + 2)  # both texts look at the first token
        first_W = self.new["embeddings.word_embeddings.weight"][self.first_token]
        first_W[seen] = -segments[0, seen]
        at = first_D.abs().argmax()
        first_W[at] = first_D[at].sign() * largest

    def segments(self, rows_KD: torch.Tensor) -> torch.Tensor:
        """The embeddings of the two segments: a text of a bi-encoder is segment 0."""
        return rows_KD[:1].expand(2, -1)

    def norm(self, name: str, *, carries_mean: bool, mark: float = MARK) -> torch.Tensor:
        """A norm over W coordinates that does to the first D what the old one did; the weights [D] of these.

        Marks of this size come out in the size MARK.
        """
        spread, scale = self.measures.spreads[name], self.scale(name, mark)
        weight, bias = torch.zeros(self.wide), torch.zeros(self.wide)
        weight[: self.width] = self.old[f"{name}.weight"] * scale
        bias[: self.width] = self.old[f"{name}.bias"]
        weight[self.width : self.carriers.start] = spread * scale * MARK / mark
        weight[self.carriers] = float(carries_mean)
        self.new[f"{name}.weight"], self.new[f"{name}.bias"] = weight, bias
        return weight[: self.width]

    def scale(self, name: str, mark: float = MARK) -> float:
        """How much larger a norm makes each of the first D coordinates, if nothing else is done about it."""
        spread = self.measures.spreads[name]
        return math.sqrt(
            self.width / self.wide * (1 + (self.marked * mark**2 + self.beside(name)) / (self.width * spread**2))
        )

    def beside(self, _name: str) -> float:
        """The sum of squares of what else than marks the new coordinates hold before a norm."""
        return 0.0

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
        weights = {name: torch.zeros(self.wide, self.wide) for name in ("query", "key", "value")}
        biases = {name: torch.zeros(self.wide) for name in weights}
        self.look(layer, weights, biases)
        value = f"{layer}attention.self.value"
        weights["value"][: self.width, : self.width] = self.old[f"{value}.weight"]
        biases["value"][: self.width] = self.old[f"{value}.bias"]
        for name, weight in weights.items():
            weight[self.width :] = self.free(self.wide - self.width, self.wide)
            self.new[f"{layer}attention.self.{name}.weight"] = weight
            self.new[f"{layer}attention.self.{name}.bias"] = biases[name]
        out = f"{layer}attention.output.dense"
        weight, bias = torch.zeros(self.wide, self.wide), torch.zeros(self.wide)
        weight[: self.width, : self.width] = centred(self.old[f"{out}.weight"])
        weight[: self.width, self.width :] = BARELY * self.free(self.width, self.wide - self.width)
        # The mean of the biases of the norm before goes here; the carriers have the rest of the mean.
        bias[: self.width] = centred(self.old[f"{out}.bias"]) - self.old[f"{norm_before}.bias"].mean()
        self.new[f"{out}.weight"], self.new[f"{out}.bias"] = weight, bias
        self.norm(f"{layer}attention.output.LayerNorm", carries_mean=False)

    def look(self, layer: str, weights: Tensors, biases: Tensors) -> None:
        """The queries and keys of a layer."""
        kept = self.head - 2
        query, key = (f"{layer}attention.self.{name}" for name in ("query", "key"))
        for head in range(self.heads):
            rows = slice(head * self.head, (head + 1) * self.head)
            to_q, to_k = best_of_lower_rank(self.measures.moments[query][head], self.measures.moments[key][head], kept)
            into = slice(rows.start, rows.start + kept)
            weights["query"][into, : self.width] = to_q @ self.old[f"{query}.weight"][rows]
            biases["query"][into] = to_q @ self.old[f"{query}.bias"][rows]
            weights["key"][into, : self.width] = to_k @ self.old[f"{key}.weight"][rows]
            self.forbid(weights, into.stop, self.asks_as_query, self.passage)
            self.forbid(weights, into.stop + 1, self.passage, self.seen_as_query)

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
        for mark in self.marks:
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
        mean_D, kept_DD = self.measures.means.mean(0), torch.eye(self.width)
        if (left_out := self.measures.left_out) is not None:
            kept_DD -= left_out @ left_out.T
        size = float(((self.measures.means - mean_D) @ kept_DD).square().mean().sqrt())
        if not size:
            raise ModelRefusedError("all texts that were measured have the same vector; give some hundreds that differ")
        weights = {"query": torch.zeros(self.wide, self.wide), "key": self.free(self.wide, self.wide)}
        for row in range(0, self.wide, self.head):
            weights["key"][row : row + 2] = 0
            self.forbid(weights, row, self.asks_as_query, self.passage)
            self.forbid(weights, row + 1, self.passage, self.asks_as_query)
        out = torch.eye(self.wide) * GAIN  # of the marks too, which are the mean of their text
        out[: self.width, : self.width] = kept_DD * GAIN / size
        out[self.score :] = 0
        self.last_layer(layer, weights, {"value": torch.cat([-mean_D, torch.zeros(self.wide - self.width)])}, out)
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
        end = self.width + self.head
        pairs = (end - self.score) // 2
        constants = REFERENCE * (1 + torch.arange(pairs) / pairs)
        ahead = torch.arange(self.score, end, 2)
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
