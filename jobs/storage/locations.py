"""What a location is, and whether two of them overlap."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePath

from pipelines.errors import ConfigError
from pipelines.stores import is_uri, parse_given_uri


def absolute(path: str, what: str, *, allow_relative: bool = True) -> str:
    """An absolute local path, or the uri of an object store in its one spelling.

    Raises ConfigError for other storage, for a uri with a query string, and for relative paths inside a submitted job.
    """
    if is_uri(path) and not path.startswith("file://"):
        try:
            return str(parse_given_uri(path))
        except ConfigError as error:
            raise ConfigError(f"{what}: {error}") from None
    path = path.removeprefix("file://")
    if not allow_relative and not os.path.isabs(path):
        raise ConfigError(
            f"{what} is {path!r}; inside a submitted job it must be absolute (on a disk that all nodes share, or in "
            "an object store), since the job's working directory is a cache that Ray deletes"
        )
    return os.path.abspath(os.path.expanduser(path))


def contain_one_another(pattern: str, output: str, files: Iterable[str], *, pattern_is_directory: bool) -> bool:
    """Whether a job that reads `files`, which `pattern` found, would read its output or write into its input."""
    out, source = real_path(output), real_path(pattern)
    if any(real_path(file).is_relative_to(out) for file in files):
        return True
    if pattern_is_directory:
        return out.is_relative_to(source)
    if "**" in source.parts:
        return out.is_relative_to(PurePath(*source.parts[: source.parts.index("**")]))
    return any(path.match(str(source)) for path in (out, *out.parents, out / "part-0.parquet"))


def real_path(location: str) -> PurePath:
    """The location as a path without links. A uri becomes a path that contains no local path."""
    return PurePath(f"/{location}") if is_uri(location) else PurePath(os.path.realpath(location))
