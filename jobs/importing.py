"""`crossray import`: makes a benchmark set of the files of a public benchmark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from jobs import errors
from jobs.endings import exit_code, resume_command
from jobs.errors import RefusedError, disk_failures_as_stops
from jobs.runtime.signals import signals_as_exceptions
from jobs.screen import say
from pipelines.errors import ConfigError
from pipelines.evaluation.formats.catalogue import FORMATS, import_set
from pipelines.evaluation.formats.reading import Asked
from pipelines.evaluation.formats.writing import FILES, LEFT_OUT

EXAMPLES = (
    "crossray import beir datasets/scifact sets/scifact",
    "crossray import nanobeir NanoBEIR-en sets/NanoSciFact --split NanoSciFact",
    "crossray import mkqa mkqa.jsonl.gz datasets/nq sets/mkqa-de --language de --run mkqa-de.run",
    "crossray import trec fbis/ ft/ sets/robust04 --queries topics.txt --qrels qrels.txt --run bm25.run",
)
DEPTH = 100
FILES_HELP = "\n\n".join(f"{name}: {kind.files}. {kind.measure}." for name, (kind, _) in FORMATS.items())


def command(
    name: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}; see above.")],
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Files and folders as the publisher lays them out.")
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the set that is written.")],
    split: Annotated[str | None, typer.Option(help="The split; by default the one that is measured.")] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="The language of the queries; of MKQA and CodeSearchNet several.")
    ] = None,
    part: Annotated[str | None, typer.Option(help="Of NSText2SQL: the `source` of the rows, such as spider.")] = None,
    queries: Annotated[Path | None, typer.Option(help="The file of the queries, where its name is another.")] = None,
    qrels: Annotated[Path | None, typer.Option(help="The file of the judgements, where its name is another.")] = None,
    document_language: Annotated[
        str | None, typer.Option(help="Of MKQA: the language of the documents, which answers are looked for in; en.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="The lists of a first stage, as a run of TREC.")] = None,
    top_k: Annotated[int, typer.Option(help="How many documents of the run each query gets.")] = DEPTH,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the set that DIR holds.")] = False,
) -> None:
    """Make a benchmark set of the files of a public benchmark, which lie on this machine."""

    def work() -> int:
        asked = Asked(split, tuple(language or ()), part, document_language, queries, qrels, run)
        with signals_as_exceptions(), disk_failures_as_stops(), new_folder(directory, sources, overwrite) as folder:
            if top_k < 1:
                raise ConfigError(f"--top-k is {top_k}; it is at least 1")
            meta, problems = import_set(name, sources, folder, asked, top_k)
        tell(Console(), directory, meta)
        if problems:
            told = f"{meta['left_out']:,} line(s) are left out; all are named in {directory / LEFT_OUT}, the first:\n"
            say(Console(), told + "\n".join(map(str, problems)), "careful: ", "yellow")
        return errors.DONE

    raise typer.Exit(exit_code(work, resume_command("jobs.importing")))


command.__doc__ = f"""{command.__doc__}

{FILES_HELP}

Lines that cannot be used are left out, counted and named. docs/evaluation.md says more.
Exit codes: 0 done, 2 usage, 3 refused (DIR holds something), 4 or 130/143 stopped (nothing is written).
"""


@contextmanager
def new_folder(directory: Path, sources: Sequence[Path], overwrite: bool) -> Iterator[Path]:
    """A folder beside DIR that takes its place when all went well, so that a killed import leaves no half set.

    Raises RefusedError where DIR holds something that may not be replaced, and ConfigError where it cannot be.
    """
    target = Path(os.path.abspath(directory))
    for parent in target.parents:
        if parent.exists() and not parent.is_dir():
            raise ConfigError(f"{parent} is a file, so there is no DIR {directory} in it; give another DIR")
    fresh, former = (target.with_name(f".{target.name}.{what}") for what in ("importing", "replaced"))
    clear_up(fresh, former, target)  # after an import that was killed
    check_free(target, overwrite)
    for source in sources:
        check_apart(target, directory, source)
    try:
        yield fresh
        if target.exists():
            target.rename(former)
        fresh.rename(target)
    finally:
        clear_up(fresh, former, target)


def clear_up(fresh: Path, former: Path, target: Path) -> None:
    """Removes what an import left, but for the former set where no other one took its place: that goes back."""
    if former.exists() and not target.exists():
        former.rename(target)
    for left in (fresh, former):
        shutil.rmtree(left, ignore_errors=True)


def check_apart(target: Path, directory: Path, source: Path) -> None:
    """Raises ConfigError where one of the two holds the other: a set in its SOURCE would be read as a part of it."""
    there, given = Path(os.path.realpath(target)), Path(os.path.realpath(source))
    if there == given or there in given.parents:
        raise ConfigError(f"DIR {directory} is, or holds, the SOURCE {source}; give another folder")
    if given in there.parents:
        raise ConfigError(f"DIR {directory} is in the SOURCE {source}, and would be read with it; give another folder")


def check_free(target: Path, overwrite: bool) -> None:
    """Raises RefusedError unless the folder is not there, is empty, or holds nothing but a set that may go."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise RefusedError(f"{target} is there and is no folder; give another DIR")
    there = os.listdir(target)
    others = [name for name in there if name not in FILES]
    if others:
        raise RefusedError(f"{target} holds {others[0]}, which no set has; give another DIR")
    if there and not overwrite:
        raise RefusedError(f"{target} holds a set already; give another DIR, or --overwrite")


def tell(console: Console, directory: Path, meta: Mapping[str, Any]) -> None:
    """Says what was written."""
    told = f"{meta['queries']:,} queries, {meta['documents']:,} documents, judged by {meta['judged_by']}"
    lists = f"{meta['lists']:,} lists of the first stage" if meta["lists"] else "no first stage"
    say(console, f"{directory}: {told}, {lists}; its measure is {meta['measure']}", "written: ", "green")
    for reason, count in meta["left_out_by_rule"].items():
        say(console, f"{count:,} {reason}", "not part of it: ", "dim")


if __name__ == "__main__":
    typer.run(command)
