"""Signals end a process in order, wherever it is when they come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
START = """
import logging, os, queue, signal, sys, threading, time, weakref
from jobs.runtime.signals import InterruptedBySignal, signals_as_exceptions

class Stream:
    def write(self, text):
        if "now" in text:
            os.kill(os.getpid(), signal.SIGINT)
    def flush(self): pass

def ended_by(work):
    try:
        with signals_as_exceptions():
            work()
            for _ in range(100):
                time.sleep(0.1)
            print("never came")
    except InterruptedBySignal as error:
        print(error)
"""
WORK = {
    "in logging's output": """
logging.basicConfig(stream=Stream())
ended_by(lambda: logging.error("now"))
logging.error("its lock is free")
""",
    "where logging gives back its lock": """
class Lock:
    def __init__(self): self.real, self.signals = threading.RLock(), [signal.SIGINT]
    def acquire(self): return self.real.acquire()
    def release(self):
        if self.signals:
            os.kill(os.getpid(), self.signals.pop())  # handled at this call's end, before the lock is free
        self.real.release()
    __enter__ = acquire
    def __exit__(self, *_): self.release()
handler = logging.StreamHandler(sys.stderr)
real = handler.lock = Lock()
logging.getLogger().addHandler(handler)
ended_by(lambda: logging.error("a line"))
free = []
def look():
    free.append(real.real.acquire(blocking=False))
    real.real.release()
other = threading.Thread(target=look)
other.start(); other.join()
assert free == [True], "the lock is still taken"
""",
    "where Python ignores exceptions": """
class Thing: pass
def forgotten(_):
    os.kill(os.getpid(), signal.SIGINT)
def work():
    thing = Thing()
    reference = weakref.ref(thing, forgotten)
    del thing
ended_by(work)
""",
    "in a destructor": """
class Thing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
ended_by(lambda: Thing() and None)
""",
    "while the main thread waits for an event": """
def work():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    threading.Event().wait(60)
ended_by(work)
""",
    "while the main thread waits for a queue": """
def work():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    queue.Queue().get()
ended_by(work)
""",
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_signal_ends_the_work_wherever_it_comes(work: str) -> None:
    """It is neither lost nor does it leave a lock taken, so that whoever needs the lock would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", START + work], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("SIGINT\n", 0), done.stderr
