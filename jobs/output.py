"""The output directory: whose it is, what is done in it, what is still to do. Every state that a run may find."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from jobs import lease
from jobs.errors import RefusedError
from jobs.storage import InputFile, is_temporary, remove_temporaries

MANIFEST = "_manifest.json"
SUMMARY = "_summary.json"
ATTEMPTS = "_attempts"
PARTS = "part-*.parquet"


@dataclass(frozen=True, slots=True)
class OutputDirectory:
    """A directory that holds the parts of one job and nothing else."""

    path: str

    @property
    def manifest(self) -> str:
        return os.path.join(self.path, MANIFEST)

    @property
    def summary(self) -> str:
        return os.path.join(self.path, SUMMARY)

    @property
    def attempts(self) -> str:
        return os.path.join(self.path, ATTEMPTS)

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run wrote its manifest here."""
        return os.path.exists(self.manifest)

    @property
    def is_complete(self) -> bool:
        """Whether an earlier run came to its end here."""
        return os.path.exists(self.summary)

    def create(self) -> None:
        """Makes the directory; raises RefusedError when it holds anything that no job of ours wrote."""
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise RefusedError(f"OUTPUT {self.path} is a file; give a directory")
        os.makedirs(self.path, exist_ok=True)
        foreign = [name for name in os.listdir(self.path) if name != lease.NAME and not is_temporary(name)]
        if foreign and not self.is_begun:
            raise RefusedError(
                f"OUTPUT {self.path} is not empty ({sorted(foreign)[0]}, ...) and no job of ours wrote it; "
                "give another directory"
            )

    def finished(self) -> set[str]:
        """Names of the parts that are there; each is whole, since it got its name last."""
        return {name for name in os.listdir(self.path) if fnmatch.fnmatch(name, PARTS)}

    def clear(self) -> None:
        """Removes what a job wrote, the manifest last, so that a kill in between leaves a directory of ours."""
        Path(self.summary).unlink(missing_ok=True)
        for name in self.finished():
            os.unlink(os.path.join(self.path, name))
        shutil.rmtree(self.attempts, ignore_errors=True)
        self.remove_temporaries()
        Path(self.manifest).unlink(missing_ok=True)

    def remove_temporaries(self) -> None:
        """Removes what killed writers left behind."""
        for directory in filter(os.path.isdir, (self.path, self.attempts)):
            remove_temporaries(directory)


def check_apart(pattern: str, output: str, files: Sequence[InputFile]) -> None:
    """Raises RefusedError when the job would read its own output: OUTPUT inside INPUT, or the reverse."""
    out, source = PurePath(os.path.realpath(output)), PurePath(os.path.realpath(pattern))
    inside = any(PurePath(os.path.realpath(file.path)).is_relative_to(out) for file in files)
    if not inside and os.path.isdir(pattern):
        inside = out.is_relative_to(source)
    elif not inside and "**" in source.parts:
        inside = out.is_relative_to(PurePath(*source.parts[: source.parts.index("**")]))
    elif not inside:
        inside = any(path.match(str(source)) for path in (out, *out.parents, out / "part-0.parquet"))
    if inside:
        raise RefusedError(f"OUTPUT {output} and INPUT {pattern} contain one another; keep them apart")
