"""Cross-encoders with seeded weights in the sizes of published ones: what a pass costs does not depend on the weights.

They have the embedded model's tokenizer, and so a smaller vocabulary than multilingual models, which costs no pass
anything: a token's embedding is looked up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.encoder import EncoderShape, PackedEncoder
from pipelines.families.bert import NAMES as BERT
from pipelines.families.checkpoint import to_checkpoint
from pipelines.model_files import find_model

TOKENIZER = "tokenizer_config.json"
HEAD_GAIN = 8
"""With it scores spread as a real model's do."""


class Size(NamedTuple):
    """The size of a model."""

    layers: int
    width: int
    heads: int
    inner: int | None = None
    """Width of the feed-forward layers; None is four times the width."""


def write_random_model(directory: Path, size: Size, longest: int | None = None) -> str:
    """A BERT cross-encoder whose weights tell pairs apart, and that reads `longest` tokens; returns the directory."""
    embedded = find_model("embedded")
    config = embedded.config() | {
        "num_hidden_layers": size.layers,
        "hidden_size": size.width,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner or 4 * size.width,
    }
    if longest is not None:
        config |= {"max_position_embeddings": longest}
    names = ("vocab_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act")
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    torch.manual_seed(0)  # before biases are drawn
    encoder = PackedEncoder(EncoderShape(**{name: config[name] for name in (*names, *sizes)}))
    encoder.requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=size.width**-0.5)
    encoder.head_out.weight.mul_(HEAD_GAIN)
    tensors = to_checkpoint(encoder.half().state_dict(), BERT, size.layers)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    for path in embedded.directory.glob("*token*"):
        (directory / path.name).write_bytes(path.read_bytes())
    limits = json.loads((directory / TOKENIZER).read_text()) | {"model_max_length": config["max_position_embeddings"]}
    (directory / TOKENIZER).write_text(json.dumps(limits))
    return str(directory)
