"""How many replicas there should be: as many as the waiting tokens ask for. Runs in Serve's controller."""

from __future__ import annotations

from math import ceil
from typing import Any

from ray.serve.config import AutoscalingContext


class ByQueuedTokens:
    """One replica for every begun `tokens_per_replica` that wait, within the bounds; none ends while any wait."""

    def __init__(self, tokens_per_replica: int) -> None:
        self.tokens_per_replica = tokens_per_replica

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas that is wanted, and no state for the next call."""
        tokens = sum((context.aggregated_metrics or {}).get("queued_tokens", {}).values())
        wanted = ceil(tokens / self.tokens_per_replica)
        if tokens:
            wanted = max(wanted, context.target_num_replicas)
        fewest, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        return min(max(wanted, fewest), most), {}
