"""The command line of the offline job: flags -> RerankSettings, outcome -> exit code.

python -m jobs.rerank INPUT OUTPUT [flags]      # the same as `crossray rerank`; through `ray job submit` as well
"""

from __future__ import annotations

import os
import shlex
from typing import Any

import typer
from rich.console import Console

from jobs import endings, errors
from jobs.flags import Flags, with_flags
from jobs.screen import say
from jobs.settings import RerankSettings
from pipelines.errors import ConfigError

FLAGS = Flags.of(RerankSettings)
EXAMPLES = (
    "crossray rerank 'logs/*.parquet' ranked/ --top-n 10",
    "crossray rerank log.parquet ranked/ --query-column q --id-field doc_id",
    "crossray rerank s3://logs/ s3://ranked/ --model BAAI/bge-reranker-v2-m3 --num-gpus 1",
)


@with_flags(FLAGS)
def command(**given: Any) -> None:
    """Rerank the candidate lists of INPUT into OUTPUT: one row out for every row in.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 too many rows with errors or unreadable files, 2 usage, 3 refused, 4 stopped (resumable),
    130/143 stopped by a signal (resumable); with --follow 0 when all files that were taken are done.
    """
    try:
        settings = FLAGS.settings(given)
    except ConfigError as error:
        say(Console(stderr=True), str(error), "error: ")
        raise typer.Exit(errors.USAGE) from None
    raise typer.Exit(exit_code(settings))


def exit_code(settings: RerankSettings) -> int:
    """Runs the job, says how it ended, and returns the code for it."""
    resume = endings.resume_command("jobs.rerank", without="--overwrite")
    return endings.exit_code(lambda: rerank(settings, resume), resume)


def rerank(settings: RerankSettings, resume: str) -> int:
    """Runs the job that is asked for, and returns the code of one that came to its end; raises what the job raises."""
    if settings.follow:  # read when ray is imported: a thread of the pool must not start a Ray anew while one ends
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    from jobs.driver.dry_run import dry_run
    from jobs.driver.resolution import JOB_ENVIRONMENT
    from jobs.driver.run import run  # ray: a second, spared to --help
    from jobs.follow.run import follow

    if settings.dry_run:
        dry_run(settings)
        return errors.DONE
    # In a submitted job the directory is a cache, and the paths are absolute.
    where = "" if JOB_ENVIRONMENT in os.environ else f"cd {shlex.quote(os.getcwd())} && "
    if settings.follow:
        follow(settings, command=where + resume)
        return errors.DONE
    return endings.code_of(run(settings, command=where + resume), settings.max_errors)


if __name__ == "__main__":
    typer.run(command)
