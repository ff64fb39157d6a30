"""How a job can end early, and the exit code of each way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.errors import ConfigError, CrossrayError, ModelError

DONE = 0
DONE_WITH_ERRORS = 1
"""More rows with errors than --max-errors allows, or files that could not be read."""
USAGE = 2
REFUSED = 3
STOPPED = 4
"""Stopped by a failure; the same command resumes."""
SIGNAL_BASE = 128
"""Plus the signal's number (130, 143): stopped by a signal, the same command resumes."""


class RefusedError(CrossrayError):
    """Going on would mix two jobs' results or destroy somebody's files."""


class StoppedError(CrossrayError):
    """The job cannot go on now; what is written stays, and the same command resumes."""


class DeadlyError(CrossrayError):
    """Replicas of an app died one after the other with the same pairs in them."""


class UnreadableFileError(CrossrayError):
    """One file cannot be read: it is damaged, is no Parquet, is gone, or we are not permitted. Others may be fine."""

    def __init__(self, path: str, why: str, is_gone: bool = False) -> None:
        super().__init__(path, why, is_gone)  # what pickle makes it of again, on its way from a worker
        self.path = path
        self.why = why
        """The kind of failure and what was said, such as `ArrowInvalid: Parquet file size is 0 bytes`."""
        self.is_gone = is_gone
        """Whether there is no such file, or no longer."""

    def __str__(self) -> str:
        return f"{self.path} cannot be read: {self.why}"


class StoreError(CrossrayError, OSError):
    """An object store or a disk is away, so that no file is at fault. A store was asked as often as requests are."""


class AccessError(StoreError):
    """No such bucket, or a store that does not let us in: the same request will not fare better."""


@contextmanager
def refused_access_as_usage_error() -> Iterator[None]:
    """Before anything is written, a store that does not let us in is a wrong command; later it is a failure."""
    try:
        yield
    except AccessError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def disk_failures_as_stops() -> Iterator[None]:
    """A disk or store that is full or gone stops the job, and so does a file that it cannot do without."""
    try:
        yield
    except ModelError:
        raise  # some are OSErrors too, but nothing has begun
    except UnreadableFileError as error:
        raise StoppedError(str(error)) from error
    except OSError as error:
        raise StoppedError(f"{type(error).__name__}: {error}") from error
