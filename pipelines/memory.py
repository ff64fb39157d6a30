"""What was scored is not scored again: logits by the digest of their token pair, and the engine that asks them first.

The key is the pair as the model reads it, not its texts: template, cuts and chunks are part of it, so one logit serves
whatever lengths a call has. All logits of one memory are of one model; who fills it sees to that.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # torch: seconds, and not for who only reads or writes logits
    from .packing import TokenPair

KEY_BYTES = 16
"""Of a digest: among 10^9 pairs, two that share one have a chance of 10^-21."""


class Engine(Protocol):
    """What a ReusingEngine needs of the engine behind it."""

    @property
    def spec(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...

    def distinct_logits(self, pairs: Sequence[TokenPair]) -> np.ndarray:
        """The logit of each of these pairs, of which no two are equal; float32 [len(pairs)]."""


class ReusingEngine:
    """The engine of one call of a Reranker: forwards only pairs that nobody knows, and each of them once."""

    def __init__(self, engine: Engine, recent: RecentLogits, stored: StoredLogits) -> None:
        self.engine = engine
        self.recent = recent
        self.stored = stored
        self.new_logits: dict[bytes, float] = {}
        """Of the pairs that went through the engine, by digest; finite ones alone."""
        self.reused = 0
        """Pairs that did not."""

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
    """Those of the pairs that were asked for last, `capacity` at most; 0 keeps none. Threads may share it.

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
        """Keeps them; those that nobody asked for the longest go."""
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
    def of(cls, keys: np.ndarray, logits: np.ndarray) -> StoredLogits:
        """`keys` are uint64 [n, 2] of `halves`, in any order; of equal ones the first counts."""
        order = np.argsort(keys[:, 0], kind="stable")
        heads, tails = keys[order, 0], keys[order, 1]
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = (heads[1:] != heads[:-1]) | (tails[1:] != tails[:-1])
        return cls(heads[is_first], tails[is_first], logits[order[is_first]])

    def __len__(self) -> int:
        return len(self.heads)

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """The logits that are known, by key.

        Where keys share their first half, which among 10^8 has a chance of 1 in 4,000, the first is found and the
        others are unknown.
        """
        if not len(self) or not keys:
            return {}
        wanted = halves(b"".join(keys))
        places = np.minimum(np.searchsorted(self.heads, wanted[:, 0]), len(self) - 1)
        is_known = (self.heads[places] == wanted[:, 0]) & (self.tails[places] == wanted[:, 1])
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


def halves(keys: bytes | memoryview) -> np.ndarray:
    """Keys laid end to end -> uint64 [n, 2], in an order that is that of the bytes."""
    return np.frombuffer(keys, dtype=">u8").reshape(-1, 2).astype(np.uint64)
