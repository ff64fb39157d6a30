"""`crossray scores`: the command line that looks after a score store."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from jobs import errors, storage
from jobs.endings import exit_code, resume_command
from jobs.errors import disk_failures_as_stops
from jobs.flags import epilog
from jobs.score_store.compaction import compact, stores_in
from jobs.screen import say

EXAMPLES = ("crossray scores compact scores/", "crossray scores compact s3://bucket/scores/")
app = typer.Typer(no_args_is_help=True, help="Look after the scores that `rerank --scores PATH` keeps.")


@app.callback()
def scores() -> None:
    """Look after the scores that `rerank --scores PATH` keeps."""


@app.command("compact", epilog=epilog(EXAMPLES))
def command(
    path: Annotated[str, typer.Argument(metavar="PATH", help="What --scores of `rerank` was; a path or uri.")],
) -> None:
    """Join small files, so that the next job loads them sooner; jobs may run meanwhile.

    Exit codes: 0 done, 1 files are damaged or foreign (they stay), 2 usage, 4 the store or its disk is away.
    """

    def work() -> int:
        console = Console()
        unusable = False
        with disk_failures_as_stops():
            for store in stores_in(storage.absolute(path, "PATH")):
                done = compact(store)
                model = ", ".join(f"{name} {value}" for name, value in store.model.items() if name != "hash")
                say(console, f"{done.files_before:,} file(s) -> {done.files_after:,} ({model})", f"{store.directory}: ")
                for file, why in done.unusable.items():
                    say(console, f"{file} ({why}); remove it", "skipped: ", "yellow")
                unusable = unusable or bool(done.unusable)
        return errors.DONE_WITH_ERRORS if unusable else errors.DONE

    raise typer.Exit(exit_code(work, resume_command("jobs.cli")))
