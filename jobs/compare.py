"""The command line of comparisons: flags -> CompareSettings, outcome -> exit code.

python -m jobs.compare RUN_A RUN_B [flags]      # the same as `crossray compare`
"""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console

from jobs import errors
from jobs.agreement.settings import CompareSettings
from jobs.errors import RefusedError
from jobs.flags import Flags, with_flags
from jobs.screen import say
from pipelines.errors import ConfigError, CrossrayError

FLAGS = Flags.of(CompareSettings)
EXAMPLES = (
    "crossray compare ranked-today/ ranked-new-model/",
    "crossray compare ranked-today/ ranked-new-model/ --output compared/     # with a report to look at",
    "crossray compare monday/ tuesday/ --key query_id --sample 10000",
)


@with_flags(FLAGS)
def command(**given: Any) -> None:
    """Say what another model or setting changes: two runs of `rerank` over the same rows, without any labels.

    Exit codes: 0 done, 2 usage, such as runs of different rows, 4 a part cannot be read, or a store or disk is away.
    """
    from jobs.agreement.run import compare  # pyarrow: a second, spared to --help

    try:
        compare(FLAGS.settings(given))
    except (CrossrayError, OSError) as error:
        say(Console(stderr=True), str(error), "error: ")
        raise typer.Exit(errors.USAGE if isinstance(error, ConfigError | RefusedError) else errors.STOPPED) from None


if __name__ == "__main__":
    typer.run(command)
