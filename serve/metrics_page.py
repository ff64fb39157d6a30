"""/metrics: what all processes of the app counted, as Ray's agents on its nodes collect it."""

from __future__ import annotations

import asyncio
import urllib.request

import ray

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
RAY_PREFIX = "ray_"
OURS = "crossray_"
AGENT_SECONDS = 5.0
"""Time in which a node's agent must answer."""


async def collect() -> str:
    """The families that are ours, without Ray's prefix; a node that does not answer is left out."""
    addresses = [
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    pages = await asyncio.gather(*(asyncio.to_thread(page_of_agent, address) for address in addresses))
    return merge(pages)


def page_of_agent(address: str) -> str:
    """The metrics page of one node's agent; empty where the agent does not answer."""
    try:
        with urllib.request.urlopen(address, timeout=AGENT_SECONDS) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def merge(pages: list[str]) -> str:
    """One page of several: each family's HELP and TYPE once, then its samples."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            if line.startswith("#"):
                kind, family, text = line.split(" ", 3)[1:]
                wanted = family.startswith(RAY_PREFIX + OURS)
                lines = headers.setdefault(family, []) if wanted else []
                if not any(known.startswith(f"# {kind} ") for known in lines):
                    lines.append(f"# {kind} {family.removeprefix(RAY_PREFIX)} {text}")
            elif line.startswith(RAY_PREFIX + OURS):
                samples.setdefault(family, []).append(line.removeprefix(RAY_PREFIX))
    return "".join(f"{line}\n" for family, lines in headers.items() for line in [*lines, *samples.get(family, [])])
