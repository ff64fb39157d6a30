"""An embedded model, a directory, a uri or a hub name -> a directory of this machine, fetched once where need be.

Only data is taken from elsewhere: no pickled weights (`pytorch_model.bin`), no code that a model brings along.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock
from pyarrow import fs
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from .calibration import CALIBRATION
from .errors import ModelNotFoundError, ModelRefusedError
from .model_files import (
    CHAT_TEMPLATE,
    EMBEDDED_DIRECTORIES,
    MODULES,
    SENTENCE_TRANSFORMERS,
    TOKENIZER_CONFIG,
    TRANSFORMER_CONFIG,
    WEIGHTS_INDEX,
    ModelFiles,
)
from .stores import filesystem, is_uri, parse_given_uri, without_signature

COPY_BYTES = 8 << 20
NEEDED = (
    "config.json",
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "model.safetensors",
    "model-*.safetensors",
    CALIBRATION,
)
MODULE_FOLDERS = "[0-9]*_*"
"""Folders of the modules that modules.json lists, such as 1_Pooling."""
OF_A_CHAIN = (
    MODULES,
    TRANSFORMER_CONFIG,
    SENTENCE_TRANSFORMERS,
    CHAT_TEMPLATE,
    *(f"{MODULE_FOLDERS}/{name}" for name in ("config.json", "model.safetensors")),
)
"""What sentence-transformers writes beside the files of a model that it puts modules behind."""


def find_model(name: str, revision: str | None = None, token: str | None = None) -> ModelFiles:
    """The files of an embedded model, a directory, a uri or a hub name (these two fetched once, then from the cache).

    Raises ModelNotFoundError with what to try. HF_HUB_OFFLINE, HF_TOKEN and HF_HOME mean what huggingface_hub says.
    """
    if name in EMBEDDED_DIRECTORIES:
        return ModelFiles(name, EMBEDDED_DIRECTORIES[name])
    if is_uri(name):
        return fetch(name)
    directory = Path(name).expanduser()
    if directory.is_dir():
        return ModelFiles(name, directory.resolve())
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelNotFoundError(f"there is no directory {name!r} and it is no hub name (owner/model) either")
    return download(name, revision, token)


def fetch(uri: str) -> ModelFiles:
    """A directory of an object store, copied once into a cache directory that is named after what it holds.

    Raises ModelNotFoundError, and ConfigError for what is no uri of a store.
    """
    store = parse_given_uri(uri)
    try:
        source = filesystem(store)
        files = needed_files(source, store.path)
        directory = cache_directory(str(store), files)
        with FileLock(f"{directory}.lock"):  # the replicas of a node may all come at once
            if files and not directory.is_dir():
                unfinished = Path(f"{directory}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                for name, file in files.items():
                    (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
                    copy_file(source, file.path, unfinished / name)
                unfinished.rename(directory)
    except OSError as error:
        message = without_signature(str(error))
        raise ModelNotFoundError(f"model {uri!r} cannot be fetched: {message}; check uri and credentials") from None
    if not files:
        raise ModelNotFoundError(f"model {uri!r} has no config.json and no safetensors; check the uri")
    return ModelFiles(uri, directory)


def needed_files(source: fs.FileSystem, path: str) -> dict[str, fs.FileInfo]:
    """The files of a model in a directory of a store, by their names in it; those of its modules are in folders."""
    listed = source.get_file_info(fs.FileSelector(path))
    if any(file.base_name == MODULES for file in listed):
        listed = source.get_file_info(fs.FileSelector(path, recursive=True))
    files = {file.path.removeprefix(path).lstrip("/"): file for file in listed if file.is_file}
    return {name: file for name, file in files.items() if is_needed(name)}


def is_needed(name: str) -> bool:
    """Whether a file of this name is part of a model."""
    return any(fnmatchcase(name, pattern) for pattern in (*NEEDED, WEIGHTS_INDEX, *OF_A_CHAIN))


def cache_directory(uri: str, files: Mapping[str, fs.FileInfo]) -> Path:
    """Where the files of a uri lie, as long as their names, sizes and times of modification are these."""
    state = sorted((name, file.size, file.mtime_ns) for name, file in files.items())
    digest = hashlib.sha256(json.dumps([uri, state]).encode()).hexdigest()[:32]
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crossray" / "models"
    root.mkdir(parents=True, exist_ok=True)
    return root / digest


@retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_attempt(4),
    wait=wait_random_exponential(max=20),
    reraise=True,
)
def copy_file(source: fs.FileSystem, path: str, target: Path) -> None:
    """One file of a store to the local disk."""
    with source.open_input_stream(path, compression=None) as content, target.open("wb") as copy:
        shutil.copyfileobj(content, copy, COPY_BYTES)


def download(name: str, revision: str | None, token: str | None) -> ModelFiles:
    """A snapshot of a hub model, or the cached one where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = [*NEEDED, WEIGHTS_INDEX, *OF_A_CHAIN]
        directory = Path(snapshot_download(name, revision=revision, token=token, allow_patterns=wanted))
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is neither a directory nor a hub name: {error}") from None
    except LocalEntryNotFoundError:
        raise ModelNotFoundError(
            f"model {name!r} is not in the local cache and the hub cannot be reached (or HF_HUB_OFFLINE is set); "
            "download it once with a network, or give a local directory"
        ) from None
    except HfHubHTTPError as error:
        raise ModelNotFoundError(
            f"the hub does not give out {name!r} (revision {revision or 'default'}): {error}; "
            "check the name, the revision, and the token for a gated model"
        ) from None
    except OSError as error:
        raise ModelNotFoundError(f"downloading {name!r} failed: {type(error).__name__}: {error}") from error
    if not (directory / "config.json").is_file():
        raise ModelRefusedError(
            f"hub model {name!r} has no config.json; it is no model of transformers, and adapters and GGUF are not read"
        )
    return ModelFiles(name, directory, commit=directory.name)
