"""Whole jobs from and to object stores: the promises of a local directory, kept there too."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from jobs import storage
from jobs.errors import RefusedError, StoppedError
from jobs.output.lease import hold_lease
from jobs.rerank import exit_code
from jobs.scoring.scorer import own_scorer
from jobs.settings import RerankSettings
from pipelines.errors import ConfigError
from tests.jobs import drive
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import StubScorer
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    read_json,
    rows_of_output,
    wide_table,
    write_input,
)
from tests.stores import FAULTS, Bucket, download, upload

ROWS = 105


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Two files: four units and one."""
    return write_input(tmp_path / "in", a=wide_table(100, tag="a"), b=lists_table(5, tag="b"))


@pytest.fixture
def source(local: Path, bucket: Bucket) -> str:
    """The same in a store."""
    return upload(local, bucket, "in")


@pytest.fixture
def output(bucket: Bucket) -> str:
    return f"{bucket.uri}/out"


@pytest.fixture
def finished(source: str, output: str, run_job: RunJob, without_ray: None) -> str:
    """The output of a finished job over `source`."""
    run_job(source, output)
    return output


@pytest.fixture
def unfinished(bucket: Bucket, finished: str) -> str:
    """The same, stopped after two units of the first file."""
    for name in [name for name in bucket.names() if name.startswith("out/part-")][2:]:
        bucket.delete(name)
    bucket.delete("out/_summary.json")
    return finished


@pytest.fixture
def contents(bucket: Bucket) -> Callable[[], dict[str, bytes]]:
    return lambda: {name: bucket.get(name) for name in bucket.names()}


def assert_all_there(bucket: Bucket, directory: Path, summary: dict[str, Any], rows: int = ROWS) -> Path:
    """What assertions say of a local output, of one in a store."""
    output = download(bucket, "out", directory)
    assert_summary_adds_up(output, summary, rows)
    assert_nothing_left_over(output)
    return output


def test_jobs_between_stores_and_disks_write_the_same(
    bucket: Bucket, source: str, output: str, local: Path, run_job: RunJob, tmp_path: Path, without_ray: None
) -> None:
    assert run_job(local, tmp_path / "out")["rows"] == ROWS
    expected = rows_of_output(tmp_path / "out")
    there = assert_all_there(bucket, tmp_path / "there", run_job(source, output))
    assert rows_of_output(there) == expected
    there = assert_all_there(bucket, tmp_path / "there", run_job(local, output, overwrite=True))
    assert rows_of_output(there) == expected
    assert run_job(f"{source}/*.parquet", tmp_path / "here")["rows"] == ROWS
    assert rows_of_output(tmp_path / "here") == expected


def test_unfinished_goes_on_and_leaves_finished_parts_as_they_are(
    bucket: Bucket, source: str, unfinished: str, run_job: RunJob, tmp_path: Path
) -> None:
    before = bucket.versions("out/part-")
    assert len(before) == 2
    summary = run_job(source, unfinished)
    after = bucket.versions("out/part-")
    assert {name: after[name] for name in before} == before
    assert len(summary["attempts"]) == 2
    assert_all_there(bucket, tmp_path / "there", summary)


def test_complete_and_nothing_new_changes_nothing(
    source: str, finished: str, run_job: RunJob, said: StringIO, contents: Callable[[], Any]
) -> None:
    before = contents()
    run_job(source, finished)
    assert f"{finished} is complete, and INPUT has nothing new" in said.getvalue()
    assert contents() == before


def test_new_input_is_added(bucket: Bucket, source: str, finished: str, run_job: RunJob, tmp_path: Path) -> None:
    upload(write_input(tmp_path / "more", c=lists_table(7, tag="c")), bucket, "in")
    assert_all_there(bucket, tmp_path / "there", run_job(source, finished), ROWS + 7)


def test_changed_input_is_refused_even_when_its_size_is_the_same(
    bucket: Bucket, source: str, finished: str, run_job: RunJob, contents: Callable[[], Any]
) -> None:
    content = bucket.get("in/b.parquet")
    bucket.put("in/b.parquet", content.replace(b"PAR1", b"PAR2"))
    before = contents()
    with pytest.raises(RefusedError, match=r"input file .*in/b\.parquet has changed after units of it were finished"):
        run_job(source, finished)
    assert contents() == before


