"""A job that follows its input. It runs without Ray, and its clock moves only while it waits."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import jobs.follow.ledger
from jobs import storage
from jobs.audit.facts import gather, look
from jobs.audit.integrity import verify
from jobs.errors import RefusedError, StoppedError, StoreError
from jobs.follow.follower import FILES_PER_ROUND
from jobs.follow.run import GIVE_UP_SECONDS, follow_until
from jobs.input.conditions import parse_condition
from jobs.input.corpus import Corpus
from jobs.input.shards import Shard
from jobs.inspection import print_all
from jobs.runtime.signals import InterruptedBySignal, StopRequest
from jobs.settings import POLL_SECONDS, RerankSettings
from jobs.table.columns import GroupBy
from pipelines.errors import ConfigError
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import PoolHere, StubScorer, score_units_here
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    names,
    parts,
    read_json,
    rows_of_output,
    write_input,
    write_too_large,
)
from tests.stores import Bucket, download, upload

pytestmark = pytest.mark.usefixtures("without_ray")

Events = Iterator[None]
"""What happens while a follower waits: up to each `yield` in one wait."""


class Script(StopRequest):
    """Waits take no time. When all events have happened, SIGTERM comes."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self.events = events
        self.now = 1_000.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        try:
            next(self.events)
        except StopIteration:
            self.come(signal.SIGTERM)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory that nobody has made yet."""
    return tmp_path / "in"


FollowJob = Callable[..., Script]


@pytest.fixture
def follow_job(source: Path, output: Path, settings_of: Callable[..., RerankSettings], said: StringIO) -> FollowJob:
    """Follows `source` through some events."""

    def follow_it(events: Events, files_per_round: int = FILES_PER_ROUND, **settings: Any) -> Script:
        script = Script(events)
        console = Console(file=said, width=10_000)
        asked = settings_of(settings.pop("input", source), settings.pop("output", output), follow=True, **settings)
        follow_until(script, asked, StubScorer, console, clock=lambda: script.now, files_per_round=files_per_round)
        return script

    return follow_it


def nothing(polls: int) -> Events:
    yield from [None] * polls


def come(source: Path, **tables: pa.Table) -> Events:
    """Files come, and are left in peace until they are ranked."""
    write_input(source, **tables)
    yield from nothing(2)


def ids(output: Path) -> list[str]:
    return sorted(row["query_id"] for row in rows_of_output(output))


def ids_of(**counts: int) -> list[str]:
    return sorted(f"{tag}{i}" for tag, count in counts.items() for i in range(count))


def table(tag: str, rows: int = 5) -> pa.Table:
    return lists_table(rows, tag=tag)


def test_files_are_ranked_as_they_come(source: Path, output: Path, follow_job: FollowJob) -> None:
    """Each once, into a directory that is complete between two rounds."""

    def events() -> Events:
        yield from nothing(3)
        yield from come(source, a=table("a"))
        assert_summary_adds_up(output, read_json(output / "_summary.json"), 5)
        yield from come(source, b=table("b", 3), c=table("c", 2))
        assert_summary_adds_up(output, read_json(output / "_summary.json"), 10)

    follow_job(events())
    assert ids(output) == ids_of(a=5, b=3, c=2)
    assert_nothing_left_over(output)
    assert verify(look(str(output))) == []


def test_a_name_that_is_not_utf8_is_reported_and_ends_no_follower(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """Neither the one that meets it nor the one that is started after it."""
    write_input(source, a=table("a"))
    os.rename(source / "a.parquet", os.path.join(os.fsencode(source), b"caf\xe9.parquet"))
    follow_job(come(source, b=table("b")))
    follow_job(come(source, c=table("c", 2)))
    assert ids(output) == ids_of(b=5, c=2)
    unreadable = read_json(output / "_summary.json")["unreadable"]
    assert unreadable == {f"{source}/caf\\xe9.parquet": "its name is not UTF-8; rename it"}
    assert "caf\\xe9.parquet: its name is not UTF-8" in said.getvalue()


def test_what_is_there_already_is_ranked_first(source: Path, output: Path, follow_job: FollowJob) -> None:
    write_input(source, a=table("a"))
    follow_job(nothing(1))
    assert ids(output) == ids_of(a=5)


def test_a_file_is_ranked_two_looks_after_it_came(source: Path, output: Path, follow_job: FollowJob) -> None:
    def events() -> Events:
        write_input(source, a=table("a"))
        yield
        assert not parts(output)
        yield
        assert ids(output) == ids_of(a=5)

    script = follow_job(events(), poll_seconds=7.0)
    assert set(script.waits) == {7.0}


def test_looks_that_find_nothing_write_and_start_nothing(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[None] = []
    monkeypatch.setattr(PoolHere, "start", lambda self: starts.append(None))

    def state() -> dict[str, int]:
        return {name: (output / name).stat().st_mtime_ns for name in names(output) if not name.startswith("_lease")}

    def events() -> Events:
        yield from nothing(5)
        assert names(output) == ["_lease.json", "_lease.lock"]
        yield from come(source, a=table("a"))
        before = state()
        yield from nothing(5)
        assert state() == before

    follow_job(events())
    assert len(starts) == 1


def test_a_file_that_grows_is_left_in_peace(
    source: Path, output: Path, follow_job: FollowJob, tmp_path: Path, said: StringIO
) -> None:
    whole = (write_input(tmp_path / "elsewhere", a=table("a")) / "a.parquet").read_bytes()

    def events() -> Events:
        source.mkdir()
        for end in range(0, len(whole), len(whole) // 4):
            (source / "a.parquet").write_bytes(whole[:end])
            yield
        (source / "a.parquet").write_bytes(whole)
        yield from nothing(2)

    follow_job(events())
    assert ids(output) == ids_of(a=5)
    assert "cannot be read" not in said.getvalue()


def test_a_file_that_cannot_be_read_stops_nobody(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """It is in the summary until it changes."""

    def events() -> Events:
        yield from come(source, a=table("a"))
        (source / "bad.parquet").write_text("not Parquet")
        yield from come(source, b=table("b"))
        summary = read_json(output / "_summary.json")
        assert list(summary["unreadable"]) == [f"{source}/bad.parquet"]
        yield from nothing(3)
        yield from come(source, bad=table("c"))
        assert read_json(output / "_summary.json")["unreadable"] == {}

    follow_job(events())
    assert ids(output) == ids_of(a=5, b=5, c=5)
    assert said.getvalue().count("cannot be read: ") == 1


def test_a_tiny_file_that_decodes_to_gigabytes_stops_nobody(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """Neither this follower nor the next one."""

    def events() -> Events:
        yield from come(source, a=table("a"))
        write_too_large(source / "bad.parquet")
        yield from come(source, b=table("b"))
        assert read_json(output / "_summary.json")["unreadable"] == {
            f"{source}/bad.parquet": "its first 255 rows take more than 2 GiB to decode"
        }
        yield from nothing(2)

    follow_job(events())
    follow_job(come(source, c=table("c")))
    assert ids(output) == ids_of(a=5, b=5, c=5)
    assert list(read_json(output / "_summary.json")["unreadable"]) == [f"{source}/bad.parquet"]


def test_a_file_with_damaged_pages_is_ranked_once_it_is_mended(
    source: Path, output: Path, follow_job: FollowJob
) -> None:
    def events() -> Events:
        content = bytearray((write_input(source, a=table("a", 200)) / "a.parquet").read_bytes())
        content[100:400] = b"\xaa" * 300
        (source / "a.parquet").write_bytes(content)
        yield from nothing(2)
        summary = read_json(output / "_summary.json")
        assert list(summary["unreadable"]) == [f"{source}/a.parquet"]
        assert summary["rows_not_read"] == 200
        yield from come(source, a=table("a", 200))

    follow_job(events())
    assert_summary_adds_up(output, read_json(output / "_summary.json"), 200)
    assert read_json(output / "_summary.json")["unreadable"] == {}
    assert verify(look(str(output))) == []


def test_an_unreadable_file_that_goes_is_forgotten(source: Path, output: Path, follow_job: FollowJob) -> None:
    def events() -> Events:
        write_input(source, a=table("a"))
        (source / "bad.parquet").write_text("not Parquet")
        yield from nothing(2)
        (source / "bad.parquet").unlink()
        yield from come(source, b=table("b"))

    follow_job(events())
    assert read_json(output / "_summary.json")["unreadable"] == {}
    assert verify(look(str(output))) == []


def test_nothing_begins_before_a_file_can_be_read(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """Its columns decide about the layout."""

    def events() -> Events:
        source.mkdir()
        (source / "bad.parquet").write_text("not Parquet")
        yield from nothing(4)
        assert names(output) == ["_lease.json", "_lease.lock"]
        pq.write_table(pa.table({"query": ["q"], "document": ["d"]}), source / "pairs.parquet")
        yield from nothing(2)

    follow_job(events())
    assert read_json(output / "_manifest.json")["options"]["layout"] == "pairs"
    assert said.getvalue().count("cannot be read: ") == 1


def test_first_files_that_do_not_fit_are_a_wrong_command(source: Path, output: Path, follow_job: FollowJob) -> None:
    with pytest.raises(ConfigError, match="query"):
        follow_job(come(source, a=pa.table({"text": ["a"]})))
    assert names(output) == []


def test_a_later_file_that_does_not_fit_is_left_alone(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    def events() -> Events:
        yield from come(source, a=table("a").append_column("n", pa.array(range(5))))
        yield from come(
            source,
            b=table("b").append_column("n", pa.array([[1]] * 5)),
            c=table("c").append_column("n", pa.array(range(5))),
        )
        yield from nothing(2)

    follow_job(events(), where=(parse_condition("n >= 3"),))
    assert ids(output) == ["a3", "a4", "c3", "c4"]
    assert said.getvalue().count("left alone: ") == 1
    assert f"left alone: {source}/b.parquet: --where" in said.getvalue()


def test_a_later_file_with_a_column_that_the_output_adds_is_left_alone(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    def events() -> Events:
        yield from come(source, a=table("a"))
        yield from come(source, b=table("b").append_column("error", pa.array(["x"] * 5)), c=table("c", 2))
        yield from nothing(2)

    follow_job(events())
    assert ids(output) == ids_of(a=5, c=2)
    told = "has a column `error`, and the output of this job has one of its own; rename it in the file"
    assert said.getvalue().count(f"left alone: {source}/b.parquet: {told}") == 1


def test_files_that_are_no_parquet_are_named_once(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """One without a suffix is ranked when it is whole, and not complained of before."""
    whole = pa.BufferOutputStream()
    pq.write_table(table("b"), whole)
    content = whole.getvalue().to_pybytes()

    def events() -> Events:
        yield from come(source, a=table("a"))
        (source / "b.csv").touch()
        for end in (100, 200, len(content)):
            (source / "000000_0").write_bytes(content[:end])
            yield
        yield from nothing(4)

    follow_job(events())
    assert ids(output) == ids_of(a=5, b=5)
    assert said.getvalue().count("left out: ") == 1
    assert f"left out: 1 file(s) of {source} that are no Parquet: {source}/b.csv" in said.getvalue()
    assert read_json(output / "_summary.json")["left_out"] == {"files": 1, "first": [f"{source}/b.csv"]}


def test_a_directory_that_does_not_fit_is_left_alone(source: Path, output: Path, follow_job: FollowJob) -> None:
    def events() -> Events:
        yield from come(source / "day=1", a=table("a"))
        yield from come(source / "day=monday", b=table("b"))
        yield from come(source / "day=2", c=table("c"))

    follow_job(events())
    assert {(row["query_id"][0], row["day"]) for row in rows_of_output(output)} == {("a", 1), ("c", 2)}


def test_a_file_that_changes_after_it_was_ranked_is_left_alone(
    source: Path, output: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """Also by the follower's next run, and by one without --follow."""

    def events() -> Events:
        yield from come(source, a=table("a"))
        yield from come(source, a=table("changed", 7), b=table("b"))

    follow_job(events())
    follow_job(nothing(3))
    assert ids(output) == ids_of(a=5, b=5)
    assert said.getvalue().count(f"left alone: {source}/a.parquet: has changed after it was ranked") == 2
    assert verify(look(str(output))) == []


