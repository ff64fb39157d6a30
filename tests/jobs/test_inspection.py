"""What `crossray inspect` says of output directories, finished, stopped, running and damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import jobs.audit.integrity
from jobs.audit.facts import Snapshot, State, gather, look
from jobs.audit.integrity import Finding, verify
from jobs.audit.row_errors import find_errors
from jobs.cli import app
from jobs.driver.run import run
from jobs.output.lease import hold_lease
from jobs.output.parts import METADATA_KEY
from jobs.settings import RerankSettings
from jobs.storage import read_parquet
from jobs.table.columns import ColumnMapping
from tests.checkpoints import words
from tests.jobs import drive
from tests.jobs.conftest import RunJob
from tests.jobs.driver.test_states import StopAfter, contents
from tests.jobs.stubs import RecordingScorer
from tests.jobs.tables import lists_table, parts, read_json, wide_table, write_input
from tests.jobs.test_rerank import damage_middle
from tests.jobs.workers.test_death import wait_until
from tests.stores import Bucket

HOLD = """
import sys, time
from jobs.output.lease import hold_lease
from jobs.storage import read_parquet
with hold_lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def finished(tmp_path: Path, source: Path, run_job: RunJob, without_ray: None) -> Path:
    """The output of a finished job over `source`."""
    run_job(source, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def stopped(tmp_path: Path, source: Path, settings_of: Callable[..., RerankSettings], without_ray: None) -> Path:
    """The output of a job that was aborted after two of five units."""
    with pytest.raises(KeyboardInterrupt):
        run(settings_of(source, tmp_path / "out"), StopAfter(2), command="crossray rerank in out")
    return tmp_path / "out"


def inspect(output: Path | str, *flags: str) -> Any:
    """`crossray inspect`."""
    return CliRunner().invoke(app, ["inspect", str(output), *flags], env={"COLUMNS": "400", "TERM": "dumb"})


def cells(text: str) -> dict[str, str]:
    """The lines of the table of counts."""
    lines = [line.strip("│ ").split("│") for line in text.splitlines() if line.count("│") == 3]
    return {line[0].strip(): line[1].strip() for line in lines}


def findings(output: Path) -> list[Finding]:
    return verify(look(str(output)))


def rewrite(part: Path, table: pa.Table | None = None, **changes: Any) -> None:
    """The part with other rows, or with other counts in its footer."""
    table = table or pq.read_table(part)
    footer = json.loads(pq.read_metadata(part).metadata[METADATA_KEY]) | changes
    metadata = table.schema.metadata | {METADATA_KEY: json.dumps(footer).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), part)


def test_a_complete_job(finished: Path) -> None:
    before = contents(finished)
    result = inspect(finished, "--verify")
    summary = read_json(finished / "_summary.json")
    assert result.exit_code == 0
    assert result.output.startswith(f"complete: {finished}\n")
    table = cells(result.output)
    assert table["units done"] == "5 of 5 (100%)"
    assert table["rows done"] == "105 of 105 (100%)"
    assert table["pairs"] == f"{summary['pairs']:,}"
    assert table["rows with errors"] == "0"
    assert {"forward", "idle", "beside that"} < table.keys()
    assert result.output.endswith("verified: 5 part(s), all as manifest and summary say\n")
    assert contents(finished) == before


def test_the_module_is_the_same_command(finished: Path) -> None:
    command = [sys.executable, "-m", "jobs.inspection", str(finished), "--json"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=drive.ROOT).stdout
    assert json.loads(told) == json.loads(inspect(finished, "--json").stdout)


def test_json_says_what_the_summary_says(finished: Path) -> None:
    document = json.loads(inspect(finished, "--json").stdout)
    summary = read_json(finished / "_summary.json")
    assert {name: document[name] for name in summary} == summary
    assert (document["state"], document["units"], document["units_done"]) == ("complete", 5, 5)
    assert (document["error_examples"], document["findings"]) == ([], None)
    assert json.loads(inspect(finished, "--json", "--verify").stdout)["findings"] == []


def test_an_aborted_job_says_how_it_goes_on(stopped: Path) -> None:
    result = inspect(stopped, "--verify")
    assert result.exit_code == 1
    assert result.output.startswith(f"stopped: {stopped}. To go on:\n  crossray rerank in out\n")
    assert f"{stopped}: is not complete: 2 of 5 units have their part; run the same command again\n" in result.output
    table = cells(result.output)
    assert (table["units done"], table["rows done"]) == ("2 of 5 (40%)", "50 of 105 (48%)")
    assert table["pairs"] == "150"
    assert inspect(stopped).exit_code == 0


