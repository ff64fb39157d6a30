"""The output directory of a job: where things lie in it, whether it is ours, and how it is cleared."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass

from jobs import storage
from jobs.errors import RefusedError
from jobs.output import lease

MANIFEST = "_manifest.json"
SUMMARY = "_summary.json"
ATTEMPTS = "_attempts"
GROUPED = "_grouped"
TEXTS = "_texts"
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
    def grouped(self) -> str:
        """Where pair rows become lists before they are ranked."""
        return os.path.join(self.path, GROUPED)

    @property
    def texts(self) -> str:
        """Where ids are joined with a corpus that is too large to be held."""
        return os.path.join(self.path, TEXTS)

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run wrote its manifest here."""
        return storage.exists(self.manifest)

    @property
    def is_complete(self) -> bool:
        """Whether an earlier run came to its end here."""
        return storage.exists(self.summary)

    def create(self) -> None:
        """Makes the directory; raises RefusedError when it holds anything that no job of ours wrote."""
        if storage.exists(self.path):
            raise RefusedError(f"OUTPUT {self.path} is a file; give a directory")
        storage.make_directory(self.path)
        names = storage.names(self.path)
        foreign = [name for name in names if name != lease.NAME and not storage.is_temporary(name)]
        if foreign and not self.is_begun:
            raise RefusedError(
                f"OUTPUT {self.path} is not empty ({sorted(foreign)[0]}, ...) and no job of ours wrote it; "
                "give another directory"
            )

    def finished(self) -> set[str]:
        """Names of the parts that are there; each is whole, since it got its name last."""
        return {name for name in storage.names(self.path) if fnmatch.fnmatch(name, PARTS)}

    def clear(self) -> None:
        """Removes what a job wrote, the manifest last: after a kill in between, the directory is still ours."""
        storage.remove(self.summary)
        storage.remove(*(os.path.join(self.path, name) for name in self.finished()))
        storage.remove_below(self.attempts)
        storage.remove_below(self.grouped)
        storage.remove_below(self.texts)
        self.remove_temporaries()
        storage.remove(self.manifest)

    def remove_temporaries(self) -> None:
        """Removes what killed writers left behind."""
        for directory in filter(storage.is_directory, (self.path, self.attempts)):
            storage.remove_temporaries(directory)
