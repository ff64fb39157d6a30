"""A corpus that fits into memory: loaded once into Ray's object store, from where the replicas of a node share it.

Segments are the results of tasks, so Ray makes those of a lost node anew. Without Ray they are in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import psutil
import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from jobs.errors import StoppedError, StoreError
from jobs.input.corpus import Corpus
from jobs.joins.corpus.attaching import Found
from jobs.joins.corpus.lookup import Segment, loaded_here, look_up
from jobs.records import Unit
from jobs.runtime.nodes import SHARE_OF_OBJECT_STORE, smallest_object_store

LOADERS = 4
"""Segments that are read at once."""
SHARE_OF_MEMORY = 0.5
"""Of what is available here, where the corpus is held without Ray."""
BYTES_BESIDES = 32
"""Of a document beside its id and text: hash, row and the ends of both."""


class BroadcastTexts:
    """A corpus that each process sees whole, without copying it."""

    def __init__(self, segments: Sequence[Any]) -> None:
        """`segments` are the segments themselves, or references to them in the object store."""
        self.segments = segments
        self.at_hand: list[Segment] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"segments": self.segments, "at_hand": None}

    def look_up(self, ids: pa.Array, unit: Unit) -> Found:  # noqa: ARG002 - other sources go by the unit
        """Raises StoreError when the object store has lost the corpus for good."""
        if self.at_hand is None:
            self.at_hand = [self._fetched(segment) for segment in self.segments]
        return look_up(self.at_hand, ids)

    @staticmethod
    def _fetched(segment: Any) -> Segment:
        if isinstance(segment, Segment):
            return segment
        try:
            return ray.get(segment)  # type: ignore[no-any-return]
        except RayError as error:
            raise StoreError(f"the corpus could not be had from the object store: {error}") from error


def size_in_memory(corpus: Corpus) -> int:
    """Bytes that the whole corpus is expected to take on each node."""
    return int(corpus.found.bytes + BYTES_BESIDES * corpus.found.rows)


def room_for_corpus(corpus: Corpus) -> int:
    """Bytes that a corpus may take on each node: as asked for, else a share of what there is."""
    if corpus.memory is not None:
        return corpus.memory
    if not ray.is_initialized():
        return int(SHARE_OF_MEMORY * psutil.virtual_memory().available)
    return int(SHARE_OF_OBJECT_STORE * (smallest_object_store() or 0))


def broadcast(corpus: Corpus) -> BroadcastTexts:
    """Loads the corpus, once for each session of Ray: a follower, which asks in every round, gets the same again.

    Raises StoppedError when a segment cannot be read.
    """
    return loaded(corpus, ray.get_runtime_context().get_job_id() if ray.is_initialized() else None)


@lru_cache(maxsize=1)
def loaded(corpus: Corpus, session: str | None) -> BroadcastTexts:
    """Loads the corpus into the object store of a session of Ray, or without one into this process."""
    if session is None:
        return BroadcastTexts([loaded_here(segment, corpus) for segment in corpus.found.segments])
    # No CPU: with --app, Serve may have them all. The second result tells when the first is there, and if it failed.
    load = ray.remote(num_cpus=0, num_returns=2)(load_and_tell)
    shared = ray.put(corpus)
    segments: list[Any] = []
    telling: list[Any] = []
    for unit in corpus.found.segments:
        if len(telling) == LOADERS:
            ready, telling = ray.wait(telling)
            raise_failures(ready)
        results: Any = load.remote(unit, shared)
        segments.append(results[0])
        telling.append(results[1])
    raise_failures(telling)
    return BroadcastTexts(segments)


def load_and_tell(unit: Unit, corpus: Corpus) -> tuple[Segment, None]:
    """What a task of Ray does to load one segment; the second result only tells that it is done."""
    return loaded_here(unit, corpus), None


def raise_failures(told: Sequence[Any]) -> None:
    """Raises what a loading task raised."""
    try:
        ray.get(list(told))
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, StoppedError | StoreError) else error) from None
    except RayError as error:
        raise StoppedError(f"the corpus could not be loaded: {error}") from error
