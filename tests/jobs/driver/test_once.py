"""Each row comes out once, of one version of its file and of one job, whatever happens meanwhile. Without Ray."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import storage
from jobs.audit.facts import look
from jobs.audit.integrity import verify
from jobs.errors import RefusedError, StoppedError, UnreadableFileError
from jobs.input.reading import read_rows
from jobs.input.row_groups import RowGroups
from jobs.joins.corpus.disk_join_steps import DeliveredTexts
from jobs.output.parts import METADATA_KEY
from jobs.records import Unit
from jobs.storage import faults_of_file
from jobs.storage.local import LocalDisk
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import StubScorer
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    footers,
    lists_table,
    names,
    parts,
    read_json,
    rows_of_output,
    wide_table,
    write_input,
)

pytestmark = pytest.mark.usefixtures("without_ray")


class At:
    """A scorer that does something before it scores the unit of this number, counted from 0."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.number = number
        self.act = act

    def __call__(self, *arguments: Any) -> StubScorer:
        at = self

        class Acting(StubScorer):
            def rerank_lists(self, lists: Any, spent: Any) -> Any:
                if at.number == 0:
                    at.act()
                at.number -= 1
                return super().rerank_lists(lists, spent)

        return Acting(*arguments)


def stop() -> None:
    raise KeyboardInterrupt


def state_of(path: Path) -> str:
    """What a unit remembers of a file."""
    [file] = storage.list_input(str(path))
    return file.state


def ids(output: Path) -> set[str]:
    return {row["query_id"] for row in rows_of_output(output)}


# INPUT that changes.


def test_a_file_that_is_rewritten_meanwhile_is_not_mixed_in(source: Path, output: Path, run_job: RunJob) -> None:
    """The same number of rows, the same columns: only its version tells."""
    summary = run_job(source, output, At(0, lambda: write_input(source, b=lists_table(5, tag="c")) and None))
    assert list(summary["unreadable"]) == [str(source / "b.parquet")]
    assert "has changed since it was planned" in summary["unreadable"][str(source / "b.parquet")]
    assert ids(output) == {f"a{i}" for i in range(100)}
    summary = run_job(source, output)
    assert summary["unreadable"] == {}
    assert ids(output) == {f"a{i}" for i in range(100)} | {f"c{i}" for i in range(5)}
    assert_summary_adds_up(output, summary, 105)


def test_a_file_that_is_rewritten_half_way_keeps_no_rows_of_both(source: Path, output: Path, run_job: RunJob) -> None:
    summary = run_job(source, output, At(1, lambda: write_input(source, a=wide_table(100, tag="z")) and None))
    assert list(summary["unreadable"]) == [str(source / "a.parquet")]
    assert not {one for one in ids(output) if one.startswith("z")}
    with pytest.raises(RefusedError, match="has changed after units of it were finished"):
        run_job(source, output)


def test_a_file_that_is_replaced_while_it_is_read_is_found_out(tmp_path: Path) -> None:
    """Also where the new one has the size and the time of the old one."""
    write_input(tmp_path, a=lists_table(5, tag="a"), b=lists_table(5, tag="b"))
    path, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    os.utime(path, ns=(1, 1))
    os.truncate(other, path.stat().st_size)
    os.utime(other, ns=(1, 1))
    state = state_of(path)
    assert state_of(other) == state

    def read(file: pq.ParquetFile) -> pa.Table:
        table = file.read()
        os.replace(other, path)
        return table

    with pytest.raises(UnreadableFileError, match="has changed since it was planned"):
        storage.read_as_planned(str(path), state, read)


def test_row_groups_of_a_changed_file_are_kept_for_nobody(tmp_path: Path) -> None:
    write_input(tmp_path, a=lists_table(10, tag="a"), b=lists_table(10, tag="b"))
    path, moved = tmp_path / "a.parquet", tmp_path / "moved"
    unit, groups = Unit(str(path), 0, 5, state_of(path)), RowGroups(2)
    os.rename(path, moved)
    shutil.copy(tmp_path / "b.parquet", path)
    with pytest.raises(UnreadableFileError):
        read_rows(unit, groups=groups)
    os.rename(moved, path)
    assert read_rows(unit, groups=groups)["query_id"].to_pylist() == [f"a{i}" for i in range(5)]


