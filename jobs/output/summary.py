"""`_summary.json`: what became of a job. It is written last, so where it is, the job is complete.

Rows, errors and tokens are added up from the parts' footers, so they are right after any number of attempts. Seconds
stand per attempt in `_attempts/`, since a killed attempt has no end to write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.output.accounting import with_idle
from jobs.output.attempts import past_attempts
from jobs.output.directory import OutputDirectory
from jobs.output.manifest import Manifest
from jobs.output.parts import counts_of
from jobs.records import Counts, InputFile, Unit
from jobs.storage import read_json

NAMED_FILES = 10
"""Files that are named where there may be many."""


def summarize(
    output: OutputDirectory, manifest: Manifest, damaged: Mapping[str, str], left_out: Sequence[InputFile]
) -> dict[str, Any]:
    """The summary of a finished job; `damaged` says why units have no part, by file.

    `left_out` are the files of INPUT that are no Parquet.
    """
    finished = output.finished()
    counts = counts_of(output, manifest, [unit for unit in manifest.units() if unit.name in finished])
    return compose(manifest, totals(manifest, counts), damaged, past_attempts(output), left_out)


def compose(
    manifest: Manifest,
    sums: Mapping[str, Any],
    damaged: Mapping[str, str],
    attempts: Sequence[Mapping[str, Any]],
    left_out: Sequence[InputFile],
) -> dict[str, Any]:
    """The summary of a job: `sums` are its `totals`, and `damaged` says why units have no part, by file."""
    return {
        **sums,
        "unreadable": unreadable_files(manifest) | dict(damaged),
        "left_out": {"files": len(left_out), "first": first_paths(left_out)},
        "cut_timestamps": cut_timestamps(manifest),
        **time_spent(attempts),
        "attempts": list(attempts),
        "fingerprint": manifest.fingerprint,
        "versions": manifest.versions,
    }


def cut_timestamps(manifest: Manifest) -> int:
    """How many timestamps of all files are written without their digits below a microsecond."""
    return sum(cut for file in manifest.files for _, cut in file.cut_timestamps)


def first_paths(files: Sequence[InputFile]) -> list[str]:
    """The paths of the first files of many."""
    return [file.path for file in files[:NAMED_FILES]]


def totals(manifest: Manifest, counts: Sequence[Counts]) -> dict[str, Any]:
    """The sums over all parts, from the counts of each; the same after any number of attempts."""
    total = sum(counts, Counts(rows_left_out=manifest.rows_left_out))
    return {
        **total.as_dict(),
        "rows_with_errors": sum(total.errors.values()),
        "rows_not_read": manifest.rows - total.rows - total.rows_left_out,
        "files": len(manifest.files),
        "parts": len(counts),
    }


def time_spent(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of all attempts: on the whole, of their replicas and in which stage; the speed while they scored, and the
    chunks that they did not have to score.

    What an earlier version did not record counts as 0.
    """
    scoring = sum(attempt["phases"].get(phase, 0.0) for attempt in attempts for phase in ("score", "quarantine"))
    scored = sum(attempt["pairs"] for attempt in attempts)
    return {
        "seconds": rounded_sum(attempt["seconds"] for attempt in attempts),
        "pairs_per_second": round(scored / scoring, 2) if scoring else 0.0,
        "chunks_reused": sum(attempt.get("chunks_reused", 0) for attempt in attempts),
        "replica_seconds": rounded_sum(attempt.get("replica_seconds", 0.0) for attempt in attempts),
        "stages": {
            name: rounded_sum(attempt["stages"].get(name, 0.0) for attempt in attempts) for name in with_idle({}, 0.0)
        },
    }


def rounded_sum(seconds: Iterable[float]) -> float:
    """The sum, rounded to milliseconds as the records are."""
    return round(sum(seconds), 3)


def unreadable_files(manifest: Manifest) -> dict[str, str]:
    """Why files could not be planned, by path."""
    return {file.file.path: file.error for file in manifest.files if file.error is not None}


def read_summary(output: OutputDirectory) -> dict[str, Any] | None:
    """The summary of a complete job; None when it is damaged."""
    try:
        summary = read_json(output.summary)
        Counts.from_dict(summary)
        time_spent(summary["attempts"])
        dict(summary["unreadable"]), int(summary["rows_with_errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(summary)


def by_file(damaged: Mapping[Unit, str]) -> dict[str, str]:
    """Why units have no part, by the path of their file."""
    return {unit.path: error for unit, error in damaged.items()}
