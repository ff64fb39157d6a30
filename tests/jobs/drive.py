"""`python -m tests.jobs.drive SCORER INPUT OUTPUT [flags]`: the command line with a scorer of `stubs`, to be killed.

With TINY_PIECES in its environment it groups pairs, and joins with a corpus, in pieces of so many bytes. LEASE_PACE has
the seconds between its lease's beats, and those until the lease is abandoned. With ELSEWHERE it is as on another
machine: it sees neither the processes of this one nor the locks that they hold.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

import jobs.driver.run
import jobs.follow.run
import jobs.joins.corpus.disk_join
import jobs.joins.corpus.survey
import jobs.joins.groups.stage
import jobs.output.holder
import jobs.output.lease
from jobs.rerank import command
from tests.jobs import stubs

ROOT = Path(__file__).parents[2]


def start(scorer: str, *arguments: Path | str, **environment: str) -> subprocess.Popen[str]:
    """A driver in a process of its own, with more in its environment than this one has."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.drive", scorer, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "10000"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def use_pace(heartbeat_seconds: float, stale_seconds: float) -> None:
    """Makes a lease faster than users have it."""
    pace = jobs.output.lease.Pace(heartbeat_seconds, stale_seconds)
    jobs.driver.run.hold_lease = functools.partial(jobs.output.lease.hold_lease, pace=pace)


def be_elsewhere() -> None:
    """Makes this process one of another machine, as far as leases can tell."""
    locked, locks = jobs.output.lease.locked, jobs.output.lease.Locked

    @contextmanager
    def locked_there(directory: str) -> Iterator[jobs.output.lease.Locked]:
        with locked(directory) as lock:
            yield locks.NOBODY if lock is locks.BY_ANOTHER else lock

    jobs.output.lease.locked = locked_there
    jobs.output.holder.kernel = lambda: (f"boot of process {os.getpid()}", "")


if __name__ == "__main__":
    tiny = int(os.environ.get("TINY_PIECES", "0"))
    if tiny:
        jobs.joins.groups.stage.PIECE_BYTES = jobs.joins.groups.stage.BUCKET_BYTES = tiny
        jobs.joins.corpus.survey.SEGMENT_BYTES = jobs.joins.corpus.disk_join.BUCKET_BYTES = (
            jobs.joins.corpus.disk_join.BATCH_BYTES
        ) = tiny
    if "LEASE_PACE" in os.environ:
        use_pace(*map(float, os.environ["LEASE_PACE"].split()))
    if "ELSEWHERE" in os.environ:
        be_elsewhere()
    scorer_class = getattr(stubs, sys.argv.pop(1))
    jobs.driver.run.run = functools.partial(jobs.driver.run.run, load_scorer=scorer_class)
    jobs.follow.run.follow = functools.partial(jobs.follow.run.follow, load_scorer=scorer_class)
    typer.run(command)