# Parts and their job.


def test_a_late_part_of_the_job_before_is_no_part_of_this_one(source: Path, output: Path, run_job: RunJob) -> None:
    """A replica outlives its driver, and writes when its job's output was overwritten with other options."""
    run_job(source, output)
    late = {part.name: part.read_bytes() for part in parts(output)}
    with pytest.raises(KeyboardInterrupt):
        run_job(source, output, At(1, stop), top_n=1, overwrite=True)
    for name, content in late.items():
        (output / name).write_bytes(content)
    summary = run_job(source, output, top_n=1)
    assert late.keys().isdisjoint(part.name for part in parts(output))
    assert_summary_adds_up(output, summary, 105)
    assert {len(row["ranking"]) for row in rows_of_output(output)} == {1}
    assert verify(look(str(output))) == []


def test_what_a_killed_replica_was_writing_is_gone_at_the_end(source: Path, output: Path, run_job: RunJob) -> None:
    half_written = Path(storage.temporary_name(str(output / "part.parquet")))
    run_job(source, output, At(1, lambda: half_written.write_text("half") and None))
    assert not half_written.exists()
    assert_nothing_left_over(output)


def test_a_part_says_of_which_job_it_is(source: Path, output: Path, run_job: RunJob) -> None:
    """In its name, its footer and the manifest; the same job has the same again."""
    run_job(source, output)
    before = [part.name for part in parts(output)]
    by_file = {one["path"]: one["id"] for one in read_json(output / "_manifest.json")["files"]}
    for part, footer in zip(parts(output), footers(output), strict=True):
        assert footer["unit"]["id"] == by_file[footer["unit"]["path"]]
        assert part.name.endswith(f"-{footer['unit']['id']}.parquet")
    assert len(set(by_file.values())) == 2
    run_job(source, output, overwrite=True)
    assert [part.name for part in parts(output)] == before


def test_counts_that_an_input_file_claims_are_not_believed(source: Path, output: Path, run_job: RunJob) -> None:
    """As a part of an earlier job has them, or somebody who wants another number of rows in the sums."""
    claims = {"rows": 10**9, "errors": {"null_query": 7}, "fingerprint": "abc", "unit": {"path": "/etc/passwd"}}
    table = lists_table(5, tag="b").replace_schema_metadata({METADATA_KEY: json.dumps(claims)})
    write_input(source, b=table)
    assert_summary_adds_up(output, run_job(source, output), 105)
    assert {footer["unit"]["path"] for footer in footers(output)} == {f"{source}/{name}.parquet" for name in "ab"}
    assert verify(look(str(output))) == []


def as_earlier_versions_wrote(output: Path) -> None:
    """Takes away what tells of which job a part is."""
    manifest = read_json(output / "_manifest.json")
    for file in manifest["files"]:
        del file["id"]
    (output / "_manifest.json").write_text(json.dumps(manifest))
    for part in parts(output):
        table = pq.read_table(part)
        footer = json.loads(table.schema.metadata[METADATA_KEY])
        footer["unit"] = {name: footer["unit"][name] for name in ("path", "start", "rows")}
        metadata = table.schema.metadata | {METADATA_KEY: json.dumps(footer).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), output / Unit(**footer["unit"]).name)
        part.unlink()


def test_an_output_that_an_earlier_version_began_goes_on(source: Path, output: Path, run_job: RunJob) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_job(source, output, At(2, stop))
    as_earlier_versions_wrote(output)
    before = {part.name: part.stat().st_mtime_ns for part in parts(output)}
    assert len(before) == 2
    summary = run_job(source, output)
    assert_summary_adds_up(output, summary, 105)
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    assert verify(look(str(output))) == []


# INPUT that is away.


