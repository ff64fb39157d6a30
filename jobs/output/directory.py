"""The output directory of a job: where things lie in it, whether it is ours, and how it is cleared."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from dataclasses import dataclass

from jobs import storage
from jobs.errors import RefusedError
from jobs.output import lease
from pipelines.errors import ConfigError

MANIFEST = "_manifest.json"
SUMMARY = "_summary.json"
ATTEMPTS = "_attempts"
GROUPED = "_grouped"
TEXTS = "_texts"
PARTS = "part-*.parquet"
PART_OF_A_JOB = re.compile(r"part-.*-[0-9a-f]{10}-\d{12,}-\d+(-[0-9a-f]{16})?\.parquet", re.DOTALL)
"""Names as `Unit.name` makes them."""
WRONG_PATH = (
    errno.EACCES,
    errno.EEXIST,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
"""Why a directory cannot be made at a path, now or later."""


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
        """Where pair rows become lists before they are ranked: below it, each job has a directory of its own."""
        return os.path.join(self.path, GROUPED)

    def grouped_by(self, job: str) -> str:
        """The directory of one job below `grouped` (`Manifest.grouped`); jobs of earlier versions had none."""
        return os.path.join(self.grouped, job) if job else self.grouped

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
        """Makes the directory; raises RefusedError when it holds anything that no job of ours wrote.

        Raises ConfigError when it cannot be made.
        """
        if storage.exists(self.path):
            raise RefusedError(f"OUTPUT {self.path} is a file; give a directory")
        make_output(self.path, "OUTPUT")
        names = storage.names(self.path)
        foreign = [name for name in names if name not in (lease.NAME, lease.LOCK) and not storage.is_temporary(name)]
        if foreign and not self.is_begun:
            raise RefusedError(
                f"OUTPUT {self.path} is not empty ({sorted(foreign)[0]}, ...) and no job of ours wrote it; "
                "give another directory"
            )

    def finished(self) -> set[str]:
        """Names of the parts that are there; each is whole, since it got its name last."""
        return {name for name in storage.names(self.path) if fnmatch.fnmatch(name, PARTS)}

    def remove_strays(self, planned: set[str], grouped: str = "") -> None:
        """Removes what an earlier job's replicas wrote after the directory was cleared: parts, and lists of pairs.

        Replicas do that when their driver is gone and they still run. Other files stay, whatever they are. `grouped`
        is where this job has its lists, if anywhere.
        """
        strays = [name for name in self.finished() - planned if PART_OF_A_JOB.fullmatch(name)]
        storage.remove(*(os.path.join(self.path, name) for name in strays))
        if grouped:
            for name in storage.names(self.grouped):
                if name != grouped:
                    storage.remove_below(self.grouped_by(name))

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
        """Removes what killed drivers and replicas left behind."""
        self.remove_half_written()
        if storage.is_directory(self.attempts):
            storage.remove_temporaries(self.attempts)

    def remove_half_written(self) -> None:
        """Removes the parts that replicas were writing when they were killed; to be called while no replica writes."""
        storage.remove_temporaries(self.path)


def check_no_job(path: str, name: str) -> None:
    """Raises RefusedError where a job has its parts, among which nothing else may lie."""
    if OutputDirectory(path).is_begun:
        raise RefusedError(f"{name} {path} holds the output of a job; give another directory")


def make_output(path: str, name: str) -> None:
    """Makes the directory of an output that was asked for as `name`; raises ConfigError for one that cannot be made."""
    try:
        storage.make_directory(path)
    except OSError as error:
        if error.errno not in WRONG_PATH:  # a disk that is full or away: not the path's fault
            raise
        raise ConfigError(f"{name} {path} cannot be made ({error.strerror}); give another directory") from None
