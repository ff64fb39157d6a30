"""How fast replicas score: each measures itself, and an endpoint hears of it with every answer. Knows no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

HALF_LIFE_SECONDS = 30.0
"""A second of work this long ago counts half in the measured speed."""
SILENT_SECONDS = 30.0
"""A replica that says nothing for so long, while others do, is no longer counted: it is gone, or about to be."""


class Speed:
    """Tokens per second of work, of which recent work counts more; the work of both lanes, since online goes first."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self.seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Counts a pass."""
        fading = 0.5 ** (seconds / HALF_LIFE_SECONDS)
        self.tokens = self.tokens * fading + tokens
        self.seconds = self.seconds * fading + seconds

    @property
    def tokens_per_second(self) -> float | None:
        """None before the first pass."""
        return self.tokens / self.seconds if self.seconds else None


class LiveSpeeds:
    """The speeds of the replicas that live, as one endpoint hears of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expected: float | None = None
        self._heard: dict[str, tuple[float, float]] = {}
        """By replica: when it was last heard, and how fast it was."""

    def expect(self, tokens_per_second: float | None) -> None:
        """Notes how fast all replicas together should be, as long as none has given an answer."""
        self._expected = tokens_per_second

    def hear(self, replica: str, tokens_per_second: float | None) -> None:
        """Notes what a replica says of itself."""
        now = self._clock()
        if tokens_per_second is not None:
            self._heard[replica] = now, tokens_per_second
            self._heard = {name: one for name, one in self._heard.items() if now - one[0] <= SILENT_SECONDS}

    def tokens_per_second(self) -> float | None:
        """All replicas together; before any was heard, what is expected. While nobody asks them, all live on."""
        return sum(speed for _, speed in self._heard.values()) or self._expected
