"""A reranker of a family that is not trained, written as transformers loads it by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..families import spec_of
from ..model_files import ModelFiles, read_tensors, refusals_naming
from ..preparation import pair_tokenizer
from .base import activation_told, as_stored, write_calibration, write_config_and_tokenizer, write_directory


def write_plain(files: ModelFiles, output: Path, dtype: torch.dtype) -> None:
    """A directory that transformers loads, whole or not there.

    Raises ModelRefusedError for what Crossray would not load, FileExistsError where something lies there.
    """
    spec = spec_of(files)
    pair_tokenizer(files, spec)
    with refusals_naming(files.directory):
        tensors, config = spec.plain_checkpoint(read_tensors(files), files.config())
    calibration = files.calibration()
    if calibration is not None and calibration.instruction is None:
        # By name: what is written has other words of its own where these were sentence-transformers' default prompt.
        calibration = replace(calibration, instruction=spec.own_instruction)

    def fill(folder: Path) -> None:
        save_file(as_stored(tensors, dtype), folder / "model.safetensors", metadata={"format": "pt"})
        kept = {key: value for key, value in config.items() if key != "torch_dtype"}
        kept |= activation_told(files)
        write_config_and_tokenizer(kept | {"dtype": str(dtype).removeprefix("torch.")}, files, folder)
        if calibration is not None:
            write_calibration(calibration, folder)

    write_directory(fill, output)
