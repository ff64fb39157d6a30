"""What training begins from, and the directory that it leaves: any model of the packed families, in and out.

A cross-encoder is taken as it is. A plain encoder (a bi-encoder, a masked language model) gets a new head.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer

from ..calibration import CALIBRATION, Calibration
from ..encoder import PackedEncoder
from ..errors import ModelRefusedError
from ..families import EncoderSpec, family_of, model_limit, recognise, spec_of
from ..families.bert import NAMES as BERT
from ..families.checkpoint import Tensors, check_number_of_layers, check_shapes, from_checkpoint, to_checkpoint
from ..families.int8_rows import SCALES, in_8_bits, with_restored_rows
from ..families.roberta import NAMES as ROBERTAS
from ..model_files import (
    SEGMENTED,
    TOKENIZER_CONFIG,
    ModelFiles,
    refusals_naming,
    shown,
    tensor_headers,
    tensors_in,
)
from ..model_sources import find_model
from ..tokenizer_settings import class_of, named_class
from ..tokens import PairTokenizer
from .batches import PairLayout
from .recipe import Recipe

LEFT_OUT = ("pooler.", "cls.", "lm_head.")
"""Beginnings of names that a plain encoder may have: heads of what it was trained for, which a new head replaces."""
HEAD_DEVIATION = 0.02
SPECIAL_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
ACTIVATIONS = ("sentence_transformers", "sbert_ce_default_activation_function")
"""Keys of config.json that tell sentence-transformers what to make of a logit."""
SIGMOID = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}
SUMS = "SHA256SUMS"
KEEP_ZEROS = "keep_zeros"
"""Key of config.json that training alone reads."""
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
"""What the names of transformers' classes begin with, by model_type."""
TRAINED = "training takes BERT, RoBERTa, XLM-RoBERTa, CamemBERT and jina-reranker-v2 models, and their plain encoders"


@dataclass(frozen=True, slots=True)
class Base:
    """A model in float32 with all that training and writing it again need."""

    name: str
    files: ModelFiles
    spec: EncoderSpec
    encoder: PackedEncoder
    tokenizer: Tokenizer
    """Neither truncates nor pads."""
    layout: PairLayout
    has_head: bool
    """Whether the checkpoint brought its own."""
    max_length: int
    """Tokens of the longest pair."""

    @property
    def keeps_zeros(self) -> bool:
        """Whether its config.json says that training must not change weights that are zero."""
        return bool(self.files.config().get(KEEP_ZEROS))

    def with_kept_zeros(self, recipe: Recipe) -> Recipe:
        """The recipe, with `keep_zeros` where the model asks for it."""
        return replace(recipe, keep_zeros=recipe.keep_zeros or self.keeps_zeros)


def load_base(name: str, revision: str | None = None, token: str | None = None, seed: int = 0) -> Base:
    """The model of `embedded`, a directory, a uri or a hub name; `seed` draws a head where there is none.

    Raises ModelNotFoundError, and ModelRefusedError for what would train from garbage.
    """
    files = find_model(name, revision, token)
    names = list(tensor_headers(files))
    has_head = any(key.startswith("classifier.") for key in names)
    if has_head:
        spec = spec_of(files)
    else:
        with refusals_naming(name):
            spec = recognise(files.config() | {"num_labels": 1}, names).with_segments(given=files.gives_segments())
    with refusals_naming(name):
        if not isinstance(spec, EncoderSpec) or not family_of(files.config(), names).is_trained:
            raise ModelRefusedError(f"this is the family {spec.layout}; {TRAINED}")
        check_number_of_layers(names, spec.shape.num_hidden_layers)
    stored = {key: tensor for path in files.weight_files() for key, tensor in tensors_in(path).items()}
    tensors = with_restored_rows(stored)
    if not has_head:
        tensors = with_new_head(tensors, spec, seed)
    with refusals_naming(name):
        weights = from_checkpoint(tensors, spec.names, spec.shape.num_hidden_layers)
        check_shapes({key: tuple(tensor.shape) for key, tensor in tensors.items()}, spec.names, spec.shape)
    encoder = PackedEncoder(spec.shape)
    encoder.load_state_dict(weights)
    tokenizer = files.tokenizer()
    with refusals_naming(name):
        template = spec.pair_template(tokenizer)
        PairTokenizer(tokenizer, template)  # refuses now what `Reranker` would refuse once it is trained
    layout = PairLayout(
        start=template.first[0],
        separator=template.last[0],
        separators_between=len(template.middle),
        padding_id=spec.padding_id,
        has_segments=template.has_segments,
    )
    return Base(name, files, spec, encoder, tokenizer, layout, has_head, model_limit(spec, files))


