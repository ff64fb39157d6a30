"""API keys: which headers are let in, what a list of keys may look like, and that no key ever shows."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import ConfigError
from serve.auth import ApiKeys, is_loopback, new_key


def line_of(key: str, label: str = "") -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{label}:{digest}" if label else digest


KEYS = ApiKeys.parse(f"{line_of('first', 'search page')}\n{line_of('second')}\n", "keys.txt")


@pytest.mark.parametrize("header", ["Bearer first", "Bearer second", "bearer first", "BEARER  second "])
def test_every_key_is_let_in(header: str) -> None:
    assert KEYS.accepts(header)


@pytest.mark.parametrize(
    "header",
    [None, "", " ", "Bearer", "Bearer ", "Bearer third", "Bearer first second", "Bearer FIRST", "Basic first", "first"],
)
def test_wrong_keys_and_malformed_headers_are_kept_out(header: str | None) -> None:
    assert not KEYS.accepts(header)


@given(st.text())
def test_no_header_breaks_the_comparison(text: str) -> None:
    assert not KEYS.accepts(text)
    assert not KEYS.accepts(f"Bearer {text}x")


def test_the_hash_of_a_key_is_not_a_key() -> None:
    assert not KEYS.accepts(f"Bearer {line_of('first')}")


@pytest.mark.parametrize("header", ["Bearer first", "Bearer third", "Basic first", None])
def test_every_header_is_compared_with_every_key(header: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the time tells nothing."""
    compared: list[bytes] = []
    compare_digest = hmac.compare_digest

    def compare(sent: bytes, digest: bytes) -> bool:
        compared.append(digest)
        return compare_digest(sent, digest)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    KEYS.accepts(header)
    assert compared == [hashlib.sha256(key).digest() for key in (b"first", b"second")]


def test_a_file_may_hold_comments_labels_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"\ufeff# people: {'x' * 64}\r\n\r\n  {line_of('a', 'Zoë @ home')}  \r\n{line_of('b').upper()}")
    keys = ApiKeys.from_file(path)
    assert [keys.accepts(f"Bearer {key}") for key in "abc"] == [True, True, False]


@pytest.mark.parametrize("separator", [",", "\n", ", ", ",\n"])
def test_an_environment_variable_holds_the_same_lines(separator: str) -> None:
    keys = ApiKeys.from_environment(separator.join([line_of("a", "search"), line_of("b")]), "CROSSRAY_API_KEYS")
    assert [keys.accepts(f"Bearer {key}") for key in "abc"] == [True, True, False]


@pytest.mark.parametrize(
    "line",
    ["hunter2", "label:hunter2", line_of("a")[1:], f"{line_of('a')}0", f":{line_of('a')}", f"a:b:{line_of('a')}"],
)
def test_what_is_no_hash_is_refused_by_place_and_not_repeated(line: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^keys.txt, line 3 is not the hash of a key: .* `crossray keys new`"
    ) as error:
        ApiKeys.parse(f"# keys\n\n{line}\n", "keys.txt")
    assert line not in str(error.value)


def test_the_hash_of_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^keys\.txt, line 1 is the hash of an empty key"):
        ApiKeys.parse(line_of("", "script"), "keys.txt")


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n"])
def test_a_list_without_keys_is_refused(text: str) -> None:
    """Neither letting everybody in nor keeping everybody out can be meant."""
    with pytest.raises(ConfigError, match=r"^keys\.txt holds no API key"):
        ApiKeys.parse(text, "keys.txt")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path / 'keys.txt'} cannot be read \\(No such file"):
        ApiKeys.from_file(tmp_path / "keys.txt")
    (tmp_path / "keys.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=f"{tmp_path / 'keys.bin'} is not UTF-8 text"):
        ApiKeys.from_file(tmp_path / "keys.bin")


@pytest.mark.parametrize("label", ["", "search page", " padded "])
def test_a_new_key_is_let_in_by_its_line(label: str) -> None:
    new = new_key(label)
    keys = ApiKeys.parse(new.line, "keys.txt")
    assert keys.accepts(f"Bearer {new.key}")
    assert new.line.startswith(f"{label.strip()}:" if label else "")


def test_new_keys_differ_and_cannot_be_guessed() -> None:
    keys = {new_key().key for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43  # 256 bits in base64


@pytest.mark.parametrize("label", ["a:b", "a\nb", "a,b", "#a"])
def test_a_label_that_a_line_cannot_hold_is_refused(label: str) -> None:
    with pytest.raises(ConfigError, match="label"):
        new_key(label)


def test_keys_and_hashes_never_show() -> None:
    new = new_key("search")
    assert new.key not in f"{new!r} {new}"
    assert repr(KEYS) == "ApiKeys()"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
