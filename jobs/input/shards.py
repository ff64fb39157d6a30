"""`--shard I/N`: the rows of each file that are this run's share.

What the share of a file is depends on that file alone, and not on the others or on how they are cut into units. So the
N shares cover each row once also when files come between the runs, and a run that is repeated gets its share of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import ConfigError

SLICE_BYTES = 32 << 10
"""As stored: a file is not cut into smaller slices, that many small files are not all opened by all runs."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shares of the input."""

    number: int
    """From 1."""
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def rows_of(self, name: str, size: int, rows: int, kept: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """This share's rows (start, end) in a file of `rows` rows and `size` bytes, named `name` below INPUT.

        `kept` are the (start, rows) of its row groups that `--where` leaves: their rows are what is dealt out evenly.
        A file is cut into up to N slices, which go to neighbouring shares from one on that the name decides.
        """
        kept_rows = sum(count for _, count in kept)
        slices = max(1, min(self.count, size // SLICE_BYTES, kept_rows))
        first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % self.count
        position = (self.number - 1 - first) % self.count
        if position >= slices:
            return 0, 0
        start = 0 if position == 0 else row_after(kept, kept_rows * position // slices)
        end = rows if position == slices - 1 else row_after(kept, kept_rows * (position + 1) // slices)
        return start, end


def parse_shard(text: str) -> Shard:
    """`2/8` -> the second of eight shares; raises ConfigError."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ConfigError(f"--shard is {text!r}; give I/N with 1 <= I <= N, such as 2/8")
    return Shard(int(number), int(count))


def row_after(kept: Sequence[tuple[int, int]], count: int) -> int:
    """The row before which `count` kept rows lie; `count` is less than all."""
    for start, rows in kept:
        if count < rows:
            return start + count
        count -= rows
    raise AssertionError("a border lies inside")