def with_new_head(tensors: Tensors, spec: EncoderSpec, seed: int) -> Tensors:
    """The tensors of a plain encoder as those of a cross-encoder: dense layer the identity, output layer drawn.

    The identity keeps what the first token says of the text; a new dense layer would have to learn it again.
    """
    prefix = "bert." if spec.layout == "bert" else "roberta."
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    kept = {f"{prefix}{name}": tensor for name, tensor in named.items() if not name.startswith(LEFT_OUT)}
    width = spec.shape.hidden_size
    heads = spec.names.modules(spec.shape.num_hidden_layers)
    drawn = torch.randn(1, width, generator=torch.Generator().manual_seed(seed)) * HEAD_DEVIATION
    for module, weight in (("head_dense", torch.eye(width)), ("head_out", drawn)):
        kept[f"{heads[module]}.weight"] = weight
        kept[f"{heads[module]}.bias"] = torch.zeros(len(weight))
    return kept


class EightBits(StrEnum):
    """What a model stores as int8, with a scale for each row."""

    NONE = "none"
    EMBEDDINGS = "embeddings"
    """Of words."""
    MATRICES = "matrices"
    """All but the embeddings of positions and segments and the output layer."""


def write_model(
    encoder: PackedEncoder,
    base: Base,
    output: Path,
    dtype: torch.dtype = torch.float16,
    *,
    eight_bits: EightBits = EightBits.NONE,
    overwrite: bool = False,
    calibration: Calibration | None = None,
    is_trained: bool = True,
) -> None:
    """A directory that `Reranker` and transformers load, whole or not there; tokenizer and sizes are the base's.

    Of a model that was trained, sentence-transformers is told to give the sigmoid of the logit; of another one, what it
    was told before. A `calibration` comes to lie beside the weights. transformers does not read `eight_bits`.

    Raises FileExistsError where something lies there, unless it is such a directory and may be overwritten: then only
    the files of the model are, and a README.md beside them stays.
    """

    activation = SIGMOID if is_trained else activation_told(base.files)

    def fill(folder: Path) -> None:
        write_files(encoder, base, folder, dtype, eight_bits, activation)
        if calibration is not None:
            write_calibration(calibration, folder)

    write_directory(fill, output, overwrite=overwrite)


def activation_told(files: ModelFiles) -> dict[str, Any]:
    """What config.json has to say, so that sentence-transformers makes of a logit what it makes of it with these files.

    Its own file counts before config.json, where earlier versions wrote it.
    """
    told = files.sentence_transformers().get("activation_fn")
    if isinstance(told, str):
        return {"sentence_transformers": {"activation_fn": told}}
    config = files.config()
    return {name: config[name] for name in ACTIVATIONS if name in config}


def as_stored(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Tensors:
    """The tensors in a type for numbers; raises ModelRefusedError where it cannot hold a number that they have."""
    stored = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in tensors.items()}
    for name, tensor in stored.items():
        if not torch.isfinite(tensor).all() and torch.isfinite(tensors[name]).all():
            raise ModelRefusedError(
                f"{shown(name)} has numbers beyond those of {str(dtype).removeprefix('torch.')}, which go up to "
                f"{torch.finfo(dtype).max:.3g}; choose another dtype"
            )
    return stored


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Writes a calibration beside the weights in the folder, as that of them."""
    files = ModelFiles(str(folder), folder).digest()
    (folder / CALIBRATION).write_text(replace(calibration, files=files).as_json())


def check_finite(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises ModelRefusedError where a tensor of the model `name` has NaN or infinity."""
    for tensor_name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelRefusedError(f"{name}: {tensor_name} has values that are no finite numbers")


def check_free(output: Path) -> None:
    """Raises FileExistsError where something lies at `output`; asked before the work, it saves the work."""
    if output.exists():
        raise FileExistsError(f"{output} is there already; give another directory")


