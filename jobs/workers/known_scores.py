"""`--scores`: what earlier runs scored is loaded once and shared by all replicas, which add what they score anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from rich.console import Console

from jobs import storage
from jobs.runtime.nodes import SHARE_OF_OBJECT_STORE, smallest_object_store
from jobs.score_store.store import PAIR_BYTES, Loaded, ScoreStore, load
from jobs.screen import say
from jobs.settings import RerankSettings
from pipelines.memory import StoredLogits


@dataclass(frozen=True, slots=True)
class Reuse:
    """What the replicas of a job are told about `--scores`: where new logits go, and which are known already."""

    store: ScoreStore | None = None
    """Where new logits are kept; None where they are not."""
    stored: Any = field(default_factory=StoredLogits)
    """StoredLogits, or a Ray reference to them: one copy a node, which all processes there read in place."""

    def stored_logits(self) -> StoredLogits:
        """The known logits, read in the process that calls this."""
        if isinstance(self.stored, StoredLogits):
            return self.stored
        logits: StoredLogits = ray.get(self.stored)
        return logits


NO_REUSE = Reuse()
OpenReuse = Callable[[], Reuse]
"""Loads what is known. Whoever starts replicas calls it, once Ray runs."""


def no_reuse() -> Reuse:
    """The Reuse of a job without `--scores`: nothing is known, and nothing is kept."""
    return NO_REUSE


def open_reuse(settings: RerankSettings, fingerprint: Mapping[str, Any], console: Console) -> Reuse:
    """Loads the store of `--scores` for all nodes of the cluster, and says what is in it.

    Raises OSError where it cannot be listed or made: better at once than after a day of scores that nobody keeps.
    """
    if settings.scores is None:
        return NO_REUSE
    from pipelines.fingerprint import logits_fingerprint  # torch: seconds, and here it is loaded already

    store = ScoreStore(settings.scores, logits_fingerprint(fingerprint))
    storage.make_directory(store.directory)
    loaded = load(store, most=int(memory_for_logits(settings.scores_memory) / PAIR_BYTES))
    say_what_is_known(console, store, loaded)
    return Reuse(store, ray.put(loaded.logits) if ray.is_initialized() else loaded.logits)


def memory_for_logits(allowed: int) -> float:
    """How many bytes known logits may take on each node: what the user allows, if the smallest node has room for it."""
    smallest = smallest_object_store()
    return allowed if smallest is None else min(allowed, SHARE_OF_OBJECT_STORE * smallest)


def say_what_is_known(console: Console, store: ScoreStore, loaded: Loaded) -> None:
    """Says how many pairs are known, how many files did not fit, and which cannot be used."""
    console.print(f"{len(loaded.logits):,} pairs are known from {loaded.files:,} file(s) of earlier runs")
    if loaded.files_left_out:
        say(
            console,
            f"the {loaded.files_left_out:,} oldest of {loaded.files:,} files in {store.directory} are not used; a "
            "larger --scores-memory, and nodes with a larger object store, take more",
            "known pairs do not all fit: ",
            "yellow",
        )
    for path, why in loaded.unusable.items():
        say(console, f"{path} ({why}); remove it", "skipped: ", "yellow")
