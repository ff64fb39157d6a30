"""The watched file of API keys: what a look at it takes, keeps and says; and what SIGHUP does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import serve.reloading
from pipelines import ConfigError
from serve.auth import new_key
from serve.keys_file import KeysFile
from serve.reloading import reload_keys, reload_on_sighup
from serve.settings import ServeArgs

FIRST, SECOND = new_key("first"), new_key("second")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_text(FIRST.line)
    return path


@pytest.fixture
def file(path: Path, said: list[str]) -> KeysFile:
    return KeysFile(path, said.append)


def accepted(file: KeysFile) -> list[bool]:
    return [file.keys.accepts(f"Bearer {one.key}") for one in (FIRST, SECOND)]


def test_a_new_line_holds_when_it_was_seen_twice(path: Path, file: KeysFile, said: list[str]) -> None:
    """A copy that is under way may hold a part of the lines."""
    path.write_text(f"{FIRST.line}\n{SECOND.line}\n")
    file.look()
    assert (accepted(file), said) == ([True, False], [])
    file.look()
    assert (accepted(file), said) == ([True, True], ["API keys were read anew: 2 accepted"])
    path.write_text(SECOND.line)
    file.look()
    file.look()
    assert accepted(file) == [False, True]
    assert len(said) == 2


def test_a_change_of_comments_is_no_news(path: Path, file: KeysFile, said: list[str]) -> None:
    path.write_text(f"# mine\n{FIRST.line}\n")
    for _ in range(3):
        file.look()
    assert said == []


@pytest.mark.parametrize("damage", ["", "# none\n", "hunter2", "\x00", None])
def test_what_cannot_be_read_keeps_the_last_keys_and_is_said_once(
    path: Path, file: KeysFile, said: list[str], damage: str | None
) -> None:
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)
    for _ in range(5):
        file.look()
    assert accepted(file) == [True, False]
    [line] = said
    assert str(path) in line
    assert line.endswith("; the keys that were read before still hold")
    assert "hunter2" not in line
    path.write_text(f"{FIRST.line}\n{SECOND.line}")
    file.look()
    file.look()
    assert accepted(file) == [True, True]
    assert len(said) == 2


def test_a_link_that_points_elsewhere_is_a_change(path: Path, tmp_path: Path, said: list[str]) -> None:
    """As Kubernetes changes a secret."""
    link, other = tmp_path / "link", tmp_path / "other.txt"
    other.write_text(SECOND.line)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    link.symlink_to(path)
    file = KeysFile(link, said.append)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").replace(link)
    file.look()
    file.look()
    assert accepted(file) == [False, True]


def test_a_reload_takes_at_once_what_is_there(path: Path, file: KeysFile, said: list[str]) -> None:
    path.write_text(f"{FIRST.line}\n{SECOND.line}\n")
    assert file.reload() == "API keys were read anew: 2 accepted"
    assert accepted(file) == [True, True]
    path.write_text("")
    assert file.reload().endswith("the keys that were read before still hold")
    assert accepted(file) == [True, True]
    assert len(said) == 2


def test_at_first_there_must_be_keys(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        KeysFile(tmp_path / "none.txt", said.append)


@pytest.fixture
def handler() -> Iterator[None]:
    """What SIGHUP does in this process is as it was in the end."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_keys_of_the_environment_are_not_read_anew(handler: None, capsys: pytest.CaptureFixture[str]) -> None:
    reload_keys("none", ServeArgs(), Console(stderr=True))
    assert "keys of the environment hold until a restart" in capsys.readouterr().err


def test_a_terminal_that_was_closed_ends_the_server(handler: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shell sends SIGHUP, too; nothing can be said there any more."""
    console = Console(stderr=True)
    monkeypatch.setattr(serve.reloading, "is_terminal", lambda: True)
    reload_on_sighup("none", ServeArgs(), console)
    monkeypatch.setattr(serve.reloading, "is_terminal", lambda: False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)
    assert console.quiet
