"""`crossray import`: what it prints, its exit codes, and what it leaves on the disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.runtime.signals import InterruptedBySignal
from pipelines.evaluation.formats.catalogue import FORMATS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dataset of BEIR's with a judgement that cannot be used."""
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "A", "text": "b"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "what"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td9\t1\n")
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["import", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})


def test_a_set_is_written_and_what_is_left_out_is_named(source: Path, tmp_path: Path) -> None:
    done = run("beir", source, tmp_path / "sets" / "scifact")
    assert done.exit_code == 0, done.output
    assert "1 queries, 1 documents, judged by qrels, no first stage; its measure is nDCG@10" in done.output
    assert f"1 line(s) are left out; all are named in {tmp_path}/sets/scifact/left-out.txt" in done.output
    assert f"{source}/qrels/test.tsv, line 3: there is no document 'd9'" in done.output
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["scifact"]


def test_what_is_there_is_not_replaced_unless_that_is_asked_for(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    assert run("beir", source, target).exit_code == 0  # an empty folder
    again = run("beir", source, target)
    assert again.exit_code == 3
    assert "holds a set already; give another DIR, or --overwrite" in again.output
    (source / "queries.jsonl").write_text('{"_id": "q1", "text": "changed"}\n')
    assert run("beir", source, target, "--overwrite").exit_code == 0
    assert json.loads((target / "queries.jsonl").read_text())["text"] == "changed"
    (target / "notes.txt").write_text("mine")
    refused = run("beir", source, target, "--overwrite")
    assert refused.exit_code == 3
    assert "holds notes.txt, which no set has" in refused.output
    assert (target / "notes.txt").read_text() == "mine"


def test_a_set_is_not_written_into_what_it_is_made_of(tmp_path: Path) -> None:
    """Its queries would be read as documents."""
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "docs.jsonl").write_text('{"id": "d", "text": "a"}\n')
    (folder / "qrels").write_text("".join(f"{i} 0 d 1\n" for i in range(500)))
    (folder / "topics").write_text("".join(f"{i}\tquestion number {i}\n" for i in range(500)))
    named = ("--queries", folder / "topics", "--qrels", folder / "qrels")
    (tmp_path / "link").symlink_to(folder)
    for directory in (folder / "sets" / "one", tmp_path / "link" / "one"):
        refused = run("trec", folder, directory, *named)
        assert refused.exit_code == 2
        assert "is in the SOURCE" in refused.output
    assert run("trec", folder, tmp_path / "one", *named).exit_code == 0
    assert (tmp_path / "one" / "corpus.jsonl").read_text() == '{"id": "d", "text": "a"}\n'
    assert not (tmp_path / "one" / "left-out.txt").exists()  # its queries and judgements are known to be no documents


def test_an_import_that_fails_leaves_the_set_that_was_there(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    assert run("beir", source, target).exit_code == 0
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    (source / "corpus.jsonl").unlink()
    failed = run("beir", source, target, "--overwrite")
    assert failed.exit_code == 2
    assert f"error: there is no corpus.jsonl in {source}" in failed.output
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scifact", "set"]


def test_a_killed_import_leaves_no_half_set_and_the_next_one_clears_up(source: Path, tmp_path: Path) -> None:
    """It waits for a corpus that never ends."""
    program = (
        "import time, pipelines.evaluation.formats.reading as r, sys\n"
        "from jobs.cli import app\n"
        "lines = r.Source.lines\n"
        "def slow(self, path, *more, **named):\n"
        "    yield from lines(self, path, *more, **named)\n"
        "    if path.name == 'corpus.jsonl':\n"
        "        print('there', flush=True)\n"
        "        while True: time.sleep(0.1)\n"
        "r.Source.lines = slow\n"
        "app(sys.argv[1:])\n"
    )
    arguments = ["import", "beir", str(source), str(tmp_path / "set")]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.importing", "scifact"]
    assert run("beir", source, tmp_path / "set").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scifact", "set"]


def test_a_signal_between_both_renames_leaves_the_set_that_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "set"
    assert run("beir", source, target).exit_code == 0
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    rename = Path.rename

    def stopped(path: Path, to: Path) -> Path:
        if path.name == ".set.importing":
            raise InterruptedBySignal(signal.SIGTERM)
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", stopped)
    assert run("beir", source, target, "--overwrite").exit_code == 143
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scifact", "set"]


def test_a_set_that_a_kill_left_between_both_renames_is_put_back(source: Path, tmp_path: Path) -> None:
    """Also where the next import fails or is refused."""
    target = tmp_path / "set"
    assert run("beir", source, target).exit_code == 0
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    target.rename(tmp_path / ".set.replaced")
    refused = run("beir", source, target)
    assert refused.exit_code == 3
    assert "holds a set already" in refused.output
    target.rename(tmp_path / ".set.replaced")
    (source / "corpus.jsonl").unlink()
    assert run("beir", source, target, "--overwrite").exit_code == 2
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scifact", "set"]


def test_a_run_of_other_queries_is_refused_with_the_ids_of_both(source: Path, tmp_path: Path) -> None:
    (tmp_path / "bm25.run").write_text("scifact-q1 Q0 d1 1 9 bm25\n")
    done = run("beir", source, tmp_path / "set", "--run", tmp_path / "bm25.run")
    assert done.exit_code == 2
    told = " ".join(done.output.split())
    assert "its queries have ids such as 'scifact-q1', and those of the set such as 'q1'" in told
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("bier", "SOURCE", "DIR"), 2, "FORMAT is 'bier'; it is one of beir, nanobeir, mkqa"),
        (("beir", "nowhere", "DIR"), 2, "nowhere is not there; give files that are on this machine"),
        (("beir", "SOURCE", "SOURCE"), 3, "holds qrels, which no set has"),
        (("beir", "SOURCE/qrels", "SOURCE/corpus.jsonl"), 3, "is there and is no folder"),
        (("beir", "SOURCE", "SOURCE/corpus.jsonl/DIR"), 2, "corpus.jsonl is a file"),
        (("beir", "SOURCE", "DIR", "--top-k", "0"), 2, "--top-k is 0"),
        (("beir", "SOURCE", "DIR", "--part", "x"), 2, "beir does not take --part"),
    ],
)
def test_usage_errors(source: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    places = {"SOURCE": str(source), "DIR": str(tmp_path / "set")}
    done = run(*(word.replace("SOURCE", places["SOURCE"]).replace("DIR", places["DIR"]) for word in arguments))
    assert (done.exit_code, told in done.output) == (code, True), done.output
    assert not (tmp_path / "set").exists()


def test_the_help_lists_the_formats_and_where_their_files_come_from() -> None:
    shown = " ".join(run("--help").output.split())
    for name, (kind, _) in FORMATS.items():
        assert f"{name}: {kind.files.partition(' ')[0]}" in shown
        assert kind.measure in shown
