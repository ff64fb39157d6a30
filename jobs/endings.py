"""How a command that can be resumed ends: what it says of an error, the command that resumes it, and its exit code."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from rich.console import Console

from jobs import errors
from jobs.errors import RefusedError, StoppedError
from jobs.runtime.signals import InterruptedBySignal
from jobs.screen import say
from pipelines.errors import ConfigError, ModelError


def exit_code(work: Callable[[], int], resume: str) -> int:
    """Does the work and returns its exit code; prints an error that ended it, and `resume` where that command helps."""
    console = Console(stderr=True)
    try:
        return work()
    except (ConfigError, ModelError) as error:
        say(console, str(error), "error: ")
        return errors.USAGE
    except RefusedError as error:
        say(console, str(error), "refused: ")
        return errors.REFUSED
    except InterruptedBySignal as interruption:
        say(console, f"{interruption}; what is finished stays. To resume:\n  {resume}", "stopped by ")
        return errors.SIGNAL_BASE + interruption.number
    except StoppedError as error:
        say(console, f"{error}. To resume:\n  {resume}", "stopped: ")
        return errors.STOPPED
    except Exception:  # not Python's own exit code, 1: it would say that all rows are there
        say(console, traceback.format_exc())
        say(console, f"this is a fault in Crossray; what is finished stays. To resume:\n  {resume}", "stopped: ")
        return errors.STOPPED


def code_of(summary: Mapping[str, Any], max_errors: int | None) -> int:
    """The exit code of a job that came to its end."""
    too_many = max_errors is not None and summary["rows_with_errors"] > max_errors
    return errors.DONE_WITH_ERRORS if too_many or summary["unreadable"] else errors.DONE


def resume_command(module: str, without: str | None = None) -> str:
    """The command that this process was started with, as one that resumes: without its token, which is a secret.

    `module` is what `python -m` runs for this command alone; `without` is a flag that would begin anew.
    """
    program = ["python", "-m", "jobs.cli" if PurePath(sys.argv[0]).name == "cli.py" else module]
    if sys.argv[0].endswith("crossray"):
        program = ["crossray"]
    words, is_secret = [], False
    for word in sys.argv[1:]:
        if not is_secret and word not in ("--token", without) and not word.startswith("--token="):
            words.append(word)
        is_secret = word == "--token"
    return shlex.join([*program, *words])
