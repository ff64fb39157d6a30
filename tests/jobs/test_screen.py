"""What a job prints reaches a terminal as text and never steers it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jobs.screen import OnlyProgress, say, show_progress


def printed(message: str, label: str = "") -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    say(console, message, label)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_file_name_that_clears_the_screen_is_printed_as_an_escape_sequence() -> None:
    assert printed("in/\x1b[2Jx\u202e.parquet: no Parquet", "cannot be read: ") == (
        "cannot be read: in/\\x1b[2Jx\\u202e.parquet: no Parquet\n"
    )


def test_line_breaks_brackets_and_other_scripts_stay() -> None:
    assert printed("[bold] 名前 é\n  crossray rerank", "stopped: ") == "stopped: [bold] 名前 é\n  crossray rerank\n"


def test_of_a_job_within_another_command_only_the_progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.screen.LOG_SECONDS", 0.0)
    shown = Console(file=io.StringIO(), width=80)
    console = OnlyProgress(shown)
    say(console, "a message of the job")
    with show_progress(console, total_rows=10, rows_done=0) as view:
        view.begin(1.0)
        view.advance(rows=4, pairs=40)
    assert isinstance(shown.file, io.StringIO)
    assert shown.file.getvalue().startswith("4 of 10 rows, ")
