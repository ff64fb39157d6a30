"""A directory with a model -> its config, tokenizer and tensors, each checked as it is read.

Only data is read: no pickled weights (`pytorch_model.bin`), no code that a model brings along.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenizers import Tokenizer

from .calibration import CALIBRATION, Calibration
from .config import EMBEDDED_MODELS
from .errors import ModelRefusedError, tokenizer_faults
from .tokenizer_settings import class_of, follow_settings, named_class

if TYPE_CHECKING:
    import torch

EMBEDDED_DIRECTORIES = {name: Path(__file__).parent / name.replace("-", "_") for name in EMBEDDED_MODELS}
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS_INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
TRANSFORMER_CONFIG = "sentence_bert_config.json"
SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
CHAT_TEMPLATE = "chat_template.jinja"
SEGMENTED = ("bert", "electra")
"""Values of model_type whose models may read token_type_ids, if `ModelFiles.gives_segments`."""
WITHOUT_SEGMENTS = ("TokenizersBackend", "DistilBertTokenizer", "MPNetTokenizer", "RobertaTokenizer")
"""Classes of tokenizers that give none, unless they are told to."""
RENAMED = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
NO_MODEL = {
    "adapter_config.json": "it holds an adapter: merge it into its base model (merge_and_unload of peft) and save it",
    "*.gguf": "it holds GGUF, which is not read: take the safetensors that it was made of",
    "pytorch_model*.bin": "pickled weights (pytorch_model.bin) are not read, convert them with transformers' "
    "save_pretrained",
    "model-*.safetensors": f"it holds parts of the weights without {WEIGHTS_INDEX}, which belongs to them: add that",
}
"""Files that directories hold in place of a model, and what to do."""
LFS_POINTER = b"version https://git-lfs"
MAX_JSON_BYTES = 64 << 20
"""Of a config or an index: the largest that are published have a few."""

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 60


def shown(value: object) -> str:
    """A value of a JSON file for a message: short, and printable, however long or deep the value is."""
    return SHORT.repr(value)


class TensorHeader(NamedTuple):
    """What a safetensors file says of a tensor before its values."""

    dtype: str
    """In the words of safetensors: `F32`, `BF16`, `I8`, ..."""
    shape: tuple[int, ...]


class ModuleEntry(NamedTuple):
    """One module in modules.json."""

    type: str
    """Its class, such as `sentence_transformers.models.Dense`."""
    path: str
    """Its folder; empty for the model itself."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on the local disk."""

    name: str
    """What the caller asked for."""
    directory: Path
    commit: str | None = None
    """The commit that a hub name stood for."""

    def config(self) -> dict[str, Any]:
        """The parsed config.json."""
        path = self.directory / "config.json"
        if not path.is_file():
            found = what_else(self.directory, "a model directory needs one")
            raise ModelRefusedError(f"{self.directory} has no config.json; {found}")
        return read_json(path)

    def tokenizer(self) -> Tokenizer:
        """tokenizer.json, not built anew as by transformers (5 s for XLM-RoBERTa), and yet with what that changes.

        It neither truncates nor pads.
        """
        tokenizer, _ = self._tokenizer()
        return tokenizer

    def _tokenizer(self) -> tuple[Tokenizer, bool]:
        """The tokenizer, and whether tokenizer_config.json says otherwise than tokenizer.json."""
        path = self.tokenizer_file()
        with tokenizer_faults(f"{path} is not a tokenizer{what_to_pull(path)}"):
            tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()  # as its last user left them there; how pairs are cut is the model's
        tokenizer.no_padding()
        is_changed = follow_settings(tokenizer, self.tokenizer_config(), self.config())
        return tokenizer, is_changed

    def tokenizer_file(self) -> Path:
        """tokenizer.json; raises ModelRefusedError when there is none."""
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            raise ModelRefusedError(
                f"{self.directory} has no tokenizer.json; "
                "AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes one"
            )
        return path

    def tokenizer_limit(self) -> int | None:
        """`model_max_length` of tokenizer_config.json, where it is one (transformers writes 1e30 for none).

        Raises ModelRefusedError for a limit that is no number, or below 1.
        """
        return limit_in(self.tokenizer_config(), "model_max_length", self.directory / TOKENIZER_CONFIG)

    def transformer_limit(self) -> int | None:
        """`max_seq_length` of sentence_bert_config.json, where it is one; raises ModelRefusedError as above."""
        return limit_in(self.transformer_config(), "max_seq_length", self.directory / TRANSFORMER_CONFIG)

    def transformer_config(self) -> dict[str, Any]:
        """What sentence-transformers is told of the model itself; empty where it does not read modules.json."""
        path = self.directory / TRANSFORMER_CONFIG
        return read_json(path) if path.is_file() and self.listed_modules() else {}

    def gives_segments(self) -> bool:
        """Whether transformers gives a model token_type_ids with this tokenizer, as tokenizer_config.json says.

        Where it lists no inputs, its class decides: what transformers 5 saves of a tokenizer.json that belongs to no
        class is a TokenizersBackend, which gives none.
        """
        settings = self.tokenizer_config()
        inputs = settings.get("model_input_names")
        if isinstance(inputs, list):
            return "token_type_ids" in inputs
        return str(named_class(settings, self.config())).removesuffix("Fast") not in WITHOUT_SEGMENTS

    def chat_template(self) -> str | None:
        """The text of the template that makes a prompt of messages, from its own file or tokenizer_config.json."""
        path = self.directory / CHAT_TEMPLATE
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
        template: Any = self.tokenizer_config().get("chat_template")
        if isinstance(template, list):  # several by name, as older versions of transformers wrote them
            named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
            template = named.get("default")
        return template if isinstance(template, str) else None

    def modules(self) -> list[ModuleEntry]:
        """The modules of sentence-transformers that make a score of what the model gives; none where it does itself.

        Raises as `listed_modules`.
        """
        modules = self.listed_modules()
        return modules if len(modules) > 1 else []

    def listed_modules(self) -> list[ModuleEntry]:
        """What modules.json lists: the model itself, and what stands behind it; nothing where there is no such file.

        Beside a model for sequence classification, sentence-transformers reads only one that it wrote for a
        cross-encoder: another was left by an embedding model. Raises ModelRefusedError for a list that names anything
        but folders beside it.
        """
        path = self.directory / MODULES
        if not path.is_file():
            return []
        if is_classifier(self.config()) and self.sentence_transformers().get("model_type") != "CrossEncoder":
            return []
        listed = read_json_value(path)
        if not isinstance(listed, list):
            raise ModelRefusedError(f"{path} holds {type(listed).__name__}, not a list")
        return [module_entry(entry, path) for entry in listed]

    def sentence_transformers(self) -> dict[str, Any]:
        """What sentence-transformers is told of the whole: kind, prompts, activation; empty without such a file."""
        path = self.directory / SENTENCE_TRANSFORMERS
        return read_json(path) if path.is_file() else {}

    def tensor_files(self) -> list[tuple[str, Path]]:
        """The safetensors files, in a fixed order, with what the names of their tensors are to begin with."""
        files = [("", path) for path in self.weight_files()]
        folders = [module.path for module in self.modules() if module.path]
        of_modules = [(f"{folder}/", self.directory / folder / "model.safetensors") for folder in folders]
        return files + [(prefix, path) for prefix, path in of_modules if path.is_file()]

    def weight_files(self) -> list[Path]:
        """The safetensors files of the model itself, in a fixed order; raises ModelRefusedError when there are none."""
        path, index = self.directory / "model.safetensors", self.directory / WEIGHTS_INDEX
        if path.is_file():  # before parts that an earlier save left there, as in transformers
            return [path]
        if index.is_file():
            return [self.directory / shard for shard in shards_of(index)]
        found = what_else(self.directory, "a model directory needs one")
        raise ModelRefusedError(f"{self.directory} has no model.safetensors; {found}")

    def digest(self) -> str:
        """SHA-256 over the names and bytes of everything that decides a logit: config, tokenizer, weights."""
        paths = [self.directory / "config.json", self.tokenizer_file(), *(path for _, path in self.tensor_files())]
        if self._is_told_otherwise():
            paths.append(self.directory / TOKENIZER_CONFIG)
        if modules := self.modules():
            names = [
                MODULES,
                TRANSFORMER_CONFIG,
                SENTENCE_TRANSFORMERS,
                *(f"{one.path}/config.json" for one in modules if one.path),
            ]
            paths += [self.directory / name for name in names if (self.directory / name).is_file()]
        states = [(path, path.stat()) for path in paths]
        return digest_of(
            self.directory, tuple((path, one.st_ino, one.st_size, one.st_mtime_ns) for path, one in states)
        )

    def _is_told_otherwise(self) -> bool:
        """Whether tokenizer_config.json decides a logit, and not tokenizer.json alone."""
        config = self.config()
        if config.get("model_type") in SEGMENTED and not self.gives_segments():
            return True
        return class_of(self.tokenizer_config(), config) is not None and self._tokenizer()[1]

    def calibration(self) -> Calibration | None:
        """That of calibration.json, where there is one.

        Raises ModelRefusedError for one that is damaged, or that was fitted for other weights.
        """
        path = self.directory / CALIBRATION
        if not path.is_file():
            return None
        found = Calibration.read(path)
        if self.directory not in EMBEDDED_DIRECTORIES.values():  # whose files come together, and are loaded often
            found.check_fits(self.digest(), self.name)
        return found

    def tokenizer_config(self) -> dict[str, Any]:
        """The parsed tokenizer_config.json; empty where there is none."""
        path = self.directory / TOKENIZER_CONFIG
        return read_json(path) if path.is_file() else {}