def test_files_may_go_once_they_are_ranked(source: Path, output: Path, follow_job: FollowJob, run_job: RunJob) -> None:
    """While it runs, between two runs, and for a run without --follow too."""

    def events() -> Events:
        yield from come(source, a=table("a"), b=table("b"), c=table("c"))
        (source / "a.parquet").unlink()
        yield from come(source, d=table("d"))

    follow_job(events())
    (source / "b.parquet").unlink()
    follow_job(come(source, e=table("e")))
    (source / "c.parquet").unlink()
    write_input(source, f=table("f"))
    summary = run_job(source, output)
    assert_summary_adds_up(output, summary, 30)
    assert ids(output) == ids_of(a=5, b=5, c=5, d=5, e=5, f=5)
    assert verify(look(str(output))) == []


def test_all_files_of_a_glob_may_go(source: Path, output: Path, follow_job: FollowJob) -> None:
    def events() -> Events:
        yield from come(source / "day=1", a=table("a"))
        (source / "day=1" / "a.parquet").unlink()
        yield

    follow_job(events(), input=f"{source}/day=*/*.parquet")
    follow_job(come(source / "day=2", b=table("b")), input=f"{source}/day=*/*.parquet")
    assert {(row["query_id"][0], row["day"]) for row in rows_of_output(output)} == {("a", 1), ("b", 2)}


