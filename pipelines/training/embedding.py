"""How a directory of sentence-transformers makes a vector of a text: its prefix, how much is read, what is pooled.

Such a directory has a `modules.json`, the chain through which a text goes. What we compute is a transformer, then the
mean over its tokens or its first token (CLS), then the unit length that a cosine needs; any other chain is refused.
A directory without that file is a bare transformer, of which the mean is taken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipelines.errors import ModelRefusedError
from pipelines.families.chain import OLDER_POOLINGS
from pipelines.model_files import MODULES, SENTENCE_TRANSFORMERS, TRANSFORMER_CONFIG, ModelFiles, read_json, shown

DEFAULT_LENGTH = 512
"""Tokens that are read of a text where the directory does not say."""
ONES = ["Transformer", "Pooling", "Normalize"]
"""The chain that we know, of which the last may be missing."""


class Pooling(StrEnum):
    """What of a text's tokens becomes its vector."""

    MEAN = "mean"
    CLS = "cls"


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a directory makes a vector of a text."""

    transformer: Path
    """The directory with config.json, tokenizer.json and the weights."""
    pooling: Pooling = Pooling.MEAN
    max_length: int = DEFAULT_LENGTH
    """Tokens that are read of a text, unless the caller wants another number."""
    lower_case: bool = False
    """Whether texts are lower-cased before they are tokenized."""
    query_prefix: str = ""
    passage_prefix: str = ""


def read_embedding(directory: Path) -> Embedding:
    """What the directory says; raises ModelRefusedError for a chain that we do not compute."""
    if not (directory / MODULES).is_file():
        return Embedding(directory)
    chain = read_chain(directory)
    transformer = directory / str(chain[0].get("path") or "")
    path = transformer / TRANSFORMER_CONFIG
    settings = read_json(path) if path.is_file() else {}
    length = settings.get("max_seq_length") or ModelFiles(str(directory), transformer).tokenizer_limit()
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ModelRefusedError(f"{path}: max_seq_length is {shown(length)}; it is a whole number from 1 on, or null")
    pooling = read_pooling(directory / str(chain[1].get("path")) / "config.json")
    prefixes = read_prefixes(directory / SENTENCE_TRANSFORMERS)
    return Embedding(transformer, pooling, length or DEFAULT_LENGTH, settings.get("do_lower_case") is True, *prefixes)


def read_prefixes(path: Path) -> tuple[str, str]:
    """The prompts of queries and of passages, by the names that sentence-transformers looks for; empty without one."""
    prompts = (read_json(path) if path.is_file() else {}).get("prompts") or {}
    if not isinstance(prompts, dict):
        raise ModelRefusedError(f"{path}: prompts is {shown(prompts)}; it is an object of texts")
    of_passages = next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), "")
    prefixes = prompts.get("query") or "", of_passages
    for prefix in prefixes:
        if not isinstance(prefix, str):
            raise ModelRefusedError(f"{path}: a prompt is {shown(prefix)}; it is a text")
    return prefixes


def read_chain(directory: Path) -> Sequence[Mapping[str, Any]]:
    """The modules, in their order; raises ModelRefusedError for others than ours."""
    path = directory / MODULES
    try:
        chain = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ModelRefusedError(f"{path} cannot be read: {error}") from None
    if not isinstance(chain, list) or not all(isinstance(one, dict) for one in chain):
        raise ModelRefusedError(f"{path} is no list of modules")
    names = [str(one.get("type")).rpartition(".")[2] for one in chain]
    if names not in (ONES, ONES[:-1]):
        raise ModelRefusedError(
            f"{path}: the chain is {', '.join(names) or 'empty'}; a dense encoder is a Transformer, then Pooling, and "
            "perhaps Normalize"
        )
    return chain


def read_pooling(path: Path) -> Pooling:
    """The pooling that a config says; raises ModelRefusedError for another than mean and CLS, and for several."""
    config = read_json(path)
    mode = (
        config.get("pooling_mode") or [mode for key, mode in OLDER_POOLINGS.items() if config.get(key)] or Pooling.MEAN
    )
    if isinstance(mode, list) and len(mode) == 1:
        mode = mode[0]
    if mode not in list(Pooling):
        raise ModelRefusedError(f"{path}: the pooling is {shown(mode)}; a dense encoder pools by mean or cls")
    if config.get("include_prompt") is False:
        raise ModelRefusedError(f"{path}: include_prompt is false; prefixes always count in the pooling here")
    return Pooling(mode)