@lru_cache(maxsize=16)
def digest_of(directory: Path, files: tuple[tuple[Path, int, int, int], ...]) -> str:
    """SHA-256 over the names and bytes of files, each with its inode, size and time of modification.

    It is kept: a process asks several times for that of the model that it loads, which has gigabytes.
    """
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(str(path.relative_to(directory)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ModelRefusedError naming the file when it is none."""
    parsed = read_json_value(path)
    if not isinstance(parsed, dict):
        raise ModelRefusedError(f"{path} holds {type(parsed).__name__}, not an object")
    return parsed


def read_json_value(path: Path) -> Any:
    """Any JSON value; raises ModelRefusedError naming the file when it is none."""
    if not path.is_file():
        raise ModelRefusedError(f"{path.parent} has no {path.name}; a model directory needs one")
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelRefusedError(f"{path} has {path.stat().st_size:,} bytes; the most are {MAX_JSON_BYTES:,}")
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except ModelRefusedError:
        raise
    except RecursionError:
        raise ModelRefusedError(f"{path} is nested too deeply") from None
    except OSError as error:
        raise ModelRefusedError(f"{path} cannot be read: {error}") from None
    except ValueError as error:
        raise ModelRefusedError(f"{path} is not JSON: {error}") from None
    return parsed


def limit_in(settings: Mapping[str, Any], key: str, path: Path) -> int | None:
    """The number of tokens that a text may have; None where there is no such limit. Raises ModelRefusedError."""
    limit = settings.get(key)
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise ModelRefusedError(f"{path}: {key} is {shown(limit)}; it is a number from 1 on, or null")
    return int(limit) if limit < 1_000_000 else None


def what_else(directory: Path, otherwise: str) -> str:
    """What lies in a directory in place of a model, and what to do; `otherwise` where it is nothing that we know."""
    return next((found for pattern, found in NO_MODEL.items() if any(directory.glob(pattern))), otherwise)


def shards_of(index: Path) -> list[str]:
    """The names of the files that an index says the tensors are in, sorted.

    Raises ModelRefusedError for an index that names what is no file beside it.
    """
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelRefusedError(f"{index} has no weight_map; download it again")
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or not is_beside(shard):
            raise ModelRefusedError(
                f"{index}: weight_map has {shown(tensor)} in {shown(shard)}; it is the name of a file beside the index"
            )
    names = sorted(set(shards.values()))
    for name in names:
        if not (index.parent / name).is_file():
            raise ModelRefusedError(f"{index}: weight_map names {shown(name)}, which is not there; download it again")
    return names


def module_entry(entry: Any, path: Path) -> ModuleEntry:
    """A module as modules.json lists it; raises ModelRefusedError for what is none, or is not beside that file."""
    kind, folder = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(folder, str) or not is_beside(folder, ("",)):
        raise ModelRefusedError(f"{path} lists {shown(entry)}; a module has a type, and as its path a folder beside it")
    return ModuleEntry(kind, folder)


def is_beside(name: str, besides: Sequence[str] = ()) -> bool:
    """Whether a name in a JSON file is that of a file or folder beside it, or one of `besides`."""
    return name in besides or (name not in ("", ".", "..") and not set(name) & set("/\\\0"))


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether config.json says that the model gives a score by itself."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(
        str(one).endswith("ForSequenceClassification") for one in architectures
    )


def read_tensors(files: ModelFiles) -> dict[str, torch.Tensor]:
    """All tensors by their names; those of a module begin with its folder."""
    return {
        f"{prefix}{name}": tensor for prefix, path in files.tensor_files() for name, tensor in tensors_in(path).items()
    }


def tensors_in(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in one safetensors file."""
    from safetensors.torch import load_file

    return {present_name(name): tensor for name, tensor in load_file(path).items()}


def present_name(name: str) -> str:
    """The name that transformers gives a tensor whose file has its name of TensorFlow, such as bert-base-uncased's."""
    for earlier, present in RENAMED.items():
        if name.endswith(earlier):
            return name.removesuffix(earlier) + present
    return name


def tensor_headers(files: ModelFiles) -> dict[str, TensorHeader]:
    """Type and shape of each tensor by its name, without reading the tensors.

    Raises ModelRefusedError for a file that is no safetensors file, and for a tensor that is in two of them.
    """
    headers: dict[str, TensorHeader] = {}
    for prefix, path in files.tensor_files():
        for bare_name, header in headers_in(path):
            name = f"{prefix}{bare_name}"
            if name in headers:
                raise ModelRefusedError(
                    f"{path}: tensor {shown(name)} is there twice (in another file, or by its name of TensorFlow, "
                    "gamma or beta); one of them is wrong"
                )
            headers[name] = header
    return headers


def headers_in(path: Path) -> Iterator[tuple[str, TensorHeader]]:
    """Names and headers of the tensors in one safetensors file; raises ModelRefusedError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118  # it is no mapping
                one = shard.get_slice(name)
                yield present_name(name), TensorHeader(one.get_dtype(), tuple(one.get_shape()))
    except (SafetensorError, OSError) as error:
        raise ModelRefusedError(f"{path} is not a readable safetensors file: {error}{what_to_pull(path)}") from None


def what_to_pull(path: Path) -> str:
    """What to do about a file in whose place a checkout of Git without LFS has left a pointer; empty for others."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return ""
    return "; it is a pointer of Git LFS, and `git lfs pull` in its directory fetches the file" if is_pointer else ""


@contextmanager
def refusals_naming(model: object) -> Iterator[None]:
    """Puts the model's name before what is wrong with it."""
    try:
        yield
    except ModelRefusedError as error:
        raise ModelRefusedError(f"{model}: {error}") from None
