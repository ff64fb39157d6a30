"""How the commands that make tables for training end: what is said, and the exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from jobs import errors
from jobs.errors import RefusedError, StoppedError
from jobs.runtime.signals import InterruptedBySignal
from jobs.screen import say
from pipelines.errors import ConfigError, ModelError


def exit_code(work: Callable[[], dict[str, Any]], module: str, max_errors: int | None) -> int:
    """Does the work, which returns a summary, says how it ended, and returns the code for it."""
    console = Console(stderr=True)
    try:
        summary = work()
    except (ConfigError, ModelError) as error:
        say(console, str(error), "error: ")
        return errors.USAGE
    except RefusedError as error:
        say(console, str(error), "refused: ")
        return errors.REFUSED
    except InterruptedBySignal as interruption:
        say(console, f"{interruption}; what is finished stays. To resume:\n  {command_of(module)}", "stopped by ")
        return errors.SIGNAL_BASE + interruption.number
    except StoppedError as error:
        say(console, f"{error}. To resume:\n  {command_of(module)}", "stopped: ")
        return errors.STOPPED
    too_many = max_errors is not None and summary["rows_with_errors"] > max_errors
    return errors.DONE_WITH_ERRORS if too_many or summary["unreadable"] else errors.DONE


def command_of(module: str) -> str:
    """This very command, without a token."""
    program = ["crossray"] if sys.argv[0].endswith("crossray") else ["python", "-m", module]
    words, hide = [], False
    for word in sys.argv[1:]:
        if not hide and word != "--token" and not word.startswith("--token="):
            words.append(word)
        hide = word == "--token"
    return shlex.join([*program, *words])
