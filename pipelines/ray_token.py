"""The token of a private Ray: made before Ray makes it, so that its owner alone can read it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .errors import ConfigError


def keep_ray_token(environment: Mapping[str, str]) -> None:
    """Makes Ray's token, if it has none yet, and lets its owner alone read it.

    Ray would make it readable for everybody on this machine. Raises ConfigError where the file cannot be kept so.
    """
    if "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment:
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileExistsError), open(path, "x", opener=for_owner_alone) as file:
            file.write(secrets.token_hex(32))
        path.chmod(0o600)
    except OSError as error:
        raise ConfigError(
            f"Ray's token in {path} cannot be kept from others ({error.strerror}); name a file of your own in "
            "RAY_AUTH_TOKEN_PATH"
        ) from None


def for_owner_alone(path: str, flags: int) -> int:
    """Opens a file that nobody else can read from its first moment on."""
    return os.open(path, flags, 0o600)
