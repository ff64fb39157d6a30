"""Threads for what waits for disks and object stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

FOOTER_THREADS = 16
"""Files whose footers are read at once: this is waiting, not computing."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int = FOOTER_THREADS) -> list[Result]:
    """The results of `work` for all items, in their order; raises what `work` raises for the first that fails."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def read_ahead(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[Result]:
    """The same one by one: at most `threads` results are there that nobody has taken yet."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), threads):
            yield from pool.map(work, items[start : start + threads])
