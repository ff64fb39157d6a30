"""What a training run is told: a TOML file, read strictly into frozen dataclasses.

An unknown key is an error that names the nearest known key; a value of the wrong kind is one that names the right kind.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pipelines.errors import ConfigError
from pipelines.training.recipe import Recipe

Table = TypeVar("Table")
KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", tuple: "a list"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a source's columns. A table has `documents`, or `positive`, or `document` and `label`."""

    query: str = "query"
    documents: str = "documents"
    """Lists of texts or of structs with a `text`."""
    text_field: str = "text"
    labels: str = "labels"
    """A grade per document; null is unknown."""
    teacher: str = "teacher"
    """A teacher's score per document; null is none."""
    positive: str = "positive"
    negatives: str = "negatives"
    negative: str = "negative"
    group: str = "group"
    """Page or document that a positive belongs to: others of the same group are not taken as random negatives."""
    document: str = "document"
    label: str = "label"


@dataclass(frozen=True, slots=True)
class Source:
    """One set of training rows."""

    path: str
    """Parquet file, directory, glob or uri; a relative one counts from the folder of data."""
    name: str = ""
    """Name of the source in figures and in the card; default: the file's name."""
    licence: str = "not stated"
    """Licence of the data, for the card."""
    lists: int | None = None
    """Rows that are drawn, by the seed; default: all."""
    random_negatives: int = 7
    """Passages of other rows beside a positive, where the row does not bring as many negatives."""
    held_back: bool = False
    """Whether all of it is held back, to measure on; then nothing of the other sources is."""
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        if self.lists is not None and self.lists < 1:
            raise ValueError(f"lists is {self.lists}; give at least 1, or leave it out for all")
        if self.random_negatives < 0:
            raise ValueError(f"random_negatives is {self.random_negatives}; give 0 or more")


@dataclass(frozen=True, slots=True)
class Validation:
    """How often a run is measured, on lists that are held back from training."""

    share: float = 0.02
    """Share of the queries that is held back, by a hash of their text; the model is calibrated on the same lists."""
    every: int = 200
    """Steps between two validations; each leaves a checkpoint."""
    patience: int = 0
    """The run ends early after so many validations without a better value; with 0 it never does."""
    lists: int = 1000
    """Lists of a validation, at most."""
    keep: str = "best"
    """Which weights the model has: those of the `best` validation, or the `last` ones."""

    def __post_init__(self) -> None:
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep is {self.keep!r}; it is 'best' or 'last'")
        if self.keep == "last" and self.patience:
            raise ValueError(
                f"keep is 'last' and patience {self.patience}; patience waits for the best, so leave it out"
            )
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; it lies between 0 and 1")
        for name, least in (("every", 1), ("patience", 0), ("lists", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it is at least {least}")


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that train; each takes a share of every step."""

    count: int = 1
    cpus: float = 1
    """CPUs of each worker, and the threads that it computes with."""
    gpus: float = 0
    """GPUs of each worker."""
    max_failures: int = 3
    """How often dead workers are replaced before the run stops; the same command resumes it."""

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("cpus", 1), ("gpus", 0), ("max_failures", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it is at least {least}")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One stage of training."""

    base: str
    """The model that training begins from: `embedded`, a directory, a uri, a hub name, or the output of another run."""
    output: str
    """Directory or uri of the run; the model comes to lie in its `model`."""
    data: str = ""
    """Folder of the sources; a relative one counts from the config file."""
    name: str = ""
    """Name of the model in its card; default: the output's name."""
    sources: tuple[Source, ...] = ()
    epochs: float | None = None
    """Instead of `recipe.steps`: how often every list is seen."""
    recipe: Recipe = field(default_factory=lambda: Recipe(steps=1000))
    validation: Validation = field(default_factory=Validation)
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("there are no sources; give at least one table [[sources]] with a path")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise ValueError(f"epochs is {self.epochs}; it is a number above 0")
        for name in ("base", "output"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give a directory or a uri")


def read_config(path: Path, overrides: Mapping[str, Any]) -> TrainConfig:
    """The config in a TOML file; `overrides` replace its values by key, unless they are None.

    Raises ConfigError, which names file and key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
    if overrides.get("recipe.steps") is not None:
        table.pop("epochs", None)
    for name, value in overrides.items():
        if value is not None:
            set_at(table, name, value, path)
    if isinstance(table.get("recipe"), dict):
        if "epochs" in table and "steps" in table["recipe"]:
            raise ConfigError(f"{path}: epochs and recipe.steps are both given; keep one")
        table["recipe"].setdefault("steps", 1000)
    return parse(TrainConfig, table, f"{path}: ")


def set_at(table: dict[str, Any], name: str, value: Any, path: Path) -> None:
    """Sets `key` or `table.key`; raises ConfigError where the file has something else than a table there."""
    before, _, key = name.rpartition(".")
    inner = table.setdefault(before, {}) if before else table
    if not isinstance(inner, dict):
        raise ConfigError(f"{path}: {before} is {inner!r}; it is a table")
    inner[key] = value


def parse(kind: type[Table], table: Mapping[str, Any], where: str) -> Table:
    """Makes a dataclass of a TOML table; the message of the ConfigError that it raises begins with `where`."""
    known = {one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{where}{key} is no key here; {advice}")
    missing = [
        name
        for name, one in known.items()
        if name not in table and one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing")
    values = {key: value_of(hints[key], value, f"{where}{key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ConfigError(f"{where}{error}") from None


def value_of(hint: Any, value: Any, where: str) -> Any:
    """Makes a value of the type `hint`; the message of the ConfigError that it raises begins with `where`."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}; it is a table")
        return parse(hint, value, f"{where}.")  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} is {value!r}; it is a list")
        return tuple(value_of(get_args(hint)[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} is {value!r}; it is {KINDS[hint]}")
    return value
