"""A stopped job names the command that resumes it: the one that was given, without its token and what begins anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.endings import resume_command
from tests.jobs.tables import assert_summary_adds_up, lists_table, read_json, write_input


@pytest.mark.parametrize(
    ("argv", "resume"),
    [
        (["/x/jobs/rerank.py", "in", "my out"], "python -m jobs.rerank in 'my out'"),
        (["/x/jobs/rerank.py", "in", "out", "--overwrite", "--top-n", "3"], "python -m jobs.rerank in out --top-n 3"),
        (["/x/jobs/rerank.py", "in", "out", "--token", "secret"], "python -m jobs.rerank in out"),
        (["/x/jobs/rerank.py", "--token=secret", "in", "out"], "python -m jobs.rerank in out"),
        (["/x/jobs/rerank.py", "in", "cli.py"], "python -m jobs.rerank in cli.py"),
        (["/x/jobs/cli.py", "rerank", "in", "out"], "python -m jobs.cli rerank in out"),
        (["/x/bin/crossray", "rerank", "in", "rerank"], "crossray rerank in rerank"),
    ],
)
def test_the_command_to_resume(argv: list[str], resume: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert resume_command("jobs.rerank", without="--overwrite") == resume


def test_a_flag_that_begins_nothing_anew_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """`crossray label --overwrite` replaces a column of the input: without it the same command would be refused."""
    monkeypatch.setattr(sys, "argv", ["/x/bin/crossray", "label", "in", "out", "--overwrite", "--token", "secret"])
    assert resume_command("jobs.label") == "crossray label in out --overwrite"


@pytest.mark.slow
def test_a_job_of_the_command_line_as_a_module_resumes_by_the_command_it_names(
    tmp_path: Path, bert_directory: Path
) -> None:
    source, output = write_input(tmp_path / "in", a=lists_table(6)), tmp_path / "out"
    flags = ["--model", str(bert_directory), "--replicas", "1"]
    command = [sys.executable, "-m", "jobs.cli", "rerank", str(source), str(output), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (output / "_manifest.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGINT
    resume = said.partition("To resume:\n")[2].splitlines()[0].strip()
    assert resume.startswith("python -m jobs.cli rerank ")
    with_python = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(resume, shell=True, check=True, env=with_python, timeout=250)
    assert_summary_adds_up(output, read_json(output / "_summary.json"), 6)
