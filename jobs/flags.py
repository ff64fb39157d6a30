"""The flags of all commands, made out of the dataclasses that hold their settings.

Default and type of a flag are those of a field; what `--help` says of it stands in the metadata of that field.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from enum import StrEnum
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import typer

from pipelines.errors import ConfigError

FLAG, WITHIN = "flag", "within"
"""Keys in the metadata of a field."""
Settings = TypeVar("Settings")


class Panel(StrEnum):
    """The boxes of `--help`, in the order in which it shows them."""

    CONFIG = "Instead of what the config says"
    MODEL = "Model and lengths"
    CANDIDATES = "Candidates"
    DENSE = "A dense encoder"
    NEGATIVES = "What is a negative"
    COLUMNS = "Columns"
    CORPUS = "Documents by id"
    ROWS = "A part of the rows"
    FOLLOW = "Files that come later"
    DRY_RUN = "Dry run"
    REUSE = "Scores that are known"
    CLUSTER = "Cluster"


@dataclass(frozen=True, slots=True)
class Flag:
    """What the command line says of one field of the settings."""

    help: str
    panel: Panel | None = None
    """None is the first box, which is called Options."""
    name: str | None = None
    """`--name`; None is the field's name, and for true or false its opposite `--no-name` too."""
    metavar: str | None = None
    """Name of an argument, such as INPUT; None makes the field an option."""
    envvar: str | None = None
    """Variable of the environment that counts where the flag is not given."""
    parse: Callable[[str], Any] | None = None
    """Makes the field's value out of a text, or raises ConfigError; None leaves it to Typer and the field's type."""
    default: str | None = None
    """The field's default, as a text for `parse`."""
    is_required: bool = False
    """Whether it must be given, though the field has a default."""


@dataclass(frozen=True, slots=True)
class Within:
    """The flags of a field that holds a dataclass itself."""

    build: Callable[..., Any]
    """Makes the field's value out of the values of its flags, which come by name; raises ConfigError."""
    flags: Mapping[str, Flag]
    """By field of the dataclass."""


def as_flag(help: str, panel: Panel | None = None, **more: Any) -> dict[str, Flag]:
    """Metadata of a field that is a flag; `more` is the rest of a Flag."""
    return {FLAG: Flag(help, panel, **more)}


def within(build: Callable[..., Any], flags: Mapping[str, Flag]) -> dict[str, Within]:
    """Metadata of a field that holds a dataclass."""
    return {WITHIN: Within(build, flags)}


@dataclass(frozen=True, slots=True)
class Asked:
    """A flag together with the field that it fills."""

    path: tuple[str, ...]
    """Name of the field, after the name of the field that holds its dataclass, if that is not the settings itself."""
    flag: Flag
    hint: Any
    """The field's type."""
    field_default: Any
    """The field's default; Ellipsis is none."""

    @property
    def name(self) -> str:
        """The name of the command's parameter."""
        return self.path[-1] if self.flag.name is None else self.flag.name.removeprefix("--").replace("-", "_")

    @property
    def is_repeatable(self) -> bool:
        """Whether the flag may be given several times."""
        return get_origin(self.hint) is tuple and get_args(self.hint)[-1] is Ellipsis

    @property
    def default(self) -> Any:
        """The parameter's default; Ellipsis is none."""
        if self.flag.is_required:
            return ...
        return None if self.is_repeatable else self.flag.default or self.field_default

    @property
    def kind(self) -> Any:
        """The parameter's type."""
        kind = list[str] if self.is_repeatable else str if self.flag.parse else self.hint
        return kind | None if self.default is None else kind

    def parameter(self) -> inspect.Parameter:
        """The command's parameter, as Typer reads it."""
        one = self.flag
        if one.metavar is not None:
            shown = typer.Argument(self.default, metavar=one.metavar, help=one.help)
        else:
            names = () if one.name is None else (one.name,)
            panel = None if one.panel is None else str(one.panel)
            shown = typer.Option(self.default, *names, help=one.help, rich_help_panel=panel, envvar=one.envvar)
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=self.kind)

    def value(self, given: Any) -> Any:
        """The field's value; raises ConfigError for a text that `parse` does not take."""
        parse = self.flag.parse
        if self.is_repeatable:
            return tuple(parse(text) if parse else text for text in given or ())
        return given if given is None or parse is None else parse(given)


