"""The command line of labelling: flags -> LabelSettings, outcome -> exit code.

python -m jobs.label INPUT OUTPUT --teacher T [flags]      # the same as `crossray label`; through `ray job submit` too
"""

from __future__ import annotations

from typing import Any

import typer

from jobs.endings import code_of, exit_code, resume_command
from jobs.flags import Flags, with_flags
from jobs.settings import OF_THE_CLUSTER, OF_THE_MODEL, OF_THE_SCORES, RerankSettings
from jobs.training.label.settings import LabelSettings

OF_THE_COLUMNS = ("query_column", "documents_column", "text_field")
EXAMPLES = (
    "crossray label mined/ labelled/ --teacher reranker:BAAI/bge-reranker-v2-m3 --num-gpus 1",
    "crossray label mined/ labelled/ --teacher bm25 --column bm25",
    "crossray label mined/ labelled/ --teacher fusion:bm25,dense:my-encoder/",
)
LABELLING = Flags.of(LabelSettings)
JOB = (
    Flags.of(RerankSettings)
    .only("input", "output", "overwrite", "max_errors", *OF_THE_COLUMNS, *OF_THE_MODEL, *OF_THE_SCORES, *OF_THE_CLUSTER)
    .but(
        overwrite={
            "name": "--overwrite",
            "help": "Replace what is in the way: a column of that name, or what OUTPUT holds of another job.",
        },
        max_errors={"help": "The exit code is 1 if more rows than this have no scores."},
        scores={"help": "The directory or uri of a reranker's scores that later runs reuse."},
        scores_memory={"help": "Each node loads so much of --scores."},
    )
)


@with_flags(LABELLING, JOB)
def command(**given: Any) -> None:
    """Give the lists of INPUT a teacher's scores, one for each document: what `crossray train` distils from.

    The same command again resumes what was stopped, or says that all is done.
    Exit codes: 0 done, 1 too many rows without scores or unreadable files, 2 usage, 3 refused, 4 stopped (resumable),
    130/143 stopped by a signal (resumable).
    """

    def work() -> int:
        from jobs.training.label.run import label  # ray: a second or two, spared to --help

        return code_of(label(LABELLING.settings(given, job=JOB.settings(given))), given["max_errors"])

    raise typer.Exit(exit_code(work, resume_command("jobs.label")))


if __name__ == "__main__":
    typer.run(command)
