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
GATE_MISSED = 5
"""An evaluation is done, and a model does not reach what `--gate` asks for."""
SIGNAL_BASE = 128
"""Plus the signal's number (130, 143): stopped by a signal, the same command resumes."""


class RefusedError(CrossrayError):
    """The job refuses to run, since it would mix two jobs' results or destroy somebody's files."""


class StoppedError(CrossrayError):
    """The job cannot go on now. What is written stays, and the same command resumes."""


class DeadlyError(CrossrayError):
    """Several replicas of an app died one after the other while they scored the same pairs."""


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


class UnwritablePartError(CrossrayError):
    """One part cannot be written, although the same rows can be written beside it: others may be fine."""


class StoreError(CrossrayError, OSError):
    """An object store or a disk is away, and no single file is at fault. Requests to a store were repeated before."""


class AccessError(StoreError):
    """The store has no such bucket, or does not let us in. To repeat the request would not help."""


@contextmanager
def refused_access_as_usage_error() -> Iterator[None]:
    """Turns AccessError into ConfigError: before anything is written, a store that refuses us means a wrong command."""
    try:
        yield
    except AccessError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def disk_failures_as_stops() -> Iterator[None]:
    """Turns failures of disks and stores, and files that the job cannot do without, into StoppedError."""
    try:
        yield
    except ModelError:
        raise  # some are OSErrors too, but nothing has begun
    except UnreadableFileError as error:
        raise StoppedError(str(error)) from error
    except OSError as error:
        raise StoppedError(f"{type(error).__name__}: {error}") from error