class Flags(Generic[Settings]):
    """The flags that a command has for the fields of one dataclass."""

    def __init__(self, kind: type[Settings], asked: Mapping[str, Asked]) -> None:
        self.kind = kind
        self.asked = asked
        """By the name of the parameter."""

    @classmethod
    def of(cls, kind: type[Settings]) -> Flags[Settings]:
        """All that the fields of the dataclass have."""
        return cls(kind, {one.name: one for one in asked_by(kind)})

    def only(self, *names: str) -> Flags[Settings]:
        """The flags whose parameters have these names; the other fields keep their defaults."""
        return Flags(self.kind, {name: self.asked[name] for name in names})

    def but(self, **changes: Mapping[str, Any]) -> Flags[Settings]:
        """The same flags, of which some differ in this command: new values for fields of Flag, by parameter."""
        changed = {}
        for name, values in changes.items():
            one = self.asked[name]
            changed[name] = replace(one, flag=replace(one.flag, **values))
        return Flags(self.kind, {**self.asked, **changed})

    def settings(self, given: Mapping[str, Any], **others: Any) -> Settings:
        """The dataclass, filled with the parameters of a command and with `others`, fields that have no flag.

        Raises ConfigError for values that cannot work.
        """
        values = dict(others)
        inner: dict[str, dict[str, Any]] = {}
        for name, one in self.asked.items():
            *outer, last = one.path
            (inner.setdefault(outer[0], {}) if outer else values)[last] = one.value(given[name])
        for field in fields(self.kind):  # type: ignore[arg-type]
            if field.name in inner:
                values[field.name] = field.metadata[WITHIN].build(**inner[field.name])
        return self.kind(**values)


def asked_by(kind: Any) -> Iterator[Asked]:
    """All flags of a settings' dataclass."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        if FLAG in field.metadata:
            yield Asked((field.name,), field.metadata[FLAG], hint, default_of(field, ...))
        elif WITHIN in field.metadata:
            held = next(one for one in get_args(hint) or (hint,) if one is not NoneType)
            # Where there may be no such dataclass, what it must have need not be given.
            missing = ... if held is hint else None
            held_hints, held_fields = get_type_hints(held), {one.name: one for one in fields(held)}
            for name, one in field.metadata[WITHIN].flags.items():
                yield Asked((field.name, name), one, held_hints[name], default_of(held_fields[name], missing))


def default_of(field: Field[Any], missing: Any) -> Any:
    """The default of a field, or `missing` for one that has none."""
    return missing if field.default is MISSING else field.default


def with_flags(*groups: Flags[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a function the parameters of all flags, as Typer shall see it, in place of its `**given`."""
    asked = [one for group in groups for one in group.asked.values()]
    order = [None, *Panel]
    parameters = [one.parameter() for one in sorted(asked, key=lambda one: order.index(one.flag.panel))]

    def changed(function: Callable[..., None]) -> Callable[..., None]:
        function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        function.__annotations__ = {one.name: one.annotation for one in parameters}
        return function

    return changed


def epilog(examples: Iterable[str]) -> str:
    """What a help page ends with: commands as people type them."""
    return "\n\n".join(["Examples:", *examples])


def parse_bytes(text: str, flag: str) -> int:
    """`500MB`, `4GiB` or a number of bytes; raises ConfigError."""
    parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:([KMGT])(i?)B?|B?)\s*", text, re.IGNORECASE)
    if parts is None:
        raise ConfigError(f"{flag} is {text!r}; give bytes, such as 500MB or 4GiB")
    number, prefix, binary = parts.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" KMGT".index(prefix.upper()) if prefix else 0))


def parse_replicas(text: str) -> tuple[int, int]:
    """`4` -> (4, 4), `1:8` -> (1, 8); raises ConfigError."""
    fewest, _, most = text.partition(":")
    try:
        return int(fewest), int(most or fewest)
    except ValueError:
        raise ConfigError(f"--replicas is {text!r}; give a number, or MIN:MAX such as 1:8") from None
