"""/metrics: what all processes of the app counted, as Ray's agents on its nodes collect it."""

from __future__ import annotations

import asyncio
import functools
import http.client
import re
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import ray

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
RAY_PREFIX = "ray_"
OURS = "crossray_"
AGENT_SECONDS = 5.0
"""Time in which a node's agent must answer."""
AGENT_BYTES = 64 << 20
"""What is read of an agent's page at most."""
FRESH_SECONDS = 1.0
"""Time for which a page is good; Ray's agents renew theirs more seldom."""
HEADER = re.compile(r"# (HELP|TYPE) (\S+) (.*)")
SAMPLE = re.compile(r"\w+(\{.*\})? [-+]?([\d.]+(e[-+]?\d+)?|inf|nan)( \d+)?", re.IGNORECASE)
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The nodes of a cluster are asked directly, whatever the environment says of proxies."""


@functools.cache
def threads() -> ThreadPoolExecutor:
    """Threads of this page alone: a node that does not answer keeps no request from being tokenized."""
    return ThreadPoolExecutor(16, thread_name_prefix="metrics")


async def collect() -> str:
    """The families that are ours, without Ray's prefix; a node that does not answer is left out."""
    loop = asyncio.get_running_loop()
    addresses = await loop.run_in_executor(threads(), agents)
    pages = await asyncio.gather(*(loop.run_in_executor(threads(), page_of_agent, one) for one in addresses))
    return merge(pages)


def agents() -> list[str]:
    """The addresses of the metrics pages of all nodes."""
    return [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def page_of_agent(address: str) -> str:
    """The metrics page of one node's agent; empty where the agent gives no whole page in time."""
    end = time.monotonic() + AGENT_SECONDS
    page = bytearray()
    try:
        with NO_PROXY.open(address, timeout=AGENT_SECONDS) as response:
            while part := response.read1(1 << 16):
                page += part
                if len(page) > AGENT_BYTES or time.monotonic() > end:
                    return ""
    except (OSError, http.client.HTTPException):
        return ""
    return page.decode(errors="replace")


def merge(pages: Sequence[str]) -> str:
    """One page of several: each family's HELP and TYPE once, then its samples. Lines of another form are left out."""
    headers: dict[str, dict[str, str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        family = ""
        for line in page.split("\n"):
            if not line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(RAY_PREFIX + OURS):
                continue
            if header := HEADER.fullmatch(line):
                kind, family, text = header.groups()
                headers.setdefault(family, {}).setdefault(kind, text)
            elif family and line.startswith(family) and SAMPLE.fullmatch(line):
                samples.setdefault(family, []).append(line.removeprefix(RAY_PREFIX))
    return "".join(section(family, lines, samples.get(family, [])) for family, lines in headers.items())


def section(family: str, headers: dict[str, str], samples: Sequence[str]) -> str:
    """The lines of one family."""
    name = family.removeprefix(RAY_PREFIX)
    lines = [f"# {kind} {name} {text}" for kind, text in headers.items()]
    return "".join(f"{line}\n" for line in [*lines, *samples])
