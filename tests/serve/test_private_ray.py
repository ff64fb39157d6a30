"""A private Ray shares nothing with any other, and is not asked for more than it has."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.errors import ConfigError
from serve.private_ray import check_token, fitted, private_environment, reserve_port
from serve.settings import ServeArgs


def test_two_private_rays_share_no_file_and_no_port(tmp_path: Path) -> None:
    one, other = (private_environment(tmp_path / name) for name in ("one", "other"))
    own = [name for name in one if not name.endswith("niceness")]
    assert len(own) == 9
    assert all(one[name] != other[name] for name in own)


def test_a_port_on_which_somebody_listens_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listening = listener.getsockname()[1]
        assert reserve_port(listening) > listening


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port that nobody uses yet cannot be held")
def test_a_port_that_another_process_has_chosen_and_not_taken_yet_is_not_chosen() -> None:
    code = "from serve.private_ray import reserve_port; print(reserve_port(19_000), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        theirs = int(one.stdout.readline())
        assert reserve_port(theirs) != theirs
        one.communicate("")
    assert reserve_port(theirs) == theirs  # since that process has ended


def test_a_port_that_others_may_share_is_not_taken_for_free(tmp_path: Path) -> None:
    """Serve's proxies share theirs with any other that asks for it; requests would come to a stranger's app."""
    port = int(private_environment(tmp_path)["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"])
    assert port != 8500  # where another server's may be about to listen
    with socket.create_server(("127.0.0.1", port), reuse_port=True):
        assert reserve_port(port) != port


@pytest.mark.parametrize("before", [None, "a token that Ray made"])
def test_rays_token_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    """The one that is there, or a new one, which Ray then takes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ray" / "auth_token"
    if before:
        path.parent.mkdir()
        path.write_text(before)
        path.chmod(0o644)
    console = Console(file=StringIO())
    for _ in range(2):
        check_token({}, console)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = before or path.read_text()
        assert path.read_text() == before
    assert len(before) >= 21
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_token_that_cannot_be_kept_from_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").write_text("no directory")
    with pytest.raises(ConfigError, match="name a file of your own in RAY_AUTH_TOKEN_PATH"):
        check_token({}, Console(file=StringIO()))


def test_a_ray_without_a_token_is_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    console = Console(file=StringIO(), width=200)
    check_token({"RAY_AUTH_MODE": "disabled"}, console)
    assert "whoever reaches this machine's ports can run code" in console.file.getvalue()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


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
