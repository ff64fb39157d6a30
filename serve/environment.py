"""What must be in the environment of every Ray process before it starts, so that Serve behaves as we promise."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SERVE_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # a quarter of the latency of Serve's own proxy, and less
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",  # an endpoint that dies costs small requests nothing
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a dead proxy is back in 5 s instead of 31
}


def set_serve_environment(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets what is not set yet: whoever starts Ray may know better."""
    for name, value in SERVE_ENVIRONMENT.items():
        environment.setdefault(name, value)
