"""PairBlock: token pairs on their way to a replica of another process, as a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .packing import TokenPair


class PairBlock(NamedTuple):
    """Pairs laid end to end: a few arrays travel faster than thousands."""

    input_ids: np.ndarray
    """int32 [tokens]"""
    token_type_ids: np.ndarray | None
    """int32 [tokens]; None for families without segments."""
    lengths: np.ndarray
    """int32 [pairs]"""

    @classmethod
    def of(cls, pairs: Sequence[TokenPair]) -> PairBlock:
        """Raises ValueError for no pairs."""
        ids, segments = zip(*pairs, strict=True)
        lengths = np.fromiter(map(len, ids), dtype=np.int32, count=len(pairs))
        return cls(np.concatenate(ids), None if segments[0] is None else np.concatenate(segments), lengths)

    def pairs(self) -> list[TokenPair]:
        """The pairs as they were, as views."""
        ends = np.cumsum(self.lengths)[:-1]
        ids = np.split(self.input_ids, ends)
        segments = [None] * len(ids) if self.token_type_ids is None else np.split(self.token_type_ids, ends)
        return [TokenPair(*both) for both in zip(ids, segments, strict=True)]
