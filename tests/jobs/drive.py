"""`python -m tests.jobs.drive SCORER INPUT OUTPUT [flags]`: the command line with a scorer of `stubs`, to be killed.

With TINY_PIECES in its environment it groups pairs, and joins with a corpus, in pieces of so many bytes.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import typer

import jobs.driver.run
import jobs.follow.run
import jobs.joins.corpus.disk_join
import jobs.joins.corpus.survey
import jobs.joins.groups.stage
from jobs.rerank import command
from tests.jobs import stubs

ROOT = Path(__file__).parents[2]


def start(scorer: str, *arguments: Path | str) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.drive", scorer, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "10000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


if __name__ == "__main__":
    tiny = int(os.environ.get("TINY_PIECES", "0"))
    if tiny:
        jobs.joins.groups.stage.PIECE_BYTES = jobs.joins.groups.stage.BUCKET_BYTES = tiny
        jobs.joins.corpus.survey.SEGMENT_BYTES = jobs.joins.corpus.disk_join.BUCKET_BYTES = (
            jobs.joins.corpus.disk_join.BATCH_BYTES
        ) = tiny
    scorer_class = getattr(stubs, sys.argv.pop(1))
    jobs.driver.run.run = functools.partial(jobs.driver.run.run, load_scorer=scorer_class)
    jobs.follow.run.follow = functools.partial(jobs.follow.run.follow, load_scorer=scorer_class)
    typer.run(command)
