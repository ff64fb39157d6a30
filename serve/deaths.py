"""One line for a process of the server that died, where Ray would print a page of its own affairs, or nothing.

Ray prints what it has to say of other processes through one function of its driver, for which it has no setting. Of
HAProxy, which is no process of its own kind, it says nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import psutil
from rich.console import Console
from rich.text import Text

from serve.drain import processes

PID = re.compile(r"Worker PID: (\d+)")
REASON = re.compile(
    r"Worker exit detail: (.*?)(?: There are some potential root causes| Some common causes include|$)", re.DOTALL
)
MAX_REASON = 200
"""Characters of Ray's own words in a line."""
ACTORS = {
    "SERVE_REPLICA": "a process of {1}",
    "SERVE_CONTROLLER": "Serve's controller",
    "SERVE_PROXY": "Serve's proxy",
}
"""What a line calls an actor, by the beginning of its name: `SERVE_REPLICA::crossray#Scorer#a1b2`."""
LOOK_SECONDS = 2.0
"""How often HAProxy is looked at; it takes Ray 4 s and more to replace one."""


def say_deaths(console: Console) -> None:
    """From now on, what Ray says of processes that died comes as a line each; needs a driver that is connected."""
    from ray._private import worker

    def say(data: Mapping[str, Any], **_: Any) -> None:
        for message in data["lines"]:
            console.print(Text(line_of(message, actor_names)), soft_wrap=True)

    if hasattr(worker, "print_to_stdstream"):  # else Ray goes on printing pages
        worker.print_to_stdstream = say  # type: ignore[assignment]


def line_of(message: str, names: Callable[[], Mapping[int, str]]) -> str:
    """A message of Ray's as a line; `names` finds the names of actors by the ids of their processes."""
    text = " ".join(message.split())
    if (pid := PID.search(text)) is None:
        return f"Ray: {text[:MAX_REASON]}"
    reason = REASON.search(text)
    said = reason[1].strip().removesuffix(".")[:MAX_REASON] if reason else "no reason is known"
    return f"{called(names().get(int(pid[1]), ''))} died (process {pid[1]}) and is being replaced: {said}"


def called(name: str) -> str:
    """An actor in the words of the documentation."""
    for beginning, words in ACTORS.items():
        if name.startswith(beginning):
            return words.format(*name.split("#"), "the app")
    return "a process of Ray"


def actor_names() -> dict[int, str]:
    """The names of all actors, dead ones too, by their processes; empty where Ray does not tell."""
    from ray._private import state

    with suppress(Exception):  # Ray's own, for debugging: a line without a name is better than none
        return {one["Pid"]: one["Name"] for one in state.actors().values()}
    return {}


def say_deaths_of_haproxy(console: Console) -> NoReturn:
    """Prints a line when HAProxy dies, until it is interrupted."""
    watch = HAProxyWatch()
    while True:
        if line := watch.look(list(running("haproxy"))):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
        time.sleep(LOOK_SECONDS)


class HAProxyWatch:
    """Tells the death of a HAProxy from a reload, at which a newer one is there before the older one ends."""

    def __init__(self) -> None:
        self.newest: psutil.Process | None = None
        self.is_dead = False

    def look(self, living: list[psutil.Process]) -> str | None:
        """A line, once, when the newest one that was seen is no more, and none that is newer."""
        latest = max(living, key=lambda one: one.create_time(), default=None)
        if latest and (self.newest is None or latest.create_time() > self.newest.create_time()):
            self.newest, self.is_dead = latest, False
        if self.newest is None or self.is_dead or self.newest in living:
            return None
        self.is_dead = True
        return f"HAProxy died (process {self.newest.pid}) and is being replaced: connections are refused meanwhile"


def running(name: str) -> Iterator[psutil.Process]:
    """The descendants of that name, without those that died and that nobody has taken note of."""
    for process in processes(name):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process