@pytest.mark.parametrize("leaves_mount_point", [True, False])
def test_an_input_that_is_away_stops_the_job(
    source: Path, output: Path, run_job: RunJob, leaves_mount_point: bool
) -> None:
    """No file of it is to blame: no summary, and the same command goes on when it is back."""
    elsewhere = source.with_name("elsewhere")

    def unmount() -> None:
        source.rename(elsewhere)
        if leaves_mount_point:
            source.mkdir()

    with pytest.raises(StoppedError, match="all that was beside it are away; is its disk mounted"):
        run_job(source, output, At(1, unmount))
    assert not (output / "_summary.json").exists()
    if leaves_mount_point:
        source.rmdir()
    elsewhere.rename(source)
    summary = run_job(source, output)
    assert_summary_adds_up(output, summary, 105)
    assert summary["unreadable"] == {}


def test_a_file_that_is_removed_is_its_own_reason(source: Path, output: Path, run_job: RunJob) -> None:
    summary = run_job(source, output, At(0, (source / "b.parquet").unlink))
    assert list(summary["unreadable"]) == [str(source / "b.parquet")]
    assert ids(output) == {f"a{i}" for i in range(100)}


def test_too_little_memory_is_no_damage(tmp_path: Path) -> None:
    """Of pyarrow, whose error is an ArrowException too."""
    with pytest.raises(MemoryError), faults_of_file(str(tmp_path / "a.parquet")):
        raise pa.ArrowMemoryError("malloc of size 1024 failed")


# Names, and parts that cannot be written.


@pytest.mark.parametrize("stem", ["\u691c" * 64, "\U00020000" * 60, "a" * 240])
def test_a_long_name_is_no_obstacle(tmp_path: Path, output: Path, run_job: RunJob, stem: str) -> None:
    """Disks count bytes: 255 of them, which 64 Japanese characters are not."""
    write_input(tmp_path / "in", **{stem: lists_table(5)})
    assert_summary_adds_up(output, run_job(tmp_path / "in", output), 5)


def test_a_part_that_cannot_be_written_is_the_reason_of_its_file(
    source: Path, output: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalDisk.write

    def not_b(self: LocalDisk, location: str, content: bytes) -> None:
        if "part-b" in location:
            raise PermissionError(errno.EACCES, "Permission denied", location)
        real(self, location, content)

    monkeypatch.setattr(LocalDisk, "write", not_b)
    summary = run_job(source, output)
    [why] = summary["unreadable"].values()
    assert list(summary["unreadable"]) == [str(source / "b.parquet")]
    assert re.match("its part part-b-.* cannot be written: PermissionError: ", why)
    assert_summary_adds_up(output, summary, 100)
    monkeypatch.setattr(LocalDisk, "write", real)
    assert_summary_adds_up(output, run_job(source, output), 105)


def test_a_full_disk_is_no_reason_of_a_file(
    source: Path, output: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalDisk.write

    def full(self: LocalDisk, location: str, content: bytes) -> None:
        if location.endswith((".parquet", ".tmp")):
            raise OSError(errno.ENOSPC, "No space left on device", location)
        real(self, location, content)

    monkeypatch.setattr(LocalDisk, "write", full)
    with pytest.raises(StoppedError, match="No space left on device"):
        run_job(source, output)
    assert not (output / "_summary.json").exists()


def test_a_file_name_that_is_not_utf8_is_reported_and_the_rest_is_done(
    source: Path, output: Path, run_job: RunJob
) -> None:
    shutil.copy(source / "b.parquet", os.path.join(os.fsencode(source), b"caf\xe9.parquet"))
    summary = run_job(source, output)
    assert summary["unreadable"] == {f"{source}/caf\\xe9.parquet": "its name is not UTF-8; rename it"}
    assert_summary_adds_up(output, summary, 105)
    assert run_job(source, output)["rows"] == 105


def test_a_new_name_is_on_the_disk_when_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a part would be gone after a power failure, although its content is there."""
    synced: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), names(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    LocalDisk().write(str(tmp_path / "part"), b"rows")
    assert synced[-1] == (str(tmp_path), ["part"])
    assert len(synced) == 2


def test_texts_joined_on_disk_are_the_same_assignment_in_every_round() -> None:
    """A follower's replicas are loaded anew when they are told something else."""
    assert DeliveredTexts("/out/_texts") == DeliveredTexts("/out/_texts")
