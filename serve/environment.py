"""What must be in the environment of every Ray process before it starts, so that Serve behaves as we promise."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

REPLAYABLE_BYTES = 1 << 18
"""A request up to this size is sent to another endpoint when the one that has it dies: HAProxy holds it whole
(`serve.haproxy`) before it sends the first byte."""

SERVE_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # a quarter of the latency of Serve's own proxy, and less
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # With the next four, an endpoint's death costs nothing.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # A request meets a dead endpoint up to three times: on its connection, on one kept open, and on a new one, which is
    # refused, and that takes the endpoint out. Twice that, for two that die at once; defaults: 3 refusals, 3 retries.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    "RAY_SERVE_HAPROXY_RETRIES": "6",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(REPLAYABLE_BYTES),
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a dead proxy is back in 5 s instead of 31
}


def set_serve_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets what is not set yet: whoever starts Ray may know better."""
    for name, value in SERVE_ENVIRONMENT.items():
        environment.setdefault(name, value)
