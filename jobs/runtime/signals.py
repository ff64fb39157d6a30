"""SIGINT and SIGTERM as an exception, or as a request to stop, so that a driver leaves in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

LOOK_SECONDS = 0.2
"""How long a request may go unnoticed by who waits."""


class InterruptedBySignal(BaseException):
    """SIGINT or SIGTERM came; not an Exception, so that nothing on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Whether somebody asked for an end, and with which signal."""

    number: int | None = None

    def come(self, number: int) -> None:
        """The first signal asks, the second one does not wait for the answer: it raises InterruptedBySignal."""
        if self.number is not None:
            raise InterruptedBySignal(number)
        self.number = number

    def wait(self, seconds: float) -> None:
        """Until the seconds are over or a signal comes."""
        end = time.monotonic() + seconds
        while self.number is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))  # no Event: a handler that sets one may interrupt who holds its lock


def signals_as_exceptions() -> AbstractContextManager[None]:
    """SIGINT and SIGTERM raise InterruptedBySignal here."""

    def interrupt(number: int) -> None:
        raise InterruptedBySignal(number)

    return signals_go_to(interrupt)


@contextmanager
def signals_as_requests() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM are noted."""
    stop = StopRequest()
    with signals_go_to(stop.come):
        yield stop


@contextmanager
def signals_go_to(receive: Callable[[int], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `receive` in the main thread, if this is it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _frame: FrameType | None) -> None:
        receive(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