@pytest.mark.parametrize("what", ["was removed", "has changed"])
def test_rows_that_went_before_they_were_ranked_are_reported(
    source: Path, output: Path, follow_job: FollowJob, what: str
) -> None:
    follow_job(come(source, a=table("a", 3_000), b=table("b")))
    first, *others = [part for part in parts(output) if part.name.startswith("part-a-")]
    assert others
    first.unlink()
    (output / "_summary.json").unlink()
    lost = read_json(output / "_manifest.json")["files"][0]["units"][0][1]
    (source / "a.parquet").unlink()
    if what == "has changed":
        write_input(source, a=table("other"))
    follow_job(nothing(3))
    summary = read_json(output / "_summary.json")
    assert summary["unreadable"] == {f"{source}/a.parquet": f"{what} before all of it was ranked"}
    assert summary["rows_not_read"] == lost
    assert summary["rows"] == 3_005 - lost
    assert verify(look(str(output))) == []


def test_a_finished_job_can_be_followed_and_a_follower_finished(
    source: Path, output: Path, follow_job: FollowJob, run_job: RunJob
) -> None:
    write_input(source, a=table("a"))
    run_job(source, output)
    before = {part: part.stat().st_mtime_ns for part in parts(output)}
    follow_job(come(source, b=table("b")))
    write_input(source, c=table("c"))
    assert_summary_adds_up(output, run_job(source, output), 15)
    assert ids(output) == ids_of(a=5, b=5, c=5)
    assert {part: part.stat().st_mtime_ns for part in before} == before


