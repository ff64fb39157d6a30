"""Finds folders that hide Crossray's packages, whose names are common ones, from the processes that Ray starts."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ConfigError

NAMES = ("pipelines", "jobs", "serve")
ROOT = Path(__file__).parents[1]
"""The folder that Crossray's packages lie in."""
MISSING = re.compile(rf"No module named '({'|'.join(NAMES)})[.']")


def check_not_hidden(directory: Path) -> None:
    """Raises ConfigError where a directory has a Python package or module with the name of one of ours.

    Ray's workers look for modules in the directory that a command was given in before they look elsewhere.
    """
    if directory.resolve() == ROOT:
        return
    for name in NAMES:
        for hiding in (directory / name / "__init__.py", directory / f"{name}.py"):
            if hiding.exists():
                raise ConfigError(
                    f"{hiding} has the name of a package of Crossray's, which Ray's processes would not find any more; "
                    "give the command in another directory"
                )


def hint_for(message: str) -> str:
    """What to say behind an error of a process that Ray started, where it did not find Crossray; else nothing."""
    found = MISSING.search(message)
    if found is None:
        return ""
    return (
        f" (on that node Crossray is not installed, or a folder `{found[1]}` in the search path of its Python hides "
        "Crossray's package of that name)"
    )