def write_directory(fill: Callable[[Path], None], output: Path, *, overwrite: bool = False) -> None:
    """A directory of the files that `fill` puts into a folder, and their SHA256SUMS; raises as `write_model`."""
    if not (overwrite and (output / SUMS).is_file()):
        check_free(output)
    unfinished = output.with_name(f"{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        fill(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    paths = sorted(path for path in unfinished.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(unfinished)}\n" for path in paths]
    (unfinished / SUMS).write_text("".join(sums))
    for path in paths:
        path.chmod(0o644)  # safetensors writes 0600, which a wheel would carry on
    if output.exists():
        replace_model(unfinished, output)
    else:
        unfinished.rename(output)


def write_files(
    encoder: PackedEncoder,
    base: Base,
    folder: Path,
    dtype: torch.dtype,
    eight_bits: EightBits,
    activation: dict[str, Any],
) -> None:
    """Writes weights, config and tokenizer of a model into a folder."""
    names = BERT if base.spec.names == BERT else ROBERTAS.get(base.spec.layout, ROBERTAS["xlm-roberta"])
    tensors = to_checkpoint(encoder.state_dict(), names, encoder.shape.num_hidden_layers)
    contents = as_stored(tensors, dtype)
    modules = names.modules(encoder.shape.num_hidden_layers)
    whole = {f"{modules[name]}.weight" for name in ("position_embeddings", "token_type_embeddings", "head_out")}
    named = {
        EightBits.NONE: set[str](),
        EightBits.EMBEDDINGS: {f"{modules['word_embeddings']}.weight"},
        EightBits.MATRICES: {name for name, tensor in tensors.items() if tensor.dim() == 2} - whole,
    }
    for name in named[eight_bits]:
        contents[name], contents[f"{name}{SCALES}"] = in_8_bits(tensors[name].detach().cpu())
    save_weights(contents, folder)
    config = written_config(base, names.layout, dtype) | activation
    write_config_and_tokenizer(config, base.files, folder)


def save_weights(tensors: Tensors, folder: Path) -> None:
    """Writes model.safetensors into a folder; raises OSError where the disk does not take it, as when it is full."""
    try:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{folder / 'model.safetensors'} cannot be written: {error}") from None


def write_config_and_tokenizer(config: dict[str, Any], files: ModelFiles, folder: Path) -> None:
    """Writes a config.json beside the tokenizer that these files have, with what they tell of it elsewhere."""
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", TOKENIZER_CONFIG):
        if (files.directory / name).is_file():
            shutil.copyfile(files.directory / name, folder / name)
    settings, more = files.tokenizer_config(), dict[str, Any]()
    if (limit := files.transformer_limit()) is not None:
        more["model_max_length"] = min(limit, files.tokenizer_limit() or limit)
    if named := named_class(settings, files.config()):
        more["tokenizer_class"] = named
    is_of_no_class = class_of(settings | more, config) is None
    if config["model_type"] in SEGMENTED and is_of_no_class and files.gives_segments():
        more["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if settings | more != settings:
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings | more, indent=2) + "\n")


def replace_model(new: Path, output: Path) -> None:
    """Moves the files of a new model into the place of those that an earlier one's SHA256SUMS names; others stay."""
    earlier = {line.partition("  ")[2] for line in (output / SUMS).read_text().splitlines()}
    written = {path.name for path in new.iterdir()}
    for name in earlier - written:
        (output / Path(name).name).unlink(missing_ok=True)
    for name in sorted(written, key=lambda name: name == SUMS):  # last: until then they tell that it is not whole
        (new / name).replace(output / name)
    new.rmdir()


def written_config(base: Base, layout: str, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json of a model of the kind of `base`: of its own only what an encoder needs."""
    own = base.files.config()
    ids: dict[str, Any] = {"pad_token_id": 0} if layout == "bert" else dict(zip(SPECIAL_IDS, (1, 0, 2), strict=True))
    ids |= {name: own[name] for name in SPECIAL_IDS if own.get(name) is not None}
    return {
        **asdict(base.spec.shape),
        **ids,
        "architectures": [f"{CLASSES[layout]}ForSequenceClassification"],
        "model_type": layout,
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "dtype": str(dtype).removeprefix("torch."),
        **({KEEP_ZEROS: True} if base.keeps_zeros else {}),
    }
