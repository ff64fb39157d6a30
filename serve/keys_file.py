"""The file of API keys, watched: new lines let in and removed ones keep out within seconds, without a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.errors import ConfigError
from serve.auth import ApiKeys

LOOK_SECONDS = 1.0
"""How often the file is read; what is new in it holds after the second look at the latest."""


class KeysFile:
    """The keys that hold now: those that the file had when it could last be read."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Reads the file, and tells `say` whatever becomes of it later; raises ConfigError for one without keys."""
        self.path = path
        self.keys = ApiKeys.from_file(path)
        self._say = say
        self._seen: ApiKeys | str = self.keys
        """What the last look found: keys, or why there are none."""
        self._taken: ApiKeys | str = self.keys
        """What was last acted upon, and said."""

    def watch(self) -> None:
        """Looks at the file from now on, in a thread: a mount that hangs holds no request up."""
        threading.Thread(target=self._watch, name="keys-file", daemon=True).start()

    def look(self) -> None:
        """Takes what the file holds, if the look before found the same: what differs may be half written."""
        found = self._found()
        if found == self._seen:
            self._take(found)
        self._seen = found

    def reload(self) -> str:
        """Takes what the file holds now; returns what came of it, in words."""
        self._seen = self._found()
        self._take(self._seen)
        return in_words(self._taken)

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            self.look()

    def _found(self) -> ApiKeys | str:
        # The whole file, not its time or size: a link that points elsewhere, or a mount that is slow to tell, changes
        # neither.
        try:
            return ApiKeys.from_file(self.path)
        except ConfigError as error:
            return str(error)

    def _take(self, found: ApiKeys | str) -> None:
        if found == self._taken:
            return
        self._taken = found
        if isinstance(found, ApiKeys):
            self.keys = found
        self._say(in_words(found))


def in_words(found: ApiKeys | str) -> str:
    """What a look at the file found, for a log; never a key or a hash."""
    if isinstance(found, ApiKeys):
        return f"API keys were read anew: {len(found.digests)} accepted"
    return f"{found}; the keys that were read before still hold"
