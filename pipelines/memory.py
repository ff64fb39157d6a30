"""Keeps logits by the digest of their token pair, and wraps an engine so that it scores no pair whose logit is kept.

The key is the pair as the model reads it, not its texts: template, cuts and chunks are part of it, so one logit serves
whatever lengths a call has. All logits of one memory must be of one model; whoever fills the memory ensures that.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # torch: seconds, and not for who only reads or writes logits
    from .packing import TokenPair

KEY_BYTES = 16
"""Length of a digest: the chance that two of 10^9 pairs share a digest is 10^-21."""


class Engine(Protocol):
    """What a ReusingEngine needs of the engine behind it."""

    @property
    def spec(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...

    def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each of these pairs, of which no two are equal; float32 [len(pairs)]."""


class ReusingEngine:
    """The engine of one call of a Reranker: sends only pairs whose logit is not kept to the real engine, each once."""

    def __init__(
        self,
        engine: Engine,
        recent: RecentLogits,
        stored: StoredLogits,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`turn` is held while logits are looked up and computed: a lock, where threads share the engine."""
        self.engine = engine
        self.recent = recent
        self.stored = stored
        self.turn = turn or nullcontext()
        self.waited = 0.0
        """Seconds until it was this call's turn."""
        self.new_logits: dict[bytes, float] = {}
        """Logits of the pairs that went through the engine, by digest; only finite ones."""
        self.reused = 0
        """Number of pairs whose logit was known."""

    @property
    def spec(self) -> Any:
        return self.engine.spec

    @property
    def dtype(self) -> Any:
        return self.engine.dtype

    def logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each pair, float32 [len(pairs)], in the order given; equal pairs have exactly equal logits."""
        keys = [pair_digest(pair) for pair in pairs]
        first = first_places(keys)
        asked = time.perf_counter()
        with self.turn:  # the lookup too: who waits finds what the others scored meanwhile
            self.waited += time.perf_counter() - asked
            known = self._known(list(first))
            unknown = [key for key in first if key not in known]
            scored = self.engine.distinct_logits([pairs[first[key]] for key in unknown]).tolist()
            self._remember(unknown, scored)
        self.reused += len(pairs) - len(unknown)
        known.update(zip(unknown, scored, strict=True))
        return np.array([known[key] for key in keys], dtype=np.float32)

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        known = {key: self.new_logits[key] for key in keys if key in self.new_logits}
        for memory in (self.recent, self.stored):
            known |= memory.look_up([key for key in keys if key not in known])
        return known

    def _remember(self, keys: Sequence[bytes], logits: Sequence[float]) -> None:
        finite = {key: logit for key, logit in zip(keys, logits, strict=True) if math.isfinite(logit)}
        self.new_logits |= finite
        self.recent.add(finite)


class RecentLogits:
    """The logits of the pairs that were asked for last, `capacity` at most; 0 keeps none. Threads may share it.

    An entry takes some 300 bytes: 200,000 of them 60 MB (measured with Python 3.11).
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._logits: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._logits)

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The logits that are known, by key."""
        with self._lock:
            known = {key: self._logits[key] for key in keys if key in self._logits}
            for key in known:
                self._logits.move_to_end(key)
        return known

    def add(self, logits: Mapping[bytes, float]) -> None:
        """Keeps these logits; beyond `capacity`, those that were not asked for the longest are forgotten."""
        with self._lock:
            for key, logit in logits.items():
                self._logits[key] = logit
                if len(self._logits) > self.capacity:
                    self._logits.popitem(last=False)


@dataclass(frozen=True, slots=True)
class StoredLogits:
    """Any number of logits that do not change, in 20 bytes each; n of them, sorted by their keys.

    Plain arrays, so that processes can share them without a copy.
    """

    heads: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """uint64 [n]: the first halves of the keys, as big-endian numbers, ascending."""
    tails: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """uint64 [n]: their second halves."""
    logits: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """float32 [n]"""

    @classmethod
    def of(cls, heads: np.ndarray, tails: np.ndarray, logits: np.ndarray) -> StoredLogits:
        """The `halves` of keys in any order, with their logits; of equal keys the first counts."""
        order = np.argsort(heads, kind="stable")
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = is_different(heads[order]) | is_different(tails[order])
        kept = order[is_first]
        del order, is_first  # of 10^8 pairs, a gigabyte
        return cls(heads[kept], tails[kept], logits[kept])

    def __len__(self) -> int:
        return len(self.heads)

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The logits that are known, by key.

        Where keys share their first half, which among 10^8 has a chance of 1 in 4,000, the first is found and the
        others are unknown.
        """
        if not len(self) or not keys:
            return {}
        heads, tails = halves(b"".join(keys))
        places = np.minimum(np.searchsorted(self.heads, heads), len(self) - 1)
        is_known = (self.heads[places] == heads) & (self.tails[places] == tails)
        found = compress(keys, is_known)
        return dict(zip(found, self.logits[places[is_known]].tolist(), strict=True))


def pair_digest(pair: TokenPair) -> bytes:
    """128 bits that are equal for equal pairs of one family, and for no others."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in pair:
        digest.update(np.array(part if part is not None else (), dtype="<i4").tobytes())
    return digest.digest()


def first_places(keys: Sequence[bytes]) -> dict[bytes, int]:
    """Each key once, in their order, with the place where it comes first."""
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    return first


def is_different(values: np.ndarray) -> np.ndarray:
    """Whether each but the first is another value than the one before it."""
    return np.asarray(values[1:] != values[:-1])


def halves(keys: bytes | memoryview) -> tuple[np.ndarray, np.ndarray]:
    """Keys laid end to end -> their first and second halves, uint64 [n] each, in an order that is that of the bytes."""
    both = np.frombuffer(keys, dtype=">u8").reshape(-1, 2)
    return both[:, 0].astype(np.uint64), both[:, 1].astype(np.uint64)
