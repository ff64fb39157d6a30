"""The number of replicas follows the tokens that wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serve.autoscaling import ByQueuedTokens


def context(tokens: list[float], target: int = 1, bounds: tuple[int, int] = (1, 8)) -> Any:
    """What Serve's controller hands over: the statistics of each replica, and the bounds."""
    return SimpleNamespace(
        aggregated_metrics={"queued_tokens": {f"replica {i}": value for i, value in enumerate(tokens)}},
        target_num_replicas=target,
        capacity_adjusted_min_replicas=bounds[0],
        capacity_adjusted_max_replicas=bounds[1],
    )


@pytest.mark.parametrize(
    ("tokens", "target", "wanted"),
    [
        ([], 3, 1),
        ([0, 0], 2, 1),
        ([1], 1, 1),
        ([1000], 1, 1),
        ([1001], 1, 2),
        ([1500, 1500], 2, 3),
        ([100_000], 1, 8),
        ([10, 10, 10], 3, 3),
    ],
)
def test_one_replica_for_every_begun_share(tokens: list[float], target: int, wanted: int) -> None:
    """And none is taken away while any token waits."""
    assert ByQueuedTokens(tokens_per_replica=1000)(context(tokens, target)) == (wanted, {})


def test_before_any_statistics_the_fewest() -> None:
    nothing = context([])
    nothing.aggregated_metrics = None
    assert ByQueuedTokens(1000)(nothing) == (1, {})
