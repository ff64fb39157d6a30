"""The fingerprint: one hash of everything that can change a score, so that old and new scores are never mixed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from .calibration import Calibration
from .config import EMBEDDED_MODELS, RerankerConfig
from .devices import resolve_device, resolve_dtype
from .families import ModelSpec, model_limit, spec_of
from .lengths import Lengths
from .model_files import ModelFiles
from .model_sources import find_model
from .stores import is_uri

logger = logging.getLogger(__name__)
ENGINE_REVISION = 1
"""Raised whenever our own code moves scores by more than 1e-4."""
AFTER_OR_BEFORE_LOGITS = (
    "activation",
    "calibration",
    "instruction",
    "max_length",
    "max_query_length",
    "overlap_tokens",
    "max_chunks_per_doc",
)
"""Parts of a fingerprint that the logit of a given token pair does not depend on."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The parts behind the hash, readable, for manifests and error messages."""

    files: str
    """SHA-256 of config, tokenizer and weights."""
    layout: str
    activation: str
    dtype: str
    """As resolved, never `auto`."""
    max_length: int
    """Lengths as clamped to the model."""
    max_query_length: int
    overlap_tokens: int
    max_chunks_per_doc: int | None
    quantization: str | None = None
    engine_revision: int = ENGINE_REVISION
    calibration: tuple[float, float] | None = None
    """Scale and bias of the logits; None is 1 and 0, which change no score."""
    instruction: str | None = None
    """None is the model's own, whether it was given or left out."""

    def as_dict(self) -> dict[str, Any]:
        """The parts as JSON types; without calibration and instruction they are those that earlier versions wrote."""
        parts = asdict(self)
        if self.calibration is not None:
            parts["calibration"] = list(self.calibration)
        optional = ("calibration", "instruction")
        return {name: value for name, value in parts.items() if value is not None or name not in optional}

    @property
    def hash(self) -> str:
        """32 hexadecimal digits over all parts."""
        return hash_of(self.as_dict())


class ServedModel(NamedTuple):
    """What a replica says of the model that it has loaded."""

    config: RerankerConfig
    """As `resolved`."""
    model_limit: int
    """Tokens of the longest pair that the model can read."""
    fingerprint: Fingerprint
    loaded_at: int
    """Seconds since 1970."""
    takes_instruction: bool = False
    """Whether the model reads one before query and document."""
    own_instruction: str | None = None
    """The one that it reads where none is given."""

    def fingerprint_with(self, lengths: Lengths, instruction: str | None) -> Fingerprint:
        """The fingerprint of this model where texts are cut by other `lengths`, which are clamped here.

        An `instruction` may be another one, too: whoever makes the pairs writes it into them. The calibration holds for
        the one that the model was loaded with.
        """
        another = None if instruction == self.own_instruction else instruction
        told = replace(self.fingerprint, instruction=another, **asdict(lengths.clamped(self.model_limit)))
        return told if another == self.fingerprint.instruction else replace(told, calibration=None)


def logits_fingerprint(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Those parts of a fingerprint that decide the logit of a given token pair, and their hash.

    Lengths and chunking do not, they only decide which pairs there are, nor do calibration and activation, which come
    after the logit. A part that this function does not know counts as deciding: a pair may be scored twice then, never
    wrongly.
    """
    deciding = {name: value for name, value in parts.items() if name not in ("hash", *AFTER_OR_BEFORE_LOGITS)}
    return {"hash": hash_of(deciding), **deciding}


def hash_of(parts: Mapping[str, Any]) -> str:
    """32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def fingerprint_of(
    files: ModelFiles,
    spec: ModelSpec,
    lengths: Lengths,
    dtype: torch.dtype,
    instruction: str | None = None,
    calibration: Calibration | None = None,
) -> Fingerprint:
    """The fingerprint of a model under given lengths and dtype; reads the files once, loads no weights."""
    return Fingerprint(
        files=files.digest(),
        layout=spec.layout,
        activation=spec.activation,
        dtype=str(dtype).removeprefix("torch."),
        max_length=lengths.max_length,
        max_query_length=lengths.max_query_length,
        overlap_tokens=lengths.overlap_tokens,
        max_chunks_per_doc=lengths.max_chunks_per_doc,
        calibration=None
        if calibration is None or calibration.is_identity
        else (float(calibration.scale), float(calibration.bias)),
        instruction=None if instruction == spec.own_instruction else instruction,
    )


def calibration_of(config: RerankerConfig, files: ModelFiles) -> Calibration | None:
    """The calibration that was given, else that of the model's directory, if it was fitted with the same instruction.

    Raises ModelRefusedError for one that was fitted for other weights, and where it was given for another instruction.
    """
    is_given = config.calibration is not None
    found = config.calibration if is_given else files.calibration()
    if found is None:
        return None
    if is_given:
        found.check_fits(files.digest(), files.name)
    instruction = config.instruction
    if instruction is not None or found.instruction is not None:  # the model's own is None on both sides
        own = spec_of(files).own_instruction
        instruction = None if instruction == own else instruction
        found = replace(found, instruction=None) if found.instruction == own else found
    if is_given:
        found.check_fits_instruction(instruction, files.name)
    elif found.instruction != instruction:
        logger.warning("%s has a calibration for another instruction; scores are not calibrated", files.name)
        return None
    return found


def resolved(config: RerankerConfig, files: ModelFiles) -> RerankerConfig:
    """`config` for another process: its model is embedded, an absolute directory, a uri, or a hub name and commit.

    It carries the calibration along, whatever lies beside the model there. Raises as `calibration_of`.
    """
    is_name = files.commit is not None or config.model in EMBEDDED_MODELS or is_uri(config.model)
    model = config.model if is_name else str(files.directory)
    return replace(config, model=model, revision=files.commit, calibration=calibration_of(config, files))


def planned_fingerprint(config: RerankerConfig) -> Fingerprint:
    """The fingerprint that a replica with `config` will have, without loading the weights.

    `config.dtype` must not be `auto` when the replica's device differs from this machine's.
    """
    files = find_model(config.model, config.revision, config.token)
    spec = spec_of(files)
    lengths = Lengths.of(config).clamped(model_limit(spec, files))
    dtype = resolve_dtype(config.dtype, resolve_device(config.device))
    return fingerprint_of(files, spec, lengths, dtype, config.instruction, calibration_of(config, files))