def test_the_same_input_written_again_is_no_change(
    bucket: Bucket, local: Path, source: str, finished: str, run_job: RunJob, said: StringIO
) -> None:
    if bucket.uri.startswith("abfss"):
        pytest.skip("an etag of Azure tells when a blob was written, not what is in it")
    upload(local, bucket, "in")
    run_job(source, finished)
    assert "INPUT has nothing new" in said.getvalue()


def test_other_settings_are_refused(source: str, unfinished: str, run_job: RunJob, contents: Callable[[], Any]) -> None:
    before = contents()
    with pytest.raises(RefusedError, match="--top-n was None, is 2"):
        run_job(source, unfinished, top_n=2)
    assert contents() == before


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_overwrite_starts_anew(
    bucket: Bucket, source: str, state: str, run_job: RunJob, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = request.getfixturevalue(state)
    bucket.delete("in/b.parquet")
    summary = run_job(source, directory, overwrite=True, top_n=1)
    there = assert_all_there(bucket, tmp_path / "there", summary, 100)
    assert {len(row["ranking"]) for row in rows_of_output(there)} == {1}
    assert len(summary["attempts"]) == 1


@pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", "day=1/a.parquet"])
def test_a_place_that_is_not_ours_is_refused(
    bucket: Bucket, source: str, output: str, run_job: RunJob, name: str, contents: Callable[[], Any], without_ray: None
) -> None:
    bucket.put(f"out/{name}", b"theirs")
    before = contents()
    with pytest.raises(RefusedError, match=f"OUTPUT {output} is not empty .* and no job of ours wrote it"):
        run_job(source, output, overwrite=True)
    assert contents() == before


def test_an_output_that_is_an_object_is_refused(
    bucket: Bucket, source: str, output: str, run_job: RunJob, without_ray: None
) -> None:
    bucket.put("out", b"an object")
    with pytest.raises(RefusedError, match=f"OUTPUT {output} is a file; give a directory"):
        run_job(source, output)


@pytest.mark.parametrize(
    ("input_at", "output_at"),
    [("/in", "/in"), ("/in", "/in/out"), ("/in/*.parquet", "/in"), ("/in", ""), ("/in*", "/in/out"), ("/**", "/out")],
)
def test_output_inside_input_and_input_inside_output_are_refused(
    bucket: Bucket, source: str, run_job: RunJob, input_at: str, output_at: str, contents: Callable[[], Any]
) -> None:
    before = contents()
    with pytest.raises(RefusedError, match="contain one another; keep them apart"):
        run_job(bucket.uri + input_at, bucket.uri + output_at)
    assert contents() == before


def test_neighbours_are_apart(bucket: Bucket, source: str, run_job: RunJob, tmp_path: Path, without_ray: None) -> None:
    assert run_job(source, f"{source}-ranked")["rows"] == ROWS


def test_two_spellings_of_a_place_are_one(
    azure_container: Bucket, local: Path, run_job: RunJob, without_ray: None
) -> None:
    upload(local, azure_container, "in")
    short = "az://" + azure_container.uri.removeprefix("abfss://").partition("@")[0]
    with pytest.raises(RefusedError, match="contain one another"):
        run_job(f"{short}/in", f"{azure_container.uri}/in/out")
    assert run_job(f"{short}/in", f"{short}/out")["rows"] == ROWS
    assert len(run_job(f"{azure_container.uri}/in", f"{azure_container.uri}/out")["attempts"]) == 1


def test_a_second_driver_is_refused(source: str, unfinished: str, run_job: RunJob, contents: Callable[[], Any]) -> None:
    with hold_lease(unfinished):
        before = contents()
        with pytest.raises(RefusedError, match=f"another driver is writing to {unfinished}"):
            run_job(source, unfinished)
        assert contents() == before
    assert run_job(source, unfinished)["rows"] == ROWS


HOLD = """
import sys, time
from jobs.output.lease import hold_lease
with hold_lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lease_of_a_killed_driver_is_taken_over(output: str) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, output], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        with pytest.raises(RefusedError, match=f"process {driver.pid}"), hold_lease(output):
            pass
        driver.kill()
    with hold_lease(output):
        assert storage.exists(f"{output}/_lease.json")
    assert not storage.is_directory(output)


@pytest.mark.parametrize(
    ("input_at", "output_at", "said"),
    [
        ("s3://no-such-bucket/in", "{}/out", r"s3://no-such-bucket/in.*: there is no such bucket at http"),
        ("{}/in", "s3://no-such-bucket/out", r"s3://no-such-bucket/out.*: there is no such bucket at http"),
        ("{}/none", "{}/out", r"INPUT '.*/none' has no Parquet files"),
        ("gs://no-such-bucket/in", "{}/out", r"gs://no-such-bucket/in.*: there is no such bucket; check its name"),
        ("hdfs://host/in", "{}/out", r"INPUT: hdfs://\.\.\. is no place that can be read; write s3://bucket/path"),
    ],
)
def test_a_wrong_place_is_a_usage_error_before_anything_starts(
    s3_bucket: Bucket,
    fake_gcs: None,
    local: Path,
    settings_of: Callable[..., RerankSettings],
    run_job: RunJob,
    input_at: str,
    output_at: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    upload(local, s3_bucket, "in")
    places = [place.format(s3_bucket.uri) for place in (input_at, output_at)]
    with pytest.raises(ConfigError, match=said):
        run_job(*places)
    assert exit_code(settings_of(*places)) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert s3_bucket.names() == ["in/a.parquet", "in/b.parquet"]


@pytest.mark.parametrize("methods", ["GET HEAD", "PUT"])
def test_who_may_not_read_or_write_hears_it_before_anything_starts(
    s3_bucket: Bucket, local: Path, run_job: RunJob, methods: str
) -> None:
    source = upload(local, s3_bucket, "in")
    with (
        s3_bucket.proxy.failing(1.0, kinds=["403"], methods=methods),
        pytest.raises(ConfigError, match=r"s3://.* \(403\): these credentials may not"),
    ):
        run_job(source, f"{s3_bucket.uri}/out")
    assert s3_bucket.names() == ["in/a.parquet", "in/b.parquet"]


@pytest.mark.parametrize("methods", ["GET", "POST"])
def test_who_may_not_read_or_write_at_google_hears_it_before_anything_starts(
    google_bucket: Bucket, local: Path, run_job: RunJob, methods: str
) -> None:
    source = upload(local, google_bucket, "in")
    with (
        google_bucket.proxy.failing(1.0, kinds=["403"], methods=methods),
        pytest.raises(ConfigError, match=r"gs://.* \(403\); set GOOGLE_APPLICATION_CREDENTIALS"),
    ):
        run_job(source, f"{google_bucket.uri}/out")
    assert google_bucket.names() == ["in/a.parquet", "in/b.parquet"]


class FailingStore(StubScorer):
    """The store goes away, or lets nobody in any more, once two units are scored."""

    bucket: Bucket
    kind: str
    units = 0

    def rerank_lists(self, lists: Any, spent: Any) -> Any:
        type(self).units += 1
        if self.units == 3:
            self.bucket.proxy.share, self.bucket.proxy.kinds = 1.0, [self.kind]
        return super().rerank_lists(lists, spent)


@pytest.mark.parametrize("kind", ["403", "500", "reset"])
def test_a_store_that_fails_in_mid_job_stops_it_resumably(
    s3_bucket: Bucket,
    local: Path,
    run_job: RunJob,
    tmp_path: Path,
    without_ray: None,
    impatient: None,
    kind: str,
) -> None:
    source = upload(local, s3_bucket, "in")
    output = f"{s3_bucket.uri}/out"
    scorer = type("Scorer", (FailingStore,), {"bucket": s3_bucket, "kind": kind})
    with s3_bucket.proxy.failing(0.0) as injected, pytest.raises(StoppedError, match=f"{s3_bucket.uri}/"):
        run_job(source, output, scorer_class=scorer)
    assert injected
    before = s3_bucket.versions("out/part-")
    assert len(before) == 2
    s3_bucket.delete("out/_lease.json")  # its driver could not remove it and lives on as the process of this test
    summary = run_job(source, output)
    after = s3_bucket.versions("out/part-")
    assert {name: after[name] for name in before} == before
    assert_all_there(s3_bucket, tmp_path / "there", summary)


def test_a_google_that_lets_nobody_in_any_more_stops_the_job_resumably(
    google_bucket: Bucket, local: Path, run_job: RunJob, tmp_path: Path, without_ray: None
) -> None:
    source, output = upload(local, google_bucket, "in"), f"{google_bucket.uri}/out"
    scorer = type("Scorer", (FailingStore,), {"bucket": google_bucket, "kind": "403"})
    with google_bucket.proxy.failing(0.0), pytest.raises(StoppedError, match=f"{google_bucket.uri}/"):
        run_job(source, output, scorer_class=scorer)
    before = google_bucket.versions("out/part-")
    assert len(before) == 2
    google_bucket.delete("out/_lease.json")  # its driver could not remove it and lives on as the process of this test
    summary = run_job(source, output)
    after = google_bucket.versions("out/part-")
    assert {name: after[name] for name in before} == before
    assert_all_there(google_bucket, tmp_path / "there", summary)


def test_a_damaged_file_costs_its_own_rows(
    bucket: Bucket, source: str, output: str, run_job: RunJob, without_ray: None
) -> None:
    bucket.put("in/c.parquet", b"not Parquet")
    summary = run_job(source, output)
    assert summary["rows"] == ROWS
    assert [*summary["unreadable"]] == [f"{source}/c.parquet"]


@pytest.mark.slow
def test_a_job_on_ray_with_a_model_from_the_store(
    bucket: Bucket, source: str, output: str, cluster: str, run_job: RunJob, bert_directory: Path, tmp_path: Path
) -> None:
    """The replicas read, fetch the model and write with what their environment says; scores are those of the disk."""
    model = upload(bert_directory, bucket, "models/tiny")
    summary = run_job(source, output, scorer_class=own_scorer, replicas=(2, 2), reranker={"model": model})
    there = assert_all_there(bucket, tmp_path / "there", summary)
    here = run_job(tmp_path / "in", tmp_path / "out", scorer_class=own_scorer, reranker={"model": str(bert_directory)})
    assert summary["fingerprint"] == here["fingerprint"]
    assert rows_of_output(there) == rows_of_output(tmp_path / "out")


def test_a_job_on_ray_through_faults_loses_and_doubles_nothing(
    s3_bucket: Bucket, cluster: str, run_job: RunJob, tmp_path: Path
) -> None:
    """Every fifth request of driver and replicas fails in one of six ways."""
    table = wide_table(300)
    source = upload(write_input(tmp_path / "in", a=table), s3_bucket, "in")
    with s3_bucket.proxy.failing(1 / 5, seed=5) as injected:
        summary = run_job(source, f"{s3_bucket.uri}/out", replicas=(2, 2))
    assert set(injected) == set(FAULTS)
    there = assert_all_there(s3_bucket, tmp_path / "there", summary, 300)
    assert [row["query_id"] for row in rows_of_output(there)] == table["query_id"].to_pylist()
    assert summary["errors"] == {}


@pytest.mark.endurance
@pytest.mark.parametrize("seed", range(5))
def test_a_killed_driver_and_faults_together_lose_and_double_nothing(
    s3_bucket: Bucket, cluster: str, bert_directory: Path, tmp_path: Path, seed: int
) -> None:
    with s3_bucket.proxy.failing(1 / 5, seed):
        kill_and_finish(s3_bucket, cluster, bert_directory, tmp_path)


@pytest.mark.endurance
def test_a_killed_driver_loses_and_doubles_nothing(
    s3_bucket: Bucket, cluster: str, bert_directory: Path, tmp_path: Path
) -> None:
    kill_and_finish(s3_bucket, cluster, bert_directory, tmp_path)


def kill_and_finish(bucket: Bucket, cluster: str, model: Path, tmp_path: Path) -> None:
    """Kills two drivers once they have written; the third has to find everything in order."""
    table = wide_table(300)
    source = upload(write_input(tmp_path / "in", a=table), bucket, "in")
    arguments = [source, f"{bucket.uri}/out", "--model", str(model), "--address", cluster]
    finished: dict[str, Any] = {}
    for _ in range(2):
        with drive.start("SlowScorer", *arguments, "--replicas", "1") as driver:
            deadline = time.monotonic() + 120
            while len(bucket.versions("out/part-")) < len(finished) + 2:
                assert driver.poll() is None, driver.communicate()[0]
                assert time.monotonic() < deadline, "waited in vain"
                time.sleep(0.05)
            driver.kill()
        now = bucket.versions("out/part-")
        assert {name: now[name] for name in finished} == finished
        assert not {"out/_summary.json"} & set(bucket.names())
        finished = now
    with drive.start("SlowScorer", *arguments, "--replicas", "2") as driver:
        told, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, told
    now = bucket.versions("out/part-")
    assert {name: now[name] for name in finished} == finished
    there = download(bucket, "out", tmp_path / "there")
    assert_all_there(bucket, tmp_path / "there", read_json(there / "_summary.json"), 300)
    assert [row["query_id"] for row in rows_of_output(there)] == table["query_id"].to_pylist()
