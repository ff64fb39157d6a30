"""The command line of `crossray inspect`: looks into an output directory and says how its job stands.

python -m jobs.inspection OUTPUT [flags]      # the same as `crossray inspect`; also while the job runs

`jobs.audit` gathers what there is to say; this file prints it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs import errors
from jobs.screen import count_rows, reuse_rows, say, time_rows
from jobs.storage import absolute
from pipelines.errors import CrossrayError

if TYPE_CHECKING:  # ray: a second, and not for --help
    from jobs.audit.facts import Driver, JobFacts
    from jobs.audit.integrity import Finding
    from jobs.audit.row_errors import RowError

FINDINGS = 1
"""Exit code where the output is not as its manifest says."""
EXAMPLES = (
    "crossray inspect ranked/",
    "crossray inspect ranked/ --errors 10 --verify",
    "crossray inspect s3://ranked/ --json | jq .state",
)
STYLES = {"complete": "green", "running": "cyan", "stopped": "yellow"}
"""By state."""


def command(
    output: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="The OUTPUT of a job, finished or not; a path or uri.")
    ],
    examples: Annotated[
        int, typer.Option("--errors", min=0, help="How many rows with errors are shown for each reason.")
    ] = 3,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all parts, and compare them with manifest and summary.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Say how a job stands, where its time went, and what is wrong with its rows; changes nothing.

    The job may be running.
    Exit codes: 0 fine, 1 --verify found something, 2 usage, such as a directory that is no job's output, 4 its store or
    disk is away.
    """
    from jobs.audit.facts import gather, look
    from jobs.audit.integrity import verify as find_faults
    from jobs.audit.row_errors import find_errors

    try:
        snapshot = look(absolute(output, "OUTPUT"))
        facts = gather(snapshot)
        rows = find_errors(snapshot, facts.counts["errors"], examples)
        findings = find_faults(snapshot) if verify else None
    except (CrossrayError, OSError) as error:
        say(Console(stderr=True), str(error), "error: ")
        raise typer.Exit(errors.STOPPED if is_outage(error) else errors.USAGE) from None
    if as_json:
        print(json.dumps(as_document(facts, rows, findings), indent=2))
    else:
        print_all(Console(), facts, rows, findings)
    raise typer.Exit(FINDINGS if findings else errors.DONE)


