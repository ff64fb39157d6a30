"""What scores are compared with: plain transformers, and the published maths of Jina's rerankers written out once more.

All work on padded batches with a mask, so nothing of our packing is in them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

TextPair = tuple[str, str]


class TransformersReference:
    """`AutoModelForSequenceClassification` with the tokenizer.json as transformers applies it."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

        names = ("cls_token", "mask_token", "pad_token", "sep_token", "unk_token")
        config = json.loads((directory / "tokenizer_config.json").read_text())
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(directory / "tokenizer.json"), **{name: config[name] for name in names}
        )
        self.model, loading = AutoModelForSequenceClassification.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True
        )
        assert not loading["missing_keys"]
        assert all(name.endswith("embeddings.position_ids") for name in loading["unexpected_keys"])
        self.model.eval()
        self.has_segments = self.model.config.model_type in ("bert", "electra")

    @torch.inference_mode()
    def logits(self, pairs: Sequence[TextPair], batch_size: int) -> np.ndarray:
        """Logits of `pairs`, in padded batches of `batch_size`."""
        parts = []
        for start in range(0, len(pairs), batch_size):
            queries, documents = zip(*pairs[start : start + batch_size], strict=True)
            batch = self.tokenizer(
                list(queries),
                list(documents),
                padding=True,
                return_tensors="pt",
                return_token_type_ids=self.has_segments,
            )
            parts.append(self.model(**batch).logits[:, 0])
        return torch.cat(parts).numpy()


@torch.inference_mode()
def jina_v2_logits(directory: Path, sequences: Sequence[Sequence[int]], **changes: Any) -> np.ndarray:
    """Logits of token sequences by the maths of jina-reranker-v2, in float32, padded to the longest.

    Positions count from 2 and skip padding; post-LayerNorm blocks; `Wqkv` rows are [q; k; v] with contiguous heads;
    exact gelu; head on the first token. `changes` replace keys of config.json; `swap_qk=True` does what its name says.
    """
    config = json.loads((directory / "config.json").read_text()) | changes
    weights = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
    width, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    longest = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[*sequence, *[1] * (longest - len(sequence))] for sequence in sequences])
    mask = torch.tensor([[i < len(sequence) for i in range(longest)] for sequence in sequences])
    is_text = (ids != 1).long()
    positions = is_text.cumsum(1) * is_text + 1

    x = weights["roberta.embeddings.word_embeddings.weight"][ids]
    x = x + weights["roberta.embeddings.position_embeddings.weight"][positions]
    x = norm(x + weights["roberta.embeddings.token_type_embeddings.weight"][0], "roberta.emb_ln")
    for i in range(config["num_hidden_layers"]):
        layer = f"roberta.encoder.layers.{i}"
        q, k, v = linear(x, f"{layer}.mixer.Wqkv").split(width, dim=-1)
        if changes.get("swap_qk"):
            q, k = k, q
        q, k, v = (part.unflatten(-1, (heads, width // heads)).transpose(1, 2) for part in (q, k, v))
        attention = q @ k.transpose(2, 3) / (width // heads) ** 0.5
        attention = attention.masked_fill(~mask[:, None, None], -10_000).softmax(-1)
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        x = norm(x + linear(mixed, f"{layer}.mixer.out_proj"), f"{layer}.norm1")
        x = norm(x + linear(F.gelu(linear(x, f"{layer}.mlp.fc1")), f"{layer}.mlp.fc2"), f"{layer}.norm2")
    return linear(torch.tanh(linear(x[:, 0], "classifier.dense")), "classifier.out_proj")[:, 0].numpy()


TWELVE_SLOPES = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
"""Of the twelve heads of jina-reranker-v1: the eight of ALiBi's paper, then the 1st, 3rd, 5th, 7th of its sixteen."""


@torch.inference_mode()
def jina_v1_logits(
    directory: Path,
    sequences: Sequence[Sequence[int]],
    slopes: Sequence[float] = tuple(TWELVE_SLOPES),
    gate_is_second: bool = False,
    **changes: Any,
) -> np.ndarray:
    """Logits of token sequences by the maths of JinaBERT, in float32, padded to the longest.

    No position enters but as -slope * |i - j| added to the scaled products of queries and keys; all tokens are of
    segment 0; post-LayerNorm blocks; of the gated layer's rows the first half goes through the exact gelu; head on the
    first token. `changes` replace keys of config.json.
    """
    config = json.loads((directory / "config.json").read_text()) | changes
    weights = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
    width, heads, wide = config["hidden_size"], len(slopes), config["intermediate_size"]
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[*sequence, *[1] * (longest - len(sequence))] for sequence in sequences])
    is_text = torch.tensor([[i < len(sequence) for i in range(longest)] for sequence in sequences])
    far = torch.tensor([[float(abs(i - j)) for j in range(longest)] for i in range(longest)])
    bias = torch.stack([-slope * far for slope in slopes])[None].masked_fill(~is_text[:, None, None], -torch.inf)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"])

    x = weights["bert.embeddings.word_embeddings.weight"][ids]
    x = norm(x + weights["bert.embeddings.token_type_embeddings.weight"][0], "bert.embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        parts = (linear(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        q, k, v = (part.unflatten(-1, (heads, width // heads)).transpose(1, 2) for part in parts)
        seen = (q @ k.transpose(2, 3) / (width // heads) ** 0.5 + bias).softmax(-1)
        mixed = linear((seen @ v).transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
        first, second = (x @ weights[f"{layer}.mlp.gated_layers.weight"].T).split(wide, dim=-1)
        if gate_is_second:
            first, second = second, first
        x = norm(x + linear(F.gelu(first) * second, f"{layer}.mlp.wo"), f"{layer}.mlp.layernorm")
    return linear(torch.tanh(linear(x[:, 0], "bert.pooler.dense")), "classifier")[:, 0].numpy()
