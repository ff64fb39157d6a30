"""The formats by name, and how a benchmark in one of them becomes a set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..sets import Problem
from . import air_bench, beir, codesearchnet, miracl, mkqa, nanobeir, nstext2sql, toolbench, trec
from .reading import Asked, Format, Source
from .trec_lines import read_run
from .writing import NewSet

Reader = Callable[[Source, Asked, NewSet], None]
FORMATS: Mapping[str, tuple[Format, Reader]] = {
    "beir": (beir.FORMAT, beir.read),
    "nanobeir": (nanobeir.FORMAT, nanobeir.read),
    "mkqa": (mkqa.FORMAT, mkqa.read),
    "air-bench": (air_bench.FORMAT, air_bench.read),
    "nstext2sql": (nstext2sql.FORMAT, nstext2sql.read),
    "toolbench": (toolbench.FORMAT, toolbench.read),
    "codesearchnet": (codesearchnet.FORMAT, codesearchnet.read),
    "miracl": (miracl.FORMAT, miracl.read),
    "trec": (trec.FORMAT, trec.read),
}
FLAGS = {
    "split": "--split",
    "languages": "--language",
    "part": "--part",
    "document_language": "--document-language",
    "queries": "--queries",
    "qrels": "--qrels",
}
"""Fields of Asked that not every format takes."""


def import_set(
    name: str, sources: Sequence[Path], folder: Path, asked: Asked, depth: int
) -> tuple[dict[str, Any], list[Problem]]:
    """Writes a set into a new folder; returns what `meta.json` says of it, and the first lines that are left out.

    Raises ConfigError, and then the folder may hold half a set.
    """
    kind, read = known_format(name)
    check_asked(name, kind, asked)
    named = {one for one in (asked.queries, asked.qrels, asked.run) if one is not None}
    for path in [*sources, *sorted(named)]:
        if not path.exists():
            raise ConfigError(f"{path} is not there; give files that are on this machine, for nothing is downloaded")
    asked = replace(asked, split=asked.split or kind.split)
    new = NewSet(folder, depth, kind.ignores_identical_ids)
    source = Source(tuple(sources), new.note, named)
    try:
        if asked.run is not None:
            read_run(source, asked.run, new)
        read(source, asked, new)
        if unread := source.unread():
            raise ConfigError(f"nothing of {unread[0]} is read; leave it out, or give what {name} reads: {kind.files}")
        about = {
            "format": name,
            "source": {"publisher": kind.publisher, "files": [str(path) for path in sources]},
            "measure": kind.measure,
            **({"ignores_identical_ids": True} if kind.ignores_identical_ids else {}),
            **({} if asked.split is None else {"split": asked.split}),
            **({} if asked.part is None else {"part": asked.part}),
            **({} if asked.run is None else {"run": str(asked.run)}),
        }
        meta = new.finish(about)
        if asked.run is not None and not meta["lists"]:
            raise ConfigError(new.no_list_of(asked.run))
        return meta, new.first_problems
    finally:
        new.close()


def known_format(name: str) -> tuple[Format, Reader]:
    """The format of this name; raises ConfigError."""
    if name not in FORMATS:
        raise ConfigError(f"FORMAT is {name!r}; it is one of {', '.join(FORMATS)}")
    return FORMATS[name]


def check_asked(name: str, kind: Format, asked: Asked) -> None:
    """Raises ConfigError for what the format does not take."""
    for field, flag in FLAGS.items():
        if getattr(asked, field) and field not in kind.flags:
            taken = ", ".join(FLAGS[one] for one in kind.flags)
            raise ConfigError(f"{name} does not take {flag}; it takes {taken}")
    if asked.split is not None and not re.fullmatch(r"[\w.-]+", asked.split):
        raise ConfigError(f"--split is {asked.split!r}; it is the name of a split, such as test")
    for language in asked.languages:
        if not language.strip():
            raise ConfigError("--language is empty; give a code, or leave it out")
        if kind.languages and language not in kind.languages:
            raise ConfigError(f"--language is {language!r}; {name} has {', '.join(kind.languages)}")