def test_a_job_whose_driver_was_killed_names_it(stopped: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", HOLD, str(stopped)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    with driver:
        assert driver.stdout.readline() == "held\n"
        running = look(str(stopped))
        driver.kill()
    assert running.state is State.RUNNING
    assert running.driver is not None
    assert running.driver.pid == driver.pid
    first, *_ = inspect(stopped).output.splitlines()
    assert first.startswith(f"stopped: {stopped}. Its driver died (process {driver.pid} on ")


@pytest.mark.slow
def test_a_running_job_is_seen_from_outside_and_not_disturbed(
    tmp_path: Path, source: Path, cluster: str, bert_directory: Path
) -> None:
    output = tmp_path / "out"
    flags = ["--model", str(bert_directory), "--replicas", "1", "--address", cluster]
    with drive.start("SlowScorer", source, output, *flags) as job:
        wait_until(lambda: len(parts(output)) >= 2, job)
        lease = (output / "_lease.json").read_text()
        result = inspect(output, "--verify")
        assert json.loads(lease)["id"] == read_json(output / "_lease.json")["id"]
        told, _ = job.communicate(timeout=120)
    assert job.returncode == 0, told
    assert result.exit_code == 1
    assert result.output.startswith(f"running: {output}, by process {job.pid} on ")
    assert "last heartbeat " in result.output.splitlines()[0]
    assert "units have their part; wait for its driver\n" in result.output
    assert findings(output) == []
    command = f"cd {drive.ROOT} && python -m jobs.rerank {source} {output} {' '.join(flags)}"
    assert read_json(output / "_summary.json")["attempts"][0]["command"] == command


def test_parts_that_appear_meanwhile_are_no_fault(tmp_path: Path, run_job: RunJob, without_ray: None) -> None:
    """Looked at all the time, from the first part to the summary."""
    source, output = write_input(tmp_path / "in", a=wide_table(200)), tmp_path / "out"
    job = threading.Thread(target=run_job, args=(source, output, RecordingScorer))
    job.start()
    wait_until((output / "_manifest.json").exists)
    states, done = [], []
    while job.is_alive():
        snapshot = look(str(output))
        facts = gather(snapshot)
        find_errors(snapshot, {"null_query": 1}, 3)
        for one in verify(snapshot):
            assert "is not complete" in one.problem
        states.append(facts.state)
        done.append(facts.units_done)
        assert facts.counts["parts"] == facts.units_done
    job.join()
    assert set(states) <= {State.RUNNING, State.COMPLETE}
    assert done == sorted(done)
    assert len(set(done)) >= 4
    assert look(str(output)).state is State.COMPLETE


def test_a_job_that_is_complete_by_now_is_not_taken_for_stopped(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver wrote the summary after the lease was looked at, and is gone."""
    with hold_lease(str(finished)):
        assert look(str(finished)).state is State.COMPLETE
    summary = (finished / "_summary.json").read_text()
    (finished / "_summary.json").unlink()

    def end_meanwhile(_: str) -> None:
        (finished / "_summary.json").write_text(summary)

    monkeypatch.setattr("jobs.audit.facts.read_if_there", end_meanwhile)
    assert look(str(finished)).state is State.COMPLETE


@pytest.mark.parametrize("flags", [[], ["--json", "--verify"]])
def test_a_directory_that_is_no_output_is_a_usage_error(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "theirs").write_text("text")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "theirs"):
        result = inspect(path, *flags)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert f"error: OUTPUT {path} has no _manifest.json: no job of ours has begun there, or it" in result.stderr


def test_a_manifest_that_cannot_be_read_is_an_error(finished: Path) -> None:
    (finished / "_manifest.json").write_text("{")
    result = inspect(finished)
    assert result.exit_code == 2
    assert "_manifest.json is damaged" in result.stderr


def assert_nothing_is_found_out(result: Any, place: str, code: int) -> None:
    """One line names the place, and neither a part nor the job is said to be wrong."""
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)  # any other would be a traceback
    assert re.fullmatch(f"error: {place}/out.*\n", result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize(("kind", "code"), [("403", 2), ("500", 4), ("reset", 4), ("cut", 4)])
def test_a_store_that_is_away_is_no_fault_of_its_parts(
    source: Path, s3_bucket: Bucket, run_job: RunJob, without_ray: None, impatient: None, kind: str, code: int
) -> None:
    """From the beginning, or once `inspect` has seen how the job stands; when it is back, all is as it was."""
    output = f"{s3_bucket.uri}/out"
    run_job(source, output)

    def verify_without_the_store(snapshot: Snapshot) -> list[Finding]:
        with s3_bucket.proxy.failing(1.0, kinds=[kind]):
            return verify(snapshot)

    with s3_bucket.proxy.failing(1.0, kinds=[kind]):
        assert_nothing_is_found_out(inspect(output, "--verify"), s3_bucket.uri, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.audit.integrity, "verify", verify_without_the_store)
        assert_nothing_is_found_out(inspect(output, "--verify"), s3_bucket.uri, code)
    assert inspect(output, "--verify").exit_code == 0


def test_negative_examples_are_a_usage_error(finished: Path) -> None:
    assert inspect(finished, "--errors", "-1").exit_code == 2


def test_a_part_that_was_removed_is_named(finished: Path) -> None:
    part = parts(finished)[1]
    part.unlink()
    problem = f"is missing: rows 25 to 49 of {finished.parent / 'in' / 'a.parquet'}"
    assert findings(finished) == [Finding(str(part), problem, "run the same command again")]
    result = inspect(finished, "--verify")
    assert result.exit_code == 1
    assert f"{part}: {problem}; run the same command again\n" in result.output


def test_a_part_that_is_not_planned_is_named(finished: Path) -> None:
    foreign = finished / "part-copy.parquet"
    shutil.copy(parts(finished)[0], foreign)
    [finding] = findings(finished)
    assert (finding.path, finding.way_out) == (str(foreign), "remove it")
    assert "is not in the plan" in finding.problem


def test_what_killed_writers_left_is_no_fault(finished: Path) -> None:
    (finished / ".part-a.parquet.0123456789abcdef.tmp").write_text("half")
    assert findings(finished) == []


@pytest.mark.parametrize("keep", [0, 100, -4])
def test_a_truncated_part_is_named(finished: Path, keep: int) -> None:
    part = parts(finished)[2]
    os.truncate(part, keep if keep >= 0 else part.stat().st_size + keep)
    assert_is_damaged(finished, part)


def test_a_flipped_byte_in_any_column_is_found(finished: Path) -> None:
    """Also where it decodes to something: pages have checksums."""
    part = parts(finished)[0]
    whole = part.read_bytes()
    group = pq.read_metadata(part).row_group(0)
    for column in (group.column(i) for i in range(group.num_columns)):
        damaged = bytearray(whole)
        begins = column.dictionary_page_offset or column.data_page_offset
        damaged[begins + column.total_compressed_size - 1] ^= 1
        part.write_bytes(damaged)
        assert_is_damaged(finished, part)
    part.write_bytes(whole)
    assert findings(finished) == []


def assert_is_damaged(output: Path, part: Path) -> None:
    [finding] = findings(output)
    assert finding.path == str(part)
    assert finding.problem.startswith("cannot be read: ")
    assert finding.way_out == "remove it and run the same command again"


def test_what_is_found_goes_by_what_is_advised(finished: Path, source: Path, run_job: RunJob) -> None:
    first, second, *_ = parts(finished)
    first.unlink()
    os.truncate(second, 100)
    for finding in findings(finished):
        if finding.way_out.startswith("remove it"):
            os.unlink(finding.path)
    run_job(source, finished)
    assert findings(finished) == []


def test_a_part_of_another_fingerprint_is_named(tmp_path: Path, finished: Path, source: Path, run_job: RunJob) -> None:
    run_job(source, tmp_path / "other", reranker={"max_length": 64})
    part = parts(finished)[0]
    shutil.copy(parts(tmp_path / "other")[0], part)
    hashes = [read_json(one / "_manifest.json")["fingerprint"]["hash"] for one in (tmp_path / "other", finished)]
    [finding] = findings(finished)
    assert finding.path == str(part)
    assert finding.problem == f"has scores of fingerprint {hashes[0]}, the job's is {hashes[1]}"


def test_a_part_with_the_rows_of_another_is_named(finished: Path) -> None:
    first, second, *_ = parts(finished)
    shutil.copy(first, second)
    [finding] = findings(finished)
    assert finding.path == str(second)
    assert finding.problem.startswith("holds another unit, ")


def test_a_parquet_file_that_no_job_wrote_is_named(finished: Path) -> None:
    part = parts(finished)[0]
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    [finding] = findings(finished)
    assert finding.problem == "has no chunks in its footer, so no job of ours wrote it"


def test_a_part_with_fewer_rows_is_named(finished: Path) -> None:
    rewrite(parts(finished)[0], pq.read_table(parts(finished)[0]).slice(1))
    [finding] = findings(finished)
    assert finding.problem == "has 24 rows, its footer counts 25, its unit has 25"


def test_a_footer_that_counts_other_errors_than_the_rows_have_is_named(finished: Path) -> None:
    rewrite(parts(finished)[0], errors={"null_query": 1})
    [finding] = findings(finished)
    assert finding.problem == "has rows with errors {}, its footer counts {'null_query': 1}"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("pairs", 1, "pairs is 1, the parts say 315"),
        ("parts", 4, "parts is 4, the parts say 5"),
        ("errors", {"null_query": 2}, "errors is {'null_query': 2}, the parts say {}"),
    ],
)
def test_a_changed_summary_is_named(finished: Path, name: str, value: Any, problem: str) -> None:
    summary = finished / "_summary.json"
    summary.write_text(json.dumps(read_json(summary) | {name: value}))
    assert findings(finished) == [Finding(str(summary), problem, "remove it and run the same command again")]


def test_a_damaged_summary_is_named_and_hides_nothing(finished: Path, source: Path, run_job: RunJob) -> None:
    summary = finished / "_summary.json"
    summary.write_text("{")
    assert findings(finished) == [Finding(str(summary), "cannot be read", "remove it and run the same command again")]
    assert gather(look(str(finished))).counts["rows"] == 105
    summary.unlink()
    run_job(source, finished)
    assert findings(finished) == []


def test_a_part_without_a_good_footer_is_not_counted(stopped: Path) -> None:
    os.truncate(parts(stopped)[0], 100)
    result = inspect(stopped)
    assert "careful: 1 part(s) are damaged or not of this job; --verify says which" in result.output
    assert cells(result.output)["rows done"] == "25 of 105 (24%)"


def test_a_file_that_could_not_be_read_is_told_and_is_no_fault_of_the_output(
    tmp_path: Path, run_job: RunJob, without_ray: None
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5))
    (source / "broken.parquet").write_text("no Parquet")
    damage_middle(source / "middle.parquet", wide_table(120, tag="m"))
    summary = run_job(source, tmp_path / "out")
    assert len(summary["unreadable"]) == 2
    result = inspect(tmp_path / "out", "--verify")
    for path, why in summary["unreadable"].items():
        assert f"could not be read: {path}: {why}\n" in result.output
    assert result.exit_code == 0, result.output
    parts(tmp_path / "out")[-1].unlink()
    [finding] = findings(tmp_path / "out")
    assert finding.path == str(tmp_path / "out" / "_summary.json")


def faulty(count: int) -> pa.Table:
    """Every tenth query is null, every tenth but one blank; the rest is fine."""
    texts = [None if i % 10 == 0 else " " if i % 10 == 1 else f"q{i} {words(3, seed=i)}" for i in range(count)]
    return wide_table(count).set_column(1, "query", pa.array(texts))


def test_rows_with_errors_are_shown_by_reason(tmp_path: Path, run_job: RunJob, without_ray: None) -> None:
    source = write_input(tmp_path / "in", a=faulty(100), b=faulty(100))
    output = tmp_path / "out"
    run_job(source, output)
    result = inspect(output, "--verify")
    assert result.exit_code == 0
    assert "null_query: 20 row(s), such as\n" in result.output
    assert "blank_query: 20 row(s), such as\n" in result.output
    shown = [line for line in result.output.splitlines() if line.startswith("  row ")]
    assert len(shown) == 6
    first = parts(output)[0].name
    line = f"  row 1 of {first} (rows 0 to 24 of {source / 'a.parquet'}), query id q1: "
    assert shown[0] == line + "query has nothing but white space"


@pytest.mark.parametrize("per_reason", [0, 1, 7, 1000])
def test_examples_are_the_first_of_each_reason_and_lie_where_they_say(
    tmp_path: Path, run_job: RunJob, without_ray: None, per_reason: int
) -> None:
    source = write_input(tmp_path / "in", a=faulty(100), b=faulty(100))
    summary = run_job(source, tmp_path / "out")
    found = find_errors(look(str(tmp_path / "out")), summary["errors"], per_reason)
    for reason, last_digit in (("null_query", 0), ("blank_query", 1)):
        expected = [(str(source / f"{name}.parquet"), i) for name in "ab" for i in range(last_digit, 100, 10)]
        places = [(one.file, one.file_rows[0] + one.row) for one in found if one.reason == reason]
        assert places == expected[:per_reason]
    for one in found:
        row = pq.read_table(tmp_path / "out" / one.part).slice(one.row, 1).to_pylist()[0]
        assert (row["query_id"], row["error"], row["query"]) == (one.query_id, one.message, one.query)
        assert one.file_rows[0] + one.row < one.file_rows[1]


def test_of_whole_parts_no_row_is_read(
    tmp_path: Path, run_job: RunJob, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_input(tmp_path / "in", a=wide_table(100), b=faulty(20))
    summary = run_job(source, tmp_path / "out")
    opened: list[str] = []

    def watched(location: str, reader: Any) -> Any:
        opened.append(location)
        return read_parquet(location, reader)

    monkeypatch.setattr("jobs.audit.row_errors.read_parquet", watched)
    assert len(find_errors(look(str(tmp_path / "out")), summary["errors"], 3)) == 4
    assert [Path(path) for path in opened] == [parts(tmp_path / "out")[-1]]


QUERIES = {
    "text": pa.array(["fine \u001b[31m" + "x" * 200]),
    "not utf-8": pa.array([b"ab\xff\xfe"], pa.binary()).view(pa.string()),
    "dictionary": pa.array(["fine"]).dictionary_encode(),
    "view": pa.array(["fine"], pa.string_view()),
    "number": pa.array([7]),
    "nested": pa.array([[{"a": [1]}]]),
    "null": pa.nulls(1),
}


@pytest.mark.parametrize("kind", QUERIES)
def test_a_query_of_any_kind_is_shown_or_left_out(
    tmp_path: Path, run_job: RunJob, without_ray: None, kind: str
) -> None:
    """Without a query id, the query's beginning says which row it is."""
    fine = lists_table(1)
    bad = pa.table({"query": QUERIES[kind], "documents": pa.array([[None, "x"]])})
    strict = ColumnMapping(strict_documents=True)
    run_job(write_input(tmp_path / "in", a=fine, b=bad), tmp_path / "out", mapping=strict)
    [row] = json.loads(inspect(tmp_path / "out", "--json", "--verify").stdout)["error_examples"]
    assert row["query_id"] is None
    beginnings = {"text": "fine \u001b[31m" + "x" * 70, "not utf-8": "ab\ufffd\ufffd", "number": "7", "null": None}
    assert row["query"] == beginnings.get(kind, "[{'a': [1]}]" if kind == "nested" else "fine")
    printed = inspect(tmp_path / "out", "--verify")
    assert printed.exit_code == 0
    assert "\u001b" not in printed.output


def test_errors_of_pair_rows_and_of_renamed_and_dropped_columns(
    tmp_path: Path, run_job: RunJob, without_ray: None, settings_of: Callable[..., RerankSettings]
) -> None:
    table = pa.table({"id": [1, 2], "question": ["a", "b"], "document": ["x", None]})
    source = write_input(tmp_path / "in", a=table)
    mapping = settings_of(source, tmp_path / "out").mapping
    mapping = replace(mapping, query_id="id", query="question", output_prefix="rr.", drop=("question",))
    summary = run_job(source, tmp_path / "out", mapping=mapping)
    snapshot = look(str(tmp_path / "out"))
    [row] = find_errors(snapshot, summary["errors"], 3)
    assert (row.reason, row.row, row.query_id, row.query) == ("null_document", 1, "2", None)
    assert verify(snapshot) == []


def test_attempts_that_an_earlier_version_recorded_are_read(finished: Path, source: Path, run_job: RunJob) -> None:
    record = finished / "_attempts" / "000001.json"
    known = {"started", "seconds", "phases", "units", "rows", "pairs"}
    earlier = {name: value for name, value in read_json(record).items() if name in known}
    record.write_text(json.dumps(earlier | {"stages": {"read": 1.0, "score": 2.0, "write": 3.0}}))
    assert inspect(finished, "--verify").exit_code == 0
    (finished / "_summary.json").unlink()
    assert run_job(source, finished)["stages"]["read"] == 1.0
