"""Which web origins a server may be told to let in: those that a browser sends."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipelines.errors import ConfigError
from serve.origins import origins_of
from serve.settings import ServeArgs


@pytest.mark.parametrize(
    ("setting", "origins"),
    [
        ("*", ["*"]),
        ("https://a.example", ["https://a.example"]),
        ("https://a.example, http://localhost:3000", ["https://a.example", "http://localhost:3000"]),
        ("http://127.0.0.1:65535,http://[::1]:8080", ["http://127.0.0.1:65535", "http://[::1]:8080"]),
        ("https://xn--bcher-kva.example", ["https://xn--bcher-kva.example"]),
        ("http://my_host:443", ["http://my_host:443"]),
        ("chrome-extension://abcdefghijklmnop", ["chrome-extension://abcdefghijklmnop"]),
    ],
)
def test_what_browsers_send_is_let_in(setting: str, origins: list[str]) -> None:
    assert origins_of(setting) == origins
    assert ServeArgs(cors_origins=setting).cors_origins == setting


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("a.example", "it has no scheme"),
        ("//a.example", "it has no scheme"),
        ("localhost:3000", "it has no scheme"),
        ("null", "it has no scheme"),
        ("https://a.example/", "a slash at its end, is no part of an origin"),
        ("https://a.example/app", "a path"),
        ("https://a.example?x=1", "a path"),
        ("https://a.example https://b.example", "there is white space in it"),
        ("https://a.example,,https://b.example", "an entry is empty"),
        ("", "an entry is empty"),
        ("*,https://a.example", "`*` lets every origin in: give it alone"),
        ("https://a.example, *", "`*` lets every origin in: give it alone"),
        ("https://*.example", "wildcards are not understood: name each origin"),
        ("http://localhost:*", "wildcards are not understood"),
        ("ftp://a.example", "its scheme is none of http, https, "),
        ("file:///page", "its scheme is none of"),
        ("https://a.example:0", "its port is not between 1 and 65535"),
        ("https://a.example:65536", "its port is not between 1 and 65535"),
        ("https://a.example:" + "9" * 5000, "its port is not between 1 and 65535"),
        ("https://a.example:443", "browsers leave this port out"),
        ("http://a.example:80", "browsers leave this port out"),
        ("http://a.example:08080", "without a zero before it"),
        ("https://a.example:", "no host with or without a port"),
        ("https://", "no host with or without a port"),
        ("https://a.example:port", "no host with or without a port"),
        ("https://b\u00fccher.example", "punycode"),
        ("https://A.example", "lower case"),
        ("HTTPS://a.example", "lower case"),
    ],
)
def test_what_no_browser_sends_is_refused_with_a_right_one_to_look_at(setting: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        origins_of(setting)
    message = str(refused.value)
    assert reason in message
    assert message.startswith("cors_origins has '")
    assert "an origin looks like https://app.example.org or http://localhost:3000" in message
    with pytest.raises(ValidationError):
        ServeArgs(cors_origins=setting)


def test_a_password_in_an_origin_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="cors_origins holds a user or a password") as refused:
        origins_of("https://ann:secret@a.example")
    assert "secret" not in str(refused.value)
