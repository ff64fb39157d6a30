"""API keys, kept as hashes, and whether a bearer header holds one of them. Knows no HTTP and no status codes.

One key a line, `label:hash` or just the hash; blank lines and lines that begin with # are skipped. The hash is the
SHA-256 of the key in hexadecimal digits: keys are 256 random bits, so that a slow hash would protect nothing more.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pipelines import ConfigError

LINE = re.compile(r"(?:(?P<label>[\w.@ -]+):)?(?P<digest>[0-9a-f]{64})", re.IGNORECASE)
LABEL = re.compile(r"[\w.@ -]*")
HASH_OF_NOTHING = hashlib.sha256(b"").hexdigest()
"""A script writes this hash when its variable is empty; `Bearer` without a key would then be let in."""


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The keys that are let in; a repr, a log or an error never shows them."""

    digests: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def from_file(cls, path: Path) -> ApiKeys:
        """Raises ConfigError, with file and line, for what is not a list of hashes."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigError(
                f"the API keys in {path} cannot be read ({error.strerror}); name a readable file"
            ) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not UTF-8 text; `crossray keys new` prints lines for it") from None
        return cls.parse(text, str(path))

    @classmethod
    def from_environment(cls, value: str, name: str) -> ApiKeys:
        """The lines of the variable `name`; commas may stand for line ends. Raises ConfigError as `from_file` does."""
        return cls.parse(value.replace(",", "\n"), name)

    @classmethod
    def parse(cls, text: str, source: str) -> ApiKeys:
        """The keys in `text`; `source` names it in errors."""
        digests = []
        for number, line in enumerate(text.splitlines(), start=1):
            entry = line.strip()
            if not entry or entry.startswith("#"):
                continue
            match = LINE.fullmatch(entry)
            # The line is not repeated in the message: a key may stand in it by mistake.
            if match is None:
                raise ConfigError(
                    f"{source}, line {number} is not the hash of a key: 64 hexadecimal digits, or `label:` and the "
                    "digits; `crossray keys new` makes a key and its line"
                )
            if match["digest"].lower() == HASH_OF_NOTHING:
                raise ConfigError(
                    f"{source}, line {number} is the hash of an empty key, which lets everybody in; "
                    "`crossray keys new` makes a key and its line"
                )
            digests.append(bytes.fromhex(match["digest"]))
        if not digests:
            raise ConfigError(f"{source} holds no API key; `crossray keys new` makes a key and its line")
        return cls(tuple(digests))

    def accepts(self, authorization: str | None) -> bool:
        """Whether the value of an Authorization header is `Bearer` and one of the keys, in the same time for all."""
        scheme, _, key = (authorization or "").strip().partition(" ")
        sent = digest_of(key.strip())
        matches = [hmac.compare_digest(sent, digest) for digest in self.digests]  # a list: all of them, always
        return any(matches) and scheme.lower() == "bearer"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made."""

    key: str = field(repr=False)
    """Shown to its user once and stored nowhere."""
    line: str
    """For the list of keys."""


def new_key(label: str = "") -> NewKey:
    """A random key and its line; raises ConfigError for a label that a line cannot hold."""
    label = label.strip()
    if LABEL.fullmatch(label) is None:
        raise ConfigError(f"label {label!r}: a label has letters, digits, spaces and . _ - @ only; choose another")
    key = f"crossray_{secrets.token_urlsafe(32)}"
    digest = digest_of(key).hex()
    return NewKey(key, f"{label}:{digest}" if label else digest)


def digest_of(key: str) -> bytes:
    """SHA-256 of the key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def check_access(host: str, keys: ApiKeys | None, allow_anonymous: bool) -> None:
    """Raises ConfigError where strangers could use a server that listens on `host` and nobody said that they may."""
    if keys is None and not allow_anonymous and not is_loopback(host):
        raise ConfigError(
            f"host {host} lets others than this machine in, and there are no API keys; make one with `crossray keys "
            "new` for api_keys_file or CROSSRAY_API_KEYS, or set allow_anonymous (flags: --api-keys-file, "
            "--allow-anonymous)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there; a name other than localhost could be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
