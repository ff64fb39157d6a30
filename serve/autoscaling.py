"""How many replicas there should be: as many as what waits asks for. Runs in Serve's controller."""

from __future__ import annotations

from math import ceil
from typing import Any

from ray.serve.config import AutoscalingContext

UNMEASURED_TOKENS = 50_000
"""Tokens for one replica while no replica has measured its speed."""


class ByWaitingTokens:
    """One replica for every begun share of the tokens that wait, within the bounds; none ends while any wait.

    A share is what a replica scores in `seconds`, or `tokens_per_replica` where that is given.
    """

    def __init__(self, seconds: float, tokens_per_replica: int | None = None) -> None:
        self.seconds = seconds
        self.tokens_per_replica = tokens_per_replica

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas that is wanted, and no state for the next call."""
        metrics = context.aggregated_metrics or {}
        tokens = sum(metrics.get("queued_tokens", {}).values())
        wanted = ceil(tokens / self._share([*metrics.get("tokens_per_second", {}).values()]))
        if tokens:
            wanted = max(wanted, context.target_num_replicas)
        fewest, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return min(max(wanted, fewest), most), {}

    def _share(self, speeds: list[float]) -> float:
        """Tokens for one replica; a speed of 0 is none that was measured."""
        measured = [speed for speed in speeds if speed > 0]
        if self.tokens_per_replica is not None:
            return self.tokens_per_replica
        return self.seconds * sum(measured) / len(measured) if measured else UNMEASURED_TOKENS
