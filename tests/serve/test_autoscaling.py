"""The number of replicas follows what waits, in tokens and in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from serve.autoscaling import UNMEASURED_TOKENS, ByWaitingTokens


def context(
    tokens: list[float], target: int = 1, bounds: tuple[int, int] = (1, 8), speeds: Sequence[float] = ()
) -> Any:
    """What Serve's controller hands over: the statistics of each replica, and the bounds."""
    return SimpleNamespace(
        aggregated_metrics={
            "queued_tokens": {f"replica {i}": value for i, value in enumerate(tokens)},
            "tokens_per_second": {f"replica {i}": value for i, value in enumerate(speeds)},
        },
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
    assert ByWaitingTokens(seconds=5, tokens_per_replica=1000)(context(tokens, target)) == (wanted, {})


def test_before_any_statistics_the_fewest() -> None:
    nothing = context([])
    nothing.aggregated_metrics = None
    assert ByWaitingTokens(5)(nothing) == (1, {})


@pytest.mark.parametrize(
    ("tokens", "speeds", "wanted"),
    [
        ([5_000], [1_000], 1),
        ([5_001], [1_000], 2),
        ([5_001], [2_000], 1),
        ([6_000, 6_000], [1_000, 1_400], 2),
        ([6_000, 6_001], [1_000, 1_400], 3),
        ([6_000, 6_001], [1_200, 0], 3),  # the second one is new
        ([UNMEASURED_TOKENS], [0], 1),
        ([UNMEASURED_TOKENS + 1], [0], 2),
    ],
)
def test_one_replica_for_what_one_answers_in_the_time(tokens: list[float], speeds: list[float], wanted: int) -> None:
    """At the speed that was measured; until then a number of tokens."""
    assert ByWaitingTokens(seconds=5)(context(tokens, speeds=speeds)) == (wanted, {})
