"""SIGHUP to `crossray serve`: the endpoints read their API keys anew at once, and nothing ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from rich.console import Console

from serve.settings import ServeArgs

ANSWER_SECONDS = 5.0
"""Time in which the endpoints answer; one that does not reads the file by itself."""


def reload_on_sighup(app: str, args: ServeArgs, console: Console) -> None:
    """From now on SIGHUP reloads the keys. One that comes because the terminal was closed ends the server."""
    has_terminal = is_terminal()

    def reload(*_: Any) -> None:
        if has_terminal and not is_terminal():
            console.quiet = True  # nobody reads it, and to write would fail
            raise KeyboardInterrupt
        # Ray is not asked in a handler: it may be in the middle of something in the same thread.
        threading.Thread(target=reload_keys, args=(app, args, console), daemon=True).start()

    signal.signal(signal.SIGHUP, reload)


def is_terminal() -> bool:
    """Whether there is a terminal to say something to."""
    try:
        return os.isatty(sys.stderr.fileno())
    except (OSError, ValueError):
        return False


def reload_keys(app: str, args: ServeArgs, console: Console) -> None:
    """Has all endpoints read the keys' file, and says what came of it."""
    if args.api_keys_file is None:
        say(console, "SIGHUP: there is no --api-keys-file to read; keys of the environment hold until a restart")
        return
    from ray import serve

    try:
        handle = serve.get_app_handle(app)
        if not handle.is_initialized:  # Serve keeps one handle a process
            # With RAY_SERVE_THROUGHPUT_OPTIMIZED a handle lives in its caller's event loop; there is none here.
            handle._init(_run_router_in_separate_loop=True)  # type: ignore[no-untyped-call]
        answers = handle.broadcast("reload_keys").results(timeout_s=ANSWER_SECONDS)
    except Exception as error:  # an endpoint that is being replaced; what went wrong there may be anything
        say(
            console,
            f"SIGHUP: not every endpoint answered ({type(error).__name__}: {error}); each reads its keys within 5 s",
        )
        return
    for answer in sorted(set(answers)):
        say(console, f"SIGHUP: {answer}")


def say(console: Console, text: str) -> None:
    """A line in the terminal."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
