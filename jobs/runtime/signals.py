"""SIGINT and SIGTERM as an exception, or as a request to stop, so that a driver leaves in order.

An exception that a handler raises comes out of whatever line the main thread is at. Two places are no good: where a
lock is taken or given back (it would stay taken for ever), and where Python ignores exceptions (the signal would be
lost). So a handler that finds itself in such a place comes again a moment later, and one whose exception was lost comes
again too.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import takewhile
from types import FrameType

LOOK_SECONDS = 0.2
"""How long a request may go unnoticed by who waits."""
AGAIN_SECONDS = 0.05
"""After which a signal that came at a bad moment comes again."""
POSTPONED_SECONDS = 2.0
"""The longest time by which a signal is put off; after it the main thread seems to be stuck in there."""
WITH_LOCKS = ("threading", "queue", "weakref", "_weakrefset")
"""Modules that take and give back locks, or that Python calls where it ignores exceptions; logging does all of it."""
WAITING = ("wait", "join", "_wait_for_tstate_lock", "get")
"""Functions of these modules that wait, and may be interrupted while they do."""


class Interruption(BaseException):
    """The main thread has to stop what it does; not an Exception, so that nothing on the way swallows it."""


class InterruptedBySignal(Interruption):
    """SIGINT or SIGTERM came."""

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
    handler = Handler(receive)
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    outer, Handler.current = Handler.current, handler
    try:
        yield
    finally:
        handler.is_over = True
        Handler.current = outer
        for number, former in before.items():
            signal.signal(number, former)


def interrupt_main(interruption: Callable[[], Interruption]) -> bool:
    """Raises an interruption in the main thread, if signals come as exceptions or requests there; returns whether."""
    handler = Handler.current
    if handler is None:
        return False
    handler.interruption = interruption
    os.kill(os.getpid(), signal.SIGTERM)
    return True


class Handler:
    """Calls `receive` as soon as the main thread is at a line at which an exception does no harm."""

    current: Handler | None = None
    """The one that is in place."""

    def __init__(self, receive: Callable[[int], None]) -> None:
        self.receive = receive
        self.interruption: Callable[[], Interruption] | None = None
        """Makes what another thread asked to be raised in place of a signal."""
        self.is_over = False
        self.first_tried: dict[int, float] = {}
        """Since when a signal is put off, by its number."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_over:
            return
        now = time.monotonic()
        if is_delicate(frame) and now - self.first_tried.setdefault(number, now) < POSTPONED_SECONDS:
            _thread.start_new_thread(self._come_again, (number,))  # threading itself may be what was interrupted
            return
        self.first_tried.pop(number, None)
        try:
            self._receive(number)
        except Interruption as raised:
            _thread.start_new_thread(self._watch, (number, weakref.ref(raised)))
            raise

    def _receive(self, number: int) -> None:
        if self.interruption is not None:
            raise self.interruption()
        self.receive(number)

    def _come_again(self, number: int) -> None:
        time.sleep(AGAIN_SECONDS)
        if not self.is_over:
            os.kill(os.getpid(), number)

    def _watch(self, number: int, raised: weakref.ref[Interruption]) -> None:
        """Sends the signal again when what was raised for it is gone although nobody has left the block."""
        while not self.is_over:
            if raised() is None:
                os.kill(os.getpid(), number)
                return
            time.sleep(AGAIN_SECONDS)


def is_delicate(frame: FrameType | None) -> bool:
    """Whether an exception out of this frame may leave a lock taken, or may be ignored."""
    frames = list(stack(frame))
    if any(module_of(one) == "logging" or one.f_code.co_name == "__del__" for one in frames):
        return True
    with_locks = list(takewhile(lambda one: module_of(one) in WITH_LOCKS, frames))
    return bool(with_locks) and not any(one.f_code.co_name in WAITING for one in with_locks)


def stack(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def module_of(frame: FrameType) -> str:
    """The outermost package of the code in a frame."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
