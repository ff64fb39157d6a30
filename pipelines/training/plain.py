"""Any reranker that Crossray loads, written as transformers loads it by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..config import RerankerConfig
from ..errors import ConfigError
from ..families import family_of, model_limit, spec_of
from ..families.language_model import LanguageModelSpec
from ..model_files import ModelFiles, read_tensors, refusals_naming, tensor_headers
from ..model_sources import find_model
from ..preparation import Preparation, pair_tokenizer
from .base import (
    activation_told,
    as_stored,
    load_base,
    save_weights,
    write_calibration,
    write_config_and_tokenizer,
    write_directory,
    write_model,
)


def convert(
    model: str, output: Path, dtype: torch.dtype, *, revision: str | None = None, token: str | None = None
) -> None:
    """Writes any model that Crossray loads as a directory that transformers loads, whole or not there.

    Matrices in 8 bits and jina-reranker-v2's layout are undone. Raises ModelError or ConfigError for what Crossray
    would not load, or has no classification head; FileExistsError where something lies at `output`.
    """
    files = find_model(model, revision, token)
    if not family_of(files.config(), tensor_headers(files)).is_trained:
        write_plain(files, output, dtype)
        return
    base = load_base(model, revision, token)
    if not base.has_head:
        raise ConfigError(f"{model} has no classification head, so it is no reranker; train one from it first")
    write_model(base.encoder, base, output, dtype, calibration=files.calibration(), is_trained=False)


def write_plain(files: ModelFiles, output: Path, dtype: torch.dtype) -> None:
    """The directory of a family that is not trained.

    Raises ModelRefusedError or ConfigError for what Crossray would not load, FileExistsError for what lies there.
    """
    spec = spec_of(files)
    Preparation(pair_tokenizer(files, spec), RerankerConfig(str(files.directory)), model_limit(spec, files))
    with refusals_naming(files.directory):
        tensors, config = spec.plain_checkpoint(read_tensors(files), files.config())
    if isinstance(spec, LanguageModelSpec) and config.get("pad_token_id") is None:
        config |= padding_told(files)
    calibration = files.calibration()
    if calibration is not None and calibration.instruction is None:
        # By name: what is written has other words of its own where these were sentence-transformers' default prompt.
        calibration = replace(calibration, instruction=spec.own_instruction)

    def fill(folder: Path) -> None:
        save_weights(as_stored(tensors, dtype), folder)
        kept = {key: value for key, value in config.items() if key != "torch_dtype"}
        kept |= activation_told(files)
        write_config_and_tokenizer(kept | {"dtype": str(dtype).removeprefix("torch.")}, files, folder)
        if calibration is not None:
            write_calibration(calibration, folder)

    write_directory(fill, output)


def padding_told(files: ModelFiles) -> dict[str, Any]:
    """What config.json has to say of the token that pads, by which transformers finds the last token of each pair.

    A causal language model needs none, so it may stand in tokenizer_config.json alone; nothing where it stands nowhere.
    """
    told: Any = files.tokenizer_config().get("pad_token")
    token = told.get("content") if isinstance(told, dict) else told
    found = files.tokenizer().token_to_id(token) if isinstance(token, str) else None
    return {} if found is None else {"pad_token_id": found}
