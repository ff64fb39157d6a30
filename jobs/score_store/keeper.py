"""Writes the new logits of a job into a score store while it scores."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.score_store.store import ScoreStore, table_of


class LogitKeeper:
    """Writes new logits into a store, until that fails once: scores are not worth more waiting, rows come first."""

    def __init__(self, store: ScoreStore | None) -> None:
        self.store = store
        self.failure: str | None = None

    def keep(self, logits: Mapping[bytes, float]) -> str | None:
        """Writes some logits; returns why they are not kept, or None. Never raises what the storage raises."""
        if self.store is None or not logits:
            return None
        if self.failure is None:
            try:
                self.store.write(table_of(logits))
            except OSError as error:
                self.failure = f"{type(error).__name__}: {error}"
        return self.failure
