"""Building the app: what is refused before anything is deployed."""

from __future__ import annotations

import pytest

from pipelines.errors import ConfigError
from serve.app import KEYS_VARIABLE, app_behind, build_app, listening_host
from serve.auth import new_key
from serve.settings import ServeArgs
from tests.conftest import LiveApp


def test_where_serve_listens_beyond_this_machine_the_app_wants_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is deployed from a file, where `crossray serve` has no say."""
    with pytest.raises(ConfigError, match=r"host 0\.0\.0\.0 lets others than this machine in"):
        app_behind("0.0.0.0", ServeArgs())
    app_behind("0.0.0.0", ServeArgs(allow_anonymous=True))
    monkeypatch.setenv(KEYS_VARIABLE, new_key().line)
    app_behind("0.0.0.0", ServeArgs())


def test_where_serve_listens_is_what_it_was_started_with(live_app: LiveApp) -> None:
    assert listening_host() == "127.0.0.1"
    build_app(ServeArgs())
