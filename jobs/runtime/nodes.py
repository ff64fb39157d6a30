"""What the nodes of a cluster have, as far as Ray knows."""

from __future__ import annotations

from collections.abc import Mapping

import ray

SHARE_OF_OBJECT_STORE = 0.5
"""Of a node's object store, what a job keeps there for all of its run; units and what Ray holds need the rest."""


def resources_of_nodes() -> list[Mapping[str, float]]:
    """CPU, GPU, object_store_memory (bytes) and what else each living node has; none without a Ray."""
    nodes = ray.nodes() if ray.is_initialized() else []  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def smallest_object_store() -> float | None:
    """Bytes of the smallest object store of a node; None without a Ray."""
    sizes = [node.get("object_store_memory", 0.0) for node in resources_of_nodes()]
    return min((size for size in sizes if size), default=None)