def is_outage(error: Exception) -> bool:
    """Whether a disk or store is away, which says nothing of the output. A file is gone where a job was begun anew."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | errors.AccessError)


def as_document(facts: JobFacts, rows: Sequence[RowError], findings: Sequence[Finding] | None) -> dict[str, Any]:
    """Everything that `print_all` prints, as one JSON object; `findings` is null where --verify was not given."""
    return facts.as_dict() | {
        "error_examples": [asdict(row) for row in rows],
        "findings": None if findings is None else [asdict(one) for one in findings],
    }


def print_all(console: Console, facts: JobFacts, rows: Sequence[RowError], findings: Sequence[Finding] | None) -> None:
    """Prints how the job stands, its counts and times, and what is wrong with its files and rows."""
    say(console, state_line(facts), f"{facts.state}: ", STYLES[facts.state])
    if facts.following is not None:
        say(console, following_line(facts.following, facts.driver), "following: ", "cyan")
        for path, why in facts.following["left_alone"].items():
            say(console, f"{path}: {why}", "left alone: ", "yellow")
    console.print(counts_table(facts))
    console.print(attempts_table(facts.attempts))
    for path, error in facts.unreadable.items():
        say(console, f"{path}: {error}", "could not be read: ")
    if facts.left_out["files"]:
        say(console, f"{facts.left_out['files']:,} file(s), as {facts.left_out['first'][0]}", "left out: ", "yellow")
    if facts.parts_not_read:
        say(console, f"{facts.parts_not_read} part(s) are damaged or not of this job; --verify says which", "careful: ")
    for reason, of_reason in groupby(sorted(rows, key=lambda row: row.reason), key=lambda row: row.reason):
        say(console, f"{facts.counts['errors'][reason]:,} row(s), such as", f"{reason}: ", "yellow")
        for row in of_reason:
            say(console, row_line(row), "  ")
    for one in findings or ():
        say(console, f"{one.problem}; {one.way_out}", f"{one.path}: ")
    if findings == []:
        say(console, f"{facts.units_done} part(s), all as manifest and summary say", "verified: ", "green")


def state_line(facts: JobFacts) -> str:
    """The line that says who works on the job now, or which command resumes it."""
    driver = facts.driver
    heard = driver and f"process {driver.pid} on {driver.host}, last heartbeat {driver.heartbeat_ago:.0f} s ago"
    if facts.state == "complete":
        return facts.output
    if facts.state == "running":
        phase = next(reversed(facts.attempts[-1]["phases"]), None) if facts.attempts else None
        return f"{facts.output}, by {heard}" + (f", phase {phase}" if phase else "")
    ended = f" Its driver died ({heard})." if heard else ""
    return f"{facts.output}.{ended} To go on:\n  {facts.resume or 'give the same command again'}"


def following_line(following: Mapping[str, Any], driver: Driver | None) -> str:
    """The line that says what a job with --follow has done and how often it looks for new files."""
    rounds = f"{following['rounds']:,} round(s)"
    if following["rounds"]:
        rounds += f", the last until {following['last_round']}, {following['lag_seconds']:,.1f} s after its first file "
        rounds += f"came (longest {following['longest_lag_seconds']:,.1f} s)"
    waiting = f"{following['files_waiting']:,} new file(s) seen"
    by = f", process {driver.pid} on {driver.host}" if driver else ""
    return f"{following['input']}, a look every {following['poll_seconds']:g} s{by}; {rounds}; {waiting}"


def counts_table(facts: JobFacts) -> Table:
    """The table that says how much is done and where the time went."""
    table = Table(show_header=False)
    table.add_row("begun", facts.created)
    table.add_row("fingerprint", facts.fingerprint["hash"])
    table.add_row("files", f"{facts.files:,}")
    table.add_row("units done", share(facts.units_done, facts.units))
    table.add_row("rows done", share(facts.counts["rows"], facts.rows_planned - facts.counts["rows_left_out"]))
    for name, value in count_rows(facts.counts):
        table.add_row(name, value)
    if facts.time["pairs_per_second"]:
        table.add_row("pairs/s while scoring", f"{facts.time['pairs_per_second']:,.1f}")
    for name, value in reuse_rows(facts.attempts):
        table.add_row(name, value)
    for name, value in time_rows(facts.time["stages"], facts.time["replica_seconds"]):
        table.add_row(name, value)
    return table


def share(done: int, of_all: int) -> str:
    """A count with its share, such as `3 of 4 (75%)`."""
    return f"{done:,} of {of_all:,}" + (f" ({done / of_all:.0%})" if of_all else "")


def attempts_table(attempts: Sequence[Mapping[str, Any]]) -> Table:
    """The table with a line for each run of the driver."""
    total = sum(one["seconds"] for one in attempts)
    table = Table(title=Text(f"{len(attempts)} attempt(s), {total:,.1f} seconds"), title_justify="left")
    table.add_column("started", no_wrap=True)
    table.add_column("seconds by phase")
    for name in ("units", "rows", "pairs", "replicas"):
        table.add_column(name, justify="right")
    for one in attempts:
        phases = ", ".join(f"{phase} {seconds:,.1f}" for phase, seconds in one["phases"].items())
        numbers = (f"{one[name]:,}" for name in ("units", "rows", "pairs"))
        table.add_row(one["started"], phases, *numbers, str(one.get("replicas", "")))
    return table


def row_line(row: RowError) -> str:
    """The line of a row with an error: the part and file that it is in, its query, and the error."""
    query = f"query {on_one_line(row.query)!r}" if row.query else "no query"
    which = query if row.query_id is None else f"query id {on_one_line(row.query_id)}"
    first, end = row.file_rows
    place = f"row {row.row} of {row.part} (rows {first} to {end - 1} of {row.file})"
    return f"{place}, {which}: {on_one_line(row.message.removeprefix(f'{row.reason}: '))}"


def on_one_line(text: str) -> str:
    """The text on one line, without characters that would steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


if __name__ == "__main__":
    typer.run(command)
