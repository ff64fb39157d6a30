"""What the tests of the head for exact matches share: a small BERT, texts, and what the head should count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from pipelines.reranker import Reranker
from pipelines.training.exact_match import BREVITY, FOUND, IMPORTANCE, USUAL_LENGTH, Words
from tests.checkpoints import words, write_bert

WIDTH, HEADS, DEPTH = 64, 2, 4
SAMPLE = [words(3 + seed % 20, seed=seed) for seed in range(200)] + ["alpine apple"] * 100
QUERY = "alpine candle zebra falcon"
PASSAGES = [
    "bread bridge carbon",
    "alpine bread bridge",
    "candle bread bridge",
    "candle candle bread candle",
    "zebra falcon candle alpine",
    "zebra " + words(90, seed=1).replace("zebra", "bread"),
]


SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": DEPTH,
}
"""Of a model with room for the head."""


def write_cross_encoder(directory: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """Writes a BERT of these sizes whose positions say little; returns its tensors."""
    write_bert(directory, **(SIZES | changes))
    tensors = load_file(directory / "model.safetensors")
    tensors["bert.embeddings.position_embeddings.weight"] *= 0.05
    save(tensors, directory)
    return tensors


def write_bi_encoder(directory: Path, **changes: Any) -> Path:
    """The same without the parts that make a score."""
    tensors = write_cross_encoder(directory, **changes)
    heads = ("bert.pooler.", "classifier.")
    save({name: tensor for name, tensor in tensors.items() if not name.startswith(heads)}, directory)
    return directory


def save(tensors: dict[str, torch.Tensor], directory: Path) -> None:
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def tokenizer_of(model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def logits(model: Path, passages: list[str] = PASSAGES, **options: Any) -> np.ndarray:
    """The logits of QUERY with each passage."""
    reranker = Reranker.load(str(model), device="cpu", **options)
    [query_ids] = reranker.tokenizer.query_ids([QUERY])
    join = reranker.tokenizer.template.join
    return np.asarray(
        reranker.engine.logits([join(query_ids, ids) for ids in reranker.tokenizer.passage_ids(passages)])
    )


def pair_of(tokenizer: Tokenizer, passage: str) -> dict[str, torch.Tensor]:
    """QUERY and a passage as a model of transformers takes them."""
    pair = tokenizer.encode(QUERY, passage)
    return {"input_ids": torch.tensor([pair.ids]), "token_type_ids": torch.tensor([pair.type_ids])}


def expected_total(known: Words, tokenizer: Tokenizer, passage: str) -> float:
    """The part of the query that is matched, weighted by importance, less what the length of the passage takes."""
    [query, found] = (tokenizer.encode(text, add_special_tokens=False).ids for text in (QUERY, passage))
    weights = np.exp(IMPORTANCE * known.importance_V[query].numpy())
    counts = np.array([found.count(token) for token in query]) * math.exp(FOUND)
    length = len(found) + 1  # with the last special token
    return float(weights @ (counts / (1 + counts)) / weights.sum() - BREVITY * length / (USUAL_LENGTH + length))