def test_another_jobs_output_is_refused(source: Path, output: Path, follow_job: FollowJob) -> None:
    follow_job(come(source, a=table("a")))
    with pytest.raises(RefusedError, match="--top-n was None, is 3"):
        follow_job(nothing(1), top_n=3)


def test_a_restart_reads_no_part_of_a_complete_output(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the sums go on from the summary."""
    follow_job(come(source, a=table("a"), b=table("b")))
    read: list[int] = []
    counts_of = jobs.follow.ledger.counts_of

    def counting(*arguments: Any) -> Any:
        read.append(len(arguments[2]))
        return counts_of(*arguments)

    monkeypatch.setattr(jobs.follow.ledger, "counts_of", counting)
    follow_job(come(source, c=table("c")), where=())
    assert read == [1]
    assert_summary_adds_up(output, read_json(output / "_summary.json"), 15)
    assert verify(look(str(output))) == []


def test_sums_go_on_with_rows_that_are_left_out(source: Path, output: Path, follow_job: FollowJob) -> None:
    where = (parse_condition("query_id in a1, b1, c1"),)
    follow_job(come(source, a=table("a"), b=table("b")), where=where)
    follow_job(come(source, c=table("c")), where=where)
    assert read_json(output / "_summary.json")["rows_left_out"] == 12
    assert verify(look(str(output))) == []


def test_a_backlog_is_ranked_in_rounds(source: Path, output: Path, follow_job: FollowJob, said: StringIO) -> None:
    write_input(source, **{tag: table(tag) for tag in "abcde"})
    follow_job(nothing(1), files_per_round=2)
    assert ids(output) == ids_of(a=5, b=5, c=5, d=5, e=5)
    assert Counter(re.findall(r"(\d) file\(s\)", said.getvalue())) == {"2": 2, "1": 1}


def test_shares_of_a_followed_input_are_the_whole(source: Path, tmp_path: Path, follow_job: FollowJob) -> None:
    for number in (1, 2):
        (source / "a.parquet").unlink(missing_ok=True)
        outputs = tmp_path / f"out{number}"
        follow_job(come(source, a=table("a", 2_000), b=table("b")), output=outputs, shard=Shard(number, 2))
    both = [row["query_id"] for number in (1, 2) for row in rows_of_output(tmp_path / f"out{number}")]
    assert sorted(both) == ids_of(a=2_000, b=5)


class Stumbling:
    """A pool that fails some times in the middle of a round."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, units: Any, *arguments: Any) -> Iterator[Any]:
        for report in score_units_here(units, *arguments):
            yield report
            if self.left:
                self.left -= 1
                raise StoppedError("the cluster went away")


def test_a_round_that_fails_is_tried_again(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch, said: StringIO
) -> None:
    """Later and later; what is finished stays."""
    monkeypatch.setattr(PoolHere, "score", Stumbling(3), raising=False)
    monkeypatch.setattr(PoolHere, "__init__", lambda self, *_: None)
    write_input(source, a=table("a"), b=table("b"), c=table("c"), d=table("d"))
    script = follow_job(nothing(5))
    assert script.waits[:5] == [POLL_SECONDS, POLL_SECONDS, 2 * POLL_SECONDS, 4 * POLL_SECONDS, POLL_SECONDS]
    assert "failed: the cluster went away; the next try in 10 s" in said.getvalue()
    assert ids(output) == ids_of(a=5, b=5, c=5, d=5)
    assert verify(look(str(output))) == []
    assert read_json(output / "_attempts" / "000001.json")["units"] == 4


def test_it_gives_up_after_a_while(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PoolHere, "score", Stumbling(10_000), raising=False)
    monkeypatch.setattr(PoolHere, "__init__", lambda self, *_: None)
    write_input(source, **{f"a{i}": table("a") for i in range(100)})
    waits: list[float] = []

    def events() -> Events:
        while True:
            waits.append(0)
            yield

    with pytest.raises(StoppedError, match="the cluster went away"):
        follow_job(events())
    assert GIVE_UP_SECONDS / 60 < len(waits) < 20
    assert not (output / "_lease.json").exists()


def test_a_store_that_is_away_is_waited_for(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = storage.find_input

    def away(pattern: str) -> Any:
        raise StoreError("the bucket does not answer")

    def events() -> Events:
        yield from come(source, a=table("a"))
        monkeypatch.setattr(storage, "find_input", away)
        yield from nothing(4)
        monkeypatch.setattr(storage, "find_input", there)
        yield from come(source, b=table("b"))

    follow_job(events())
    assert ids(output) == ids_of(a=5, b=5)


def test_a_prefix_of_a_bucket_is_followed(s3_bucket: Bucket, tmp_path: Path, follow_job: FollowJob) -> None:
    """An object is whole when it is seen; it may go once it is ranked."""
    output = f"{s3_bucket.uri}/out"

    def put(tag: str) -> None:
        upload(write_input(tmp_path / tag, **{tag: table(tag)}), s3_bucket, "in")

    def events() -> Events:
        yield
        put("a")
        yield
        put("b")
        yield
        assert json.loads(storage.read(f"{output}/_summary.json"))["rows"] == 10
        storage.remove(f"{s3_bucket.uri}/in/a.parquet")
        yield

    follow_job(events(), input=f"{s3_bucket.uri}/in", output=output)
    storage.remove(f"{s3_bucket.uri}/in/b.parquet")
    put("c")
    follow_job(nothing(1), input=f"{s3_bucket.uri}/in", output=output)
    assert ids(download(s3_bucket, "out", tmp_path / "out")) == ids_of(a=5, b=5, c=5)
    assert verify(look(output)) == []


def test_a_stop_with_files_that_are_not_done_is_resumable(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(units: Any, *arguments: Any) -> Iterator[Any]:
        yield next(score_units_here(units, *arguments))
        raise InterruptedBySignal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PoolHere, "score", staticmethod(stopped), raising=False)
        patch.setattr(PoolHere, "__init__", lambda self, *_: None)
        with pytest.raises(InterruptedBySignal):
            follow_job(come(source, a=table("a"), b=table("b")))
    assert len(parts(output)) == 1
    assert not (output / "_summary.json").exists()
    follow_job(nothing(1))
    assert ids(output) == ids_of(a=5, b=5)


def test_a_stop_before_anything_is_known_does_not_claim_that_all_is_done(
    source: Path, output: Path, follow_job: FollowJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow_job(come(source, a=table("a")))
    there, calls = storage.find_input, []

    def away(pattern: str) -> Any:
        calls.append(pattern)
        if len(calls) > 1:  # the first call is that of a check before anything starts
            raise StoreError("the bucket does not answer")
        return there(pattern)

    monkeypatch.setattr(storage, "find_input", away)
    with pytest.raises(InterruptedBySignal):
        follow_job(nothing(1))


def test_inspect_says_how_following_stands(source: Path, output: Path, follow_job: FollowJob) -> None:
    told = StringIO()

    def events() -> Events:
        yield from come(source, a=table("a"))
        write_input(source, a=table("changed", 6), b=table("b"))
        yield
        print_all(Console(file=told, width=10_000), gather(look(str(output))), [], None)

    follow_job(events())
    assert f"following: {source}, a look every 5 s, process " in told.getvalue()
    assert "1 round(s), the last until 1970-01-01T00:16:50+00:00, 5.0 s after its first file came" in told.getvalue()


def test_before_the_first_file_inspect_says_that_it_waits(source: Path, output: Path, follow_job: FollowJob) -> None:
    def events() -> Events:
        yield
        with pytest.raises(ConfigError, match="its driver plans, or waits for the first file"):
            look(str(output))

    follow_job(events())


def test_a_file_cannot_be_followed(source: Path, follow_job: FollowJob) -> None:
    write_input(source, a=table("a"))
    with pytest.raises(ConfigError, match=r"a\.parquet is a file; to follow give a directory"):
        follow_job(nothing(1), input=source / "a.parquet")


def test_an_output_inside_the_input_is_refused_although_nothing_is_there(source: Path, follow_job: FollowJob) -> None:
    with pytest.raises(RefusedError, match="contain one another"):
        follow_job(nothing(1), output=source / "out")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"follow": True, "limit": 5}, "--limit with --follow"),
        ({"follow": True, "dry_run": True}, "--dry-run with --follow"),
        ({"follow": True, "group_by": GroupBy("query_id")}, "--group-by with --follow"),
        ({"follow": True, "max_errors": 5}, "--max-errors with --follow"),
        ({"follow": True, "poll_seconds": 0.0}, "--poll-seconds is 0; it is more than 0"),
        ({"poll_seconds": 3.0}, "only --follow makes use of it"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        RerankSettings("in", "out", **settings)


def test_the_second_signal_does_not_wait() -> None:
    stop = StopRequest()
    stop.come(signal.SIGTERM)
    assert stop.number == signal.SIGTERM
    with pytest.raises(InterruptedBySignal):
        stop.come(signal.SIGINT)


def test_documents_by_id_get_their_texts_in_every_round(
    source: Path, output: Path, tmp_path: Path, follow_job: FollowJob, said: StringIO
) -> None:
    """Of a corpus that is loaded once: the texts are the same, so that replicas stay."""
    corpus = write_input(tmp_path / "corpus", c=pa.table({"id": ["1", "2"], "text": ["one", "two"]}))
    taken: list[Any] = []

    def by_id(tag: str) -> pa.Table:
        return pa.table({"query_id": [f"{tag}0"], "query": ["q"], "documents": [["1", "2", "3"][: 2 + (tag == "b")]]})

    def score(units: Any, assignment: Any, *arguments: Any) -> Any:
        taken.append(assignment)
        return score_units_here(units, assignment, *arguments)

    def events() -> Events:
        yield from come(source, a=by_id("a"))
        yield from come(source, b=by_id("b"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.jobs.stubs.score_units_here", score)
        follow_job(events(), corpus=Corpus(str(corpus)))
    first, second = rows_of_output(output)
    assert {document["id"] for document in first["ranking"]} == {"1", "2"}
    assert second["error"] == "unknown_document: documents[2] is '3', which is not in the corpus"
    assert len(taken) == 2
    assert taken[0] == taken[1]
    assert not (output / "_texts").exists()


def test_scores_are_kept_for_whoever_comes_later(
    source: Path, output: Path, tmp_path: Path, follow_job: FollowJob
) -> None:
    """A store that lies in INPUT is refused, as for a job."""
    with pytest.raises(RefusedError, match="contain one another"):
        follow_job(nothing(1), scores=str(source / "scores"))
    follow_job(come(source, a=table("a")), scores=str(tmp_path / "scores"))
    assert ids(output) == ids_of(a=5)
