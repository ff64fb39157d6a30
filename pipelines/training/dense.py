"""A dense bi-encoder of the BERT family: text -> unit vector, as e5, all-MiniLM-L6-v2 and their like are described."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel
from transformers.utils import logging

from pipelines.errors import ModelError, ModelRefusedError
from pipelines.model_files import ModelFiles
from pipelines.training.embedding import Pooling, read_embedding

BATCH_TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Of a pass, with padding."""


class DenseEncoder:
    """Mean over tokens, or the first token where the directory says so; unit length. BERT and XLM-RoBERTa, safetensors.

    Texts are cut at `max_length` tokens, by default at what the directory says (`pipelines.training.embedding`).
    The prefixes are those of models that tell queries from passages ("query: " and "passage: " for e5), by default the
    prompts that the directory has for them.

    Raises ModelRefusedError for a directory that holds something else.
    """

    def __init__(
        self,
        directory: Path,
        max_length: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
    ) -> None:
        self.embedding = read_embedding(directory)
        backbone = self.embedding.transformer
        files = ModelFiles(str(directory), backbone)
        config = files.config()
        family = config.get("model_type")
        if family not in ("bert", "xlm-roberta"):
            raise ModelRefusedError(f"{backbone} is a model of type {family!r}; a dense encoder is bert or xlm-roberta")
        self.dtype, self.device = dtype, device
        self.query_prefix = self.embedding.query_prefix if query_prefix is None else query_prefix
        self.passage_prefix = self.embedding.passage_prefix if passage_prefix is None else passage_prefix
        self.pad = int(config.get("pad_token_id") or 0)
        # XLM-RoBERTa counts positions from the padding's id on.
        limit = config["max_position_embeddings"] - (self.pad + 1 if family == "xlm-roberta" else 0)
        self.model = load_backbone(backbone).to(device).eval()
        self.width = int(config["hidden_size"])
        self.tokenizer = files.tokenizer()
        self.tokenizer.enable_truncation(min(max_length or self.embedding.max_length, limit))

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """As `encode`, each with the prefix of queries."""
        return self.encode([self.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        """As `encode`, each with the prefix of passages."""
        return self.encode([self.passage_prefix + text for text in texts])

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_tokens: int | None = None) -> np.ndarray:
        """Unit vectors, float32 [len(texts), width], in the order given.

        Raises ModelError where one is not finite: compared with others, it would make a text vanish from every list.
        """
        batch_tokens = batch_tokens or BATCH_TOKENS[torch.device(self.device).type]
        texts = [text.lower() for text in texts] if self.embedding.lower_case else list(texts)
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = np.zeros((len(ids), self.width), dtype=np.float32)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * len(ids[order[end]]) <= batch_tokens:
                end += 1
            rows = order[start:end]
            vectors[rows] = self._pooled([ids[i] for i in rows]).cpu().numpy()
            start = end
        if (broken := np.flatnonzero(~np.isfinite(vectors).all(axis=1))).size:
            raise ModelError(
                f"the encoder {self.embedding.transformer} gives no finite vector for {broken.size:,} of "
                f"{len(texts):,} texts, such as {texts[broken[0]][:60]!r}; its weights may hold NaN, or be too large "
                "for float16: let it compute on CPUs"
            )
        return vectors

    def _pooled(self, ids: Sequence[list[int]]) -> torch.Tensor:
        """Unit vectors of texts of which the last is the longest."""
        width = len(ids[-1])
        input_ids = torch.tensor([row + [self.pad] * (width - len(row)) for row in ids], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=self.device)
        kind = torch.device(self.device).type
        with torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32):
            hidden = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state.float()
        if self.embedding.pooling is Pooling.CLS:
            return torch.nn.functional.normalize(hidden[:, 0], dim=-1)
        means = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(means, dim=-1)


def load_backbone(directory: Path) -> torch.nn.Module:
    """The encoder without a head; raises ModelRefusedError where the directory lacks a tensor of it."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of a pooling layer that is left out; what is missing is asked below
    try:
        model, info = AutoModel.from_pretrained(
            directory,
            add_pooling_layer=False,  # BERT's own, which is no part of a vector
            dtype=torch.float32,  # whatever the file has: autocast takes no half precision on a CPU
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    if info["missing_keys"]:
        raise ModelRefusedError(f"{directory} lacks the tensor {sorted(info['missing_keys'])[0]}; it would be random")
    return model  # type: ignore[no-any-return]


def fastest_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it (three times as fast on AVX-512 BF16), else float32; not for figures."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
