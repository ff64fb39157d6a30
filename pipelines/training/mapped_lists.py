"""Token lists in a folder of plain arrays, which are mapped into memory instead of read.

Many shards become one such folder, one after the other; all processes of a machine share its pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np

from .token_lists import TokenLists

ARRAY_DTYPES = {
    "text_starts": np.int64,
    "queries": np.int64,
    "list_starts": np.int64,
    "passages": np.int64,
    "labels": np.float16,
    "teacher": np.float16,
    "held_back": np.bool_,
}
"""The type of every array but `tokens`, whose width the vocabulary decides."""


def join(shards: Iterable[TokenLists], folder: Path, vocab_size: int) -> None:
    """Writes one folder that holds the lists of all shards, in their order; only one shard is in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = ARRAY_DTYPES | {"tokens": np.uint16 if vocab_size <= 1 << 16 else np.uint32}
    files = {field.name: (folder / f"{field.name}.bin").open("wb") for field in fields(TokenLists)}
    texts = tokens = passages = 0
    try:
        for name in ("text_starts", "list_starts"):
            files[name].write(np.zeros(1, dtypes[name]).tobytes())
        for shard in shards:
            moved = {
                "text_starts": shard.text_starts[1:] + tokens,
                "queries": shard.queries.astype(np.int64) + texts,
                "list_starts": shard.list_starts[1:] + passages,
                "passages": shard.passages.astype(np.int64) + texts,
            }
            for name, file in files.items():
                file.write(moved.get(name, getattr(shard, name)).astype(dtypes[name]).tobytes())
            texts += len(shard.text_starts) - 1
            tokens += len(shard.tokens)
            passages += len(shard.passages)
    finally:
        for file in files.values():
            file.close()
    (folder / "dtypes.json").write_text(json.dumps({name: np.dtype(dtype).str for name, dtype in dtypes.items()}))


def load_mapped(folder: Path) -> TokenLists:
    """The lists of a folder that `join` wrote; their pages are read when they are looked at."""
    dtypes = json.loads((folder / "dtypes.json").read_text())
    return TokenLists(
        **{field.name: mapped(folder / f"{field.name}.bin", dtypes[field.name]) for field in fields(TokenLists)}
    )


def mapped(path: Path, dtype: str) -> np.ndarray:
    """The array whose bytes a file holds, mapped into memory; an empty file cannot be mapped, its array is empty."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
