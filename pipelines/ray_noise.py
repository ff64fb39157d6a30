"""Keeps out of the terminal what Ray's C++ side prints there and is no news."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

LEVEL = "RAY_BACKEND_LOG_LEVEL"
NO_NEWS = b"Set ray log level from environment variable"
STDERR = 2


def quiet_ray(environment: MutableMapping[str, str]) -> None:
    """Lets Ray's C++ side print what ends a process alone, where the user says nothing else.

    Of each actor that Ray Data starts it would print that it cannot be started again once its arguments are out of
    scope. They are not while it is wanted: the driver puts them there, and holds them as long as it runs the operator.
    """
    environment.setdefault(LEVEL, "fatal")


@contextmanager
def while_ray_starts() -> Iterator[None]:
    """Holds back what comes to stderr meanwhile; in the end it goes there, but for the line that tells the level.

    Ray prints it before the level holds, and has no setting for it.
    """
    try:
        terminal = os.dup(STDERR)
    except OSError:  # there is none
        yield
        return
    with tempfile.TemporaryFile() as held:  # no pipe: what starts meanwhile may keep it longer than somebody reads it
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, STDERR)
            os.close(terminal)
            held.seek(0)
            sys.stderr.buffer.write(b"".join(line for line in held if NO_NEWS not in line))
            sys.stderr.flush()
