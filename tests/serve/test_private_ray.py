"""A private Ray shares nothing with any other, and is not asked for more than it has."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import ConfigError
from serve.private_ray import fitted, free_port, private_environment
from serve.settings import ServeArgs


def test_two_private_rays_share_no_file_and_no_port(tmp_path: Path) -> None:
    one, other = (private_environment(tmp_path / name) for name in ("one", "other"))
    files = [name for name in one if not name.endswith(("_PORT", "niceness"))]
    assert len(files) == 5
    assert all(one[name] != other[name] for name in files)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listening = listener.getsockname()[1]
        assert free_port(listening) != listening


@pytest.mark.parametrize(
    ("settings", "num_cpus", "expected"),
    [({}, None, 8), ({"max_replicas": 3}, None, 2), ({"num_cpus": 3}, 3, 3), ({"num_gpus": 1}, None, 8)],
    ids=str,
)
def test_replicas_share_the_cpus_of_a_private_ray(
    settings: dict[str, Any], num_cpus: float | None, expected: float
) -> None:
    assert fitted(ServeArgs(**settings), num_cpus, {"CPU": 8.0, "GPU": 1.0}).num_cpus == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_cpus": 9}, "1 replicas of 9 CPUs and 0 GPUs are more than this machine's 8 and 0"),
        ({"num_cpus": 3, "max_replicas": 3}, "3 replicas of 3 CPUs"),
        ({"num_cpus": 1, "num_gpus": 1}, "1 replicas of 1 CPUs and 1 GPUs are more"),
    ],
    ids=str,
)
def test_replicas_that_a_private_ray_could_never_start_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(ServeArgs(**settings), settings["num_cpus"], {"CPU": 8.0})
