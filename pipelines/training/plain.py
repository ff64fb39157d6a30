"""A reranker of a family that is not trained, written as transformers loads it by itself."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..families import spec_of
from ..model_files import ModelFiles
from .base import write_config_and_tokenizer, write_directory


def write_plain(files: ModelFiles, output: Path, dtype: torch.dtype) -> None:
    """A directory that transformers loads, whole or not there.

    Raises ModelRefusedError for what Crossray would not load, FileExistsError where something lies there.
    """
    spec_of(files)

    def fill(folder: Path) -> None:
        stored = {name: tensor for path in files.weight_files() for name, tensor in load_file(path).items()}
        contents = {name: tensor.to(dtype).contiguous() for name, tensor in stored.items()}
        save_file(contents, folder / "model.safetensors", metadata={"format": "pt"})
        config = {key: value for key, value in files.config().items() if key != "torch_dtype"}
        write_config_and_tokenizer(config | {"dtype": str(dtype).removeprefix("torch.")}, files, folder)

    write_directory(fill, output)
