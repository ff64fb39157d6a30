"""The command line of comparisons: flags -> CompareSettings, outcome -> exit code.

python -m jobs.compare RUN_A RUN_B [flags]      # the same as `crossray compare`
"""

from __future__ import annotations

from typing import Any

import typer

from jobs import errors
from jobs.agreement.settings import CompareSettings
from jobs.endings import exit_code, resume_command
from jobs.errors import disk_failures_as_stops
from jobs.flags import Flags, with_flags
from jobs.runtime.signals import signals_as_exceptions

FLAGS = Flags.of(CompareSettings)
EXAMPLES = (
    "crossray compare ranked-today/ ranked-new-model/",
    "crossray compare ranked-today/ ranked-new-model/ --output compared/     # with a report to look at",
    "crossray compare monday/ tuesday/ --key query_id --sample 10000",
)


@with_flags(FLAGS)
def command(**given: Any) -> None:
    """Say what another model or setting changes: two runs of `rerank` over the same rows, without any labels.

    Exit codes: 0 done, 2 usage, such as runs of different rows, 3 refused, 4 a part cannot be read, or a store or disk
    is away, 130/143 stopped by a signal.
    """

    def work() -> int:
        from jobs.agreement.run import compare  # pyarrow: a second, spared to --help

        with signals_as_exceptions(), disk_failures_as_stops():
            compare(FLAGS.settings(given))
        return errors.DONE

    raise typer.Exit(exit_code(work, resume_command("jobs.compare")))


if __name__ == "__main__":
    typer.run(command)
