"""The command line of mining: flags -> MineSettings, outcome -> exit code.

python -m jobs.mine INPUT OUTPUT --model M [flags]      # the same as `crossray mine`; through `ray job submit` as well
"""

from __future__ import annotations

from typing import Any

import typer

from jobs.endings import code_of, exit_code, resume_command
from jobs.flags import Flags, with_flags
from jobs.settings import OF_THE_CLUSTER, OF_THE_MODEL, OF_THE_SCORES, RerankSettings
from jobs.training.mine.settings import MineSettings

JOB = (
    Flags.of(RerankSettings)
    .only("input", "output", "overwrite", "max_errors", "model", *OF_THE_MODEL, *OF_THE_SCORES, *OF_THE_CLUSTER)
    .but(
        input={"help": "The sources: a Parquet file, a directory, or a glob in quotes."},
        output={"help": "The directory for the lists; what it holds of this mining stays."},
        overwrite={"name": "--overwrite", "help": "Throw away what OUTPUT holds of another mining."},
        max_errors={"help": "The exit code is 1 if more rows than this are bad."},
        model={"help": "The reranker that judges: `embedded`, a directory, a uri or a hub name.", "is_required": True},
        scores_memory={"help": "Each node loads so much of --scores."},
    )
)
EXAMPLES = (
    "crossray mine clicks.parquet mined/ --model embedded",
    "crossray mine clicks.parquet mined/ --model BAAI/bge-reranker-v2-m3 --corpus articles.parquet",
    "crossray mine sources/ mined/ --model my-reranker/model --dense my-encoder/ --ranks 5:50",
)
MINING = Flags.of(MineSettings)


@with_flags(JOB, MINING)
def command(**given: Any) -> None:
    """Find hard negatives for the rows (query, positive) of INPUT; each file is a source with passages of its own.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 too many bad rows or unreadable files, 2 usage, 3 refused, 4 stopped (resumable), 130/143
    stopped by a signal (resumable).
    """

    def work() -> int:
        from jobs.training.mine.run import mine  # ray: a second or two, spared to --help

        return code_of(mine(MINING.settings(given, job=JOB.settings(given))), given["max_errors"])

    raise typer.Exit(exit_code(work, resume_command("jobs.mine")))


if __name__ == "__main__":
    typer.run(command)
