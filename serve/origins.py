"""Web origins whose pages may call the server: read from a setting, and refused where no browser would send them.

A browser says where a page is from in one way only, and what is written otherwise would never be let in.
"""

from __future__ import annotations

import re

from pipelines.errors import ConfigError

EVERY_ORIGIN = "*"
DEFAULT_PORTS = {"http": "80", "https": "443", "chrome-extension": "", "moz-extension": ""}
"""By scheme, of those that a page can be from; browsers leave them out."""
ORIGIN = re.compile(r"(?P<scheme>[a-z-]+)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]+))?")
EXAMPLE = "an origin looks like https://app.example.org or http://localhost:3000"


def origins_of(setting: str) -> list[str]:
    """The origins in a list with commas between them, or the `*` alone; raises ConfigError for what is no origin."""
    origins = [one.strip() for one in setting.split(",")]
    if origins == [EVERY_ORIGIN]:
        return origins
    for origin in origins:
        if wrong := what_is_wrong(origin):
            shown = "" if "@" in origin else f" has {origin!r}, and"  # a password may stand there
            raise ConfigError(f"cors_origins{shown} {wrong}; {EXAMPLE}, with commas between several")
    return origins


def what_is_wrong(origin: str) -> str | None:
    """Why no browser would send this origin, or it may not be let in; None for a right one."""
    scheme, divider, rest = origin.partition("://")
    match = ORIGIN.fullmatch(origin)
    port = match["port"] if match else None
    reasons = {
        "an entry is empty": not origin,
        "`*` lets every origin in: give it alone, or leave it out": origin == EVERY_ORIGIN,
        "wildcards are not understood: name each origin": "*" in origin,
        "there is white space in it": any(one.isspace() for one in origin),
        "it has no scheme": not divider,
        f"its scheme is none of {', '.join(DEFAULT_PORTS)}": scheme.lower() not in DEFAULT_PORTS,
        "holds a user or a password: an origin has none": "@" in rest,
        "a path, or a slash at its end, is no part of an origin": bool(set("/?#\\") & set(rest)),
        "browsers write such a name in punycode (xn--...)": not origin.isascii(),
        "browsers write an origin in lower case": origin != origin.lower(),
        "it is no host with or without a port": match is None,
        "its port is not between 1 and 65535": port is not None and not (len(port) <= 5 and 1 <= int(port) <= 65535),
        "browsers leave this port out": port is not None and port == DEFAULT_PORTS.get(scheme),
        "browsers write a port without a zero before it": port is not None and port.startswith("0"),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)
