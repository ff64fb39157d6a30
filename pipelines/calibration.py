"""Calibration: the scale and bias that make a score of 0.5 mean an even chance, and the file that carries them.

They are fitted on labelled pairs (`crossray calibrate`) for the weights of one model, and belong to no other.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .errors import ConfigError, ModelRefusedError

CALIBRATION = "calibration.json"
"""The file in a model's directory."""
MAX_BYTES = 1 << 20
"""Of such a file: it has some numbers and names."""
NEEDED = ("scale", "bias", "files")
SHARES = ("relevant", "calibration_error_before", "calibration_error_after")
"""Keys whose values lie in 0..1."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """score = sigmoid(scale * logit + bias), and what is known of how the two came about."""

    scale: float
    """More than 0, so that the order is that of the logits."""
    bias: float
    files: str
    """SHA-256 of the model's files, as a fingerprint has it: the calibration holds for these weights alone."""
    pairs: int | None = None
    """How many labelled pairs they were fitted on."""
    relevant: float | None = None
    """The share of these pairs that is relevant."""
    calibration_error_before: float | None = None
    """The expected calibration error without them, on pairs that the fit did not see."""
    calibration_error_after: float | None = None
    """The same with them."""
    data: tuple[str, ...] = ()
    """Names of the files with the labels."""
    note: str | None = None
    """What whoever reads the scores should know."""
    instruction: str | None = None
    """What the model was told to look for, None for its own: other words move its logits."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a scale or bias that would turn the order round, or make scores NaN."""
        for name in ("scale", "bias"):
            if told := fault(name, getattr(self, name)):
                raise ConfigError(f"{name} of a calibration is {getattr(self, name)!r:.60}; {told}")

    @property
    def is_identity(self) -> bool:
        """Whether scores are the same without it, since scale and bias are in the weights already."""
        return self.scale == 1 and self.bias == 0

    def as_json(self) -> str:
        """The content of the file; keys without a value are left out."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return json.dumps(known, indent=2) + "\n"

    @classmethod
    def of(cls, parsed: object, place: str) -> Calibration:
        """The calibration that a parsed file holds; raises ModelRefusedError, which names `place`, for none."""
        if not isinstance(parsed, Mapping):
            raise ModelRefusedError(f"{place} holds {type(parsed).__name__}, not an object with scale and bias")
        unknown = sorted(parsed.keys() - {one.name for one in fields(cls)})
        if unknown:
            raise ModelRefusedError(
                f"{place} has the key {unknown[0]!r:.60}, which is none of a calibration; if another program wrote it, "
                "take it away, or give a file of `crossray calibrate` with --calibration"
            )
        missing = [name for name in NEEDED if name not in parsed]
        if missing:
            raise ModelRefusedError(f"{place} has no {missing[0]!r}; `crossray calibrate` writes such a file")
        for name, value in parsed.items():
            if told := fault(name, value):
                raise ModelRefusedError(f"{place}: {name} is {value!r:.60}; {told}")
        data = tuple(parsed.get("data") or ())
        numbers = {name: float(parsed[name]) for name in ("scale", "bias")}
        return cls(**{**parsed, **numbers, "data": data})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Calibration:
        """The calibration in a file; raises ConfigError where it cannot be read, ModelRefusedError as `of`."""
        try:
            if Path(path).stat().st_size > MAX_BYTES:
                raise ModelRefusedError(f"{path} has more than {MAX_BYTES:,} bytes, and is no calibration")
            content = Path(path).read_bytes()
        except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"the calibration {path} cannot be read: {why}") from None
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: bytes, place: str) -> Calibration:
        """The calibration in a file's content; raises ModelRefusedError, which names `place`."""
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ModelRefusedError(f"{place} is not JSON: {type(error).__name__}: {error}") from None
        return cls.of(parsed, place)

    def check_fits_instruction(self, instruction: str | None, model: str) -> None:
        """Raises ModelRefusedError unless it was fitted with what the `model` is told; None stands for its own."""
        if self.instruction != instruction:
            fitted, told = (
                f"the instruction {one!r:.60}" if one else "none" for one in (self.instruction, instruction)
            )
            raise ModelRefusedError(
                f"the calibration was fitted with {fitted}, and {model} is given {told}, which moves its logits; give "
                "the same instruction, or fit it anew with `crossray calibrate`"
            )

    def check_fits(self, files: str, model: str) -> None:
        """Raises ModelRefusedError unless it was fitted for the `model` whose files have the SHA-256 `files`."""
        if self.files != files:
            raise ModelRefusedError(
                f"the calibration was fitted for other files (SHA-256 {self.files[:16]}...) than those of {model} "
                f"({files[:16]}...), whose scores it would make wrong; fit it anew with `crossray calibrate`"
            )


def fault(name: str, value: object) -> str | None:
    """What is wrong with the value of a key of the file; None where nothing is."""
    if name in ("scale", "bias"):
        if not is_number(value):
            return "it is a number"
        return "it is more than 0, or the order would be turned round" if name == "scale" and not value > 0 else None  # type: ignore[operator]
    if name == "files":
        is_digest = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
        return None if is_digest else "it is the SHA-256 of the model's files, 64 hexadecimal digits"
    if value is None:
        return None
    if name == "pairs":
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return None if is_count else "it is a number of pairs"
    if name in SHARES:
        return None if is_number(value) and 0 <= value <= 1 else "it lies in 0..1"  # type: ignore[operator]
    if name == "data":
        is_names = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return None if is_names else "it is a list of names"
    return None if isinstance(value, str) else "it is a text"


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of more digits than any float
        return False
