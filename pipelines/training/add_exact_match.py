"""Gives a trained BERT cross-encoder the head for exact matches, and leaves what it knows.

    python -m pipelines.training.add_exact_match MODEL OUTPUT --texts "train/*/*.parquet"

A cross-encoder that was trained on little knows what a text is about, and forgets its names, numbers and rare words.
With this head (`exact_match` says what it holds) the model is one head wider and no layer deeper, and an ordinary BERT
still. Its logit is what it was, but for a trace, plus `--weight` times what part of the query's words the passage has.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from ..errors import ConfigError, ModelError, ModelRefusedError
from ..families.bert import NAMES as BERT
from ..families.checkpoint import to_checkpoint
from .base import (
    KEEP_ZEROS,
    activation_told,
    as_stored,
    check_finite,
    check_free,
    load_base,
    save_weights,
    write_config_and_tokenizer,
    write_directory,
)
from .exact_match import MatchingBuilder, check_weight, words_of
from .from_bi_encoder import MEASURED, MEASURED_TOKENS, SAMPLE, distinct_texts, sample
from .similarity import Tensors, measure

WEIGHT = 4.0
"""Of the part of the query that is matched, in the logit."""
TANH_IN_LINE = 0.2
"""Of a total of -0.3 to 1, tanh is nearly the identity at this scale."""


class AddingBuilder(MatchingBuilder):
    """Builds the wider cross-encoder: marks, carriers and codes share one head, and texts look at each other."""

    added_heads = 1
    marked = 2
    before_codes = 8
    sharpness = 30.0
    """More than in heads with longer codes, of which fewer are nearly equal."""

    def lay_out(self) -> None:
        self.passage, self.seen_as_query = self.take(marks=2, pairs=2)

    def build(self) -> Tensors:
        """The tensors of a BertModel without its pooler."""
        self.build_layers()
        return self.new

    def segments(self, rows_KD: torch.Tensor) -> torch.Tensor:
        return rows_KD

    def look(self, layer: str, weights: Tensors, biases: Tensors) -> None:
        for name in ("query", "key"):
            weights[name][: self.width, : self.width] = self.old[f"{layer}attention.self.{name}.weight"]
            biases[name][: self.width] = self.old[f"{layer}attention.self.{name}.bias"]

    def classification_head(self, dense: torch.nn.Linear, out: torch.nn.Linear, weight: float) -> Tensors:
        """The head of two linear layers with tanh between them, wider, which reads the total as well."""
        pooler, bias = torch.zeros(self.wide, self.wide), torch.zeros(self.wide)
        pooler[: self.width, : self.width], bias[: self.width] = dense.weight, dense.bias
        pooler[self.total, self.total] = TANH_IN_LINE
        classifier = torch.zeros(1, self.wide)
        classifier[:, : self.width] = out.weight
        classifier[0, self.total] = weight / TANH_IN_LINE
        return {
            "bert.pooler.dense.weight": pooler,
            "bert.pooler.dense.bias": bias,
            "classifier.weight": classifier,
            "classifier.bias": out.bias.clone(),
        }


@torch.no_grad()
def add_exact_match(model: str, output: Path, texts: Sequence[str], *, weight: float = WEIGHT) -> None:
    """Writes the wider cross-encoder; `texts` are a sample of what it reads.

    Raises ModelRefusedError for one that is no BERT cross-encoder with segments, has the head already, or has no room
    for it, and for fewer than two texts; ConfigError for a weight below 0 and without PyStemmer; FileExistsError where
    something lies at `output`.
    """
    check_free(output)
    check_weight(weight)
    base = load_base(model)
    config = base.files.config()
    if config.get("model_type") != "bert" or not base.has_head or not base.layout.has_segments:
        raise ModelRefusedError(f"{model} is no BERT cross-encoder whose query and passage have segments of their own")
    if base.keeps_zeros:
        raise ModelRefusedError(
            f"{model} was put together ({KEEP_ZEROS} in its config.json), and has this head already; or else it came "
            "out of `from_bi_encoder --no-exact-matches`: make it again without that flag"
        )
    distinct = distinct_texts(texts, model)
    words = words_of(base.files.tokenizer(), distinct, AddingBuilder.code_width(config), base.spec.shape.vocab_size)
    tokenizer = base.files.tokenizer()
    tokenizer.enable_truncation(min(2 * MEASURED_TOKENS, base.max_length))
    drawn = random.Random(0).sample(distinct, min(len(distinct), 2 * MEASURED))
    pairs = tokenizer.encode_batch(list(zip(drawn[::2], drawn[1::2], strict=False)))
    tensors = to_checkpoint(base.encoder.state_dict(), BERT, base.spec.shape.num_hidden_layers)
    check_finite(model, tensors)
    tensors = {name.removeprefix("bert."): tensor for name, tensor in tensors.items()}
    body = BertModel(BertConfig.from_dict(config), add_pooling_layer=False).eval()
    body.load_state_dict({name: tensors[name] for name in body.state_dict()})
    measures = measure(body, [pair.ids for pair in pairs], [pair.type_ids for pair in pairs])
    builder = AddingBuilder(tensors, config, measures, base.layout.start, words)
    weights = {f"bert.{name}": tensor for name, tensor in builder.build().items()}
    weights |= builder.classification_head(base.encoder.head_dense, base.encoder.head_out, weight)
    own = {
        "hidden_size": builder.wide,
        "num_attention_heads": builder.heads + builder.added_heads,
        "intermediate_size": builder.wide_units,
        "dtype": "float16",
        KEEP_ZEROS: True,
    }

    def fill(folder: Path) -> None:
        save_weights(as_stored(weights, torch.float16), folder)
        config.pop("torch_dtype", None)
        write_config_and_tokenizer(config | own | activation_told(base.files), base.files, folder)

    write_directory(fill, output)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a BERT cross-encoder: a directory, a uri or a hub name")
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--texts", nargs="+", required=True, help="Parquet files (`query`, `positive`) whose words are counted"
    )
    parser.add_argument(
        "--weight", type=float, default=WEIGHT, help="of the part that is matched, in the logit (default %(default)s)"
    )
    args = parser.parse_args()
    try:
        check_free(args.output)  # before the texts are read
        texts = sample(args.texts, SAMPLE)
        print("measuring the model, a minute or more ...", flush=True)
        add_exact_match(args.model, args.output, texts, weight=args.weight)
    except (ModelError, ConfigError, ValueError, OSError) as error:
        parser.error(str(error))
    print(f"the wider cross-encoder is in {args.output}; its scores are not calibrated yet")


if __name__ == "__main__":
    main()
