"""Every state in which a job may find its output directory. The jobs run without Ray, which adds nothing here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import jobs.driver.passes
import jobs.driver.run
from jobs.audit.facts import look
from jobs.audit.integrity import verify
from jobs.driver.resolution import JOB_ENVIRONMENT
from jobs.errors import RefusedError, StoppedError
from jobs.output.lease import hold_lease
from jobs.output.parts import METADATA_KEY
from jobs.settings import RerankSettings
from jobs.table.columns import ColumnMapping, Layout
from pipelines.errors import ConfigError
from pipelines.model_sources import find_model
from tests.checkpoints import copy_model, edit_config
from tests.jobs.conftest import RunJob
from tests.jobs.permissions import as_nobody
from tests.jobs.stubs import RecordingScorer, StubScorer, recorded_calls
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    names,
    parts,
    read_json,
    rows_of_output,
    write_input,
)

pytestmark = pytest.mark.usefixtures("without_ray")


@pytest.fixture
def finished(source: Path, output: Path, run_job: RunJob) -> Path:
    """The output of a finished job over `source`."""
    run_job(source, output)
    return output


@pytest.fixture
def unfinished(finished: Path) -> Path:
    """The same, stopped after two units of the first file."""
    for part in parts(finished)[2:]:
        part.unlink()
    (finished / "_summary.json").unlink()
    return finished


def touched(directory: Path) -> dict[str, tuple[int, int]]:
    """When and where each part was written."""
    return {part.name: (part.stat().st_mtime_ns, part.stat().st_ino) for part in parts(directory)}


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def change(path: Path) -> None:
    """Other content of the same shape, at another time."""
    pq.write_table(lists_table(5, tag="changed"), path)
    os.utime(path, ns=(1, 1))


class StopAfter:
    """A scorer that stops the job after some units, as a signal or a full disk would."""

    def __init__(self, units: int) -> None:
        self.units = units

    def __call__(self, *arguments: Any) -> StubScorer:
        left = [self.units]

        class Stopping(StubScorer):
            def rerank_lists(self, lists: Any, spent: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return super().rerank_lists(lists, spent)

        return Stopping(*arguments)


def test_no_directory_a_new_job(source: Path, output: Path, run_job: RunJob) -> None:
    summary = run_job(source, output)
    assert_summary_adds_up(output, summary, 105)
    assert_nothing_left_over(output)
    assert summary["files"] == 2
    assert len(summary["attempts"]) == 1


def test_an_empty_directory_a_new_job(source: Path, output: Path, run_job: RunJob) -> None:
    output.mkdir()
    assert run_job(source, output)["rows"] == 105


def test_unfinished_goes_on_and_leaves_finished_parts_as_they_are(
    source: Path, unfinished: Path, run_job: RunJob
) -> None:
    before = touched(unfinished)
    assert len(before) == 2
    summary = run_job(source, unfinished, replicas=(2, 2), num_cpus=2)
    assert {name: touched(unfinished)[name] for name in before} == before
    assert_summary_adds_up(unfinished, summary, 105)
    assert_nothing_left_over(unfinished)
    assert [attempt["units"] for attempt in summary["attempts"]] == [5, 3]


def test_stopped_and_resumed_is_the_same_as_undisturbed(source: Path, tmp_path: Path, run_job: RunJob) -> None:
    run_job(source, tmp_path / "undisturbed")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_job(source, tmp_path / "disturbed", scorer_class=StopAfter(1))
    assert not (tmp_path / "disturbed" / "_summary.json").exists()
    assert len(parts(tmp_path / "disturbed")) == 3
    run_job(source, tmp_path / "disturbed")
    both = [
        {name: content for name, content in contents(tmp_path / output).items() if name.startswith("part-")}
        for output in ("undisturbed", "disturbed")
    ]
    assert both[0] == both[1]
    summaries = [read_json(tmp_path / output / "_summary.json") for output in ("undisturbed", "disturbed")]
    times = {"seconds", "pairs_per_second", "replica_seconds", "stages", "attempts"}
    assert [{key: one[key] for key in one.keys() - times} for one in summaries] == [
        {key: summaries[0][key] for key in summaries[0].keys() - times}
    ] * 2


def test_complete_says_so_and_does_nothing(
    source: Path, finished: Path, run_job: RunJob, said: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(finished), touched(finished)
    monkeypatch.setattr(jobs.driver.passes, "ray_session", None)
    summary = run_job(source, finished)
    assert f"{finished} is complete, and INPUT has nothing new" in said.getvalue()
    assert summary == read_json(finished / "_summary.json")
    assert (contents(finished), touched(finished)) == before


def test_new_input_files_are_added_to_a_complete_job(source: Path, finished: Path, run_job: RunJob) -> None:
    before = touched(finished)
    write_input(source, c=lists_table(7, tag="c"))
    summary = run_job(source, finished)
    assert {name: touched(finished)[name] for name in before} == before
    assert_summary_adds_up(finished, summary, 112)
    assert_nothing_left_over(finished)
    assert len(read_json(finished / "_manifest.json")["files"]) == 3
    assert summary["attempts"][-1]["rows"] == 7


def test_a_complete_job_that_goes_on_is_no_longer_complete(source: Path, finished: Path, run_job: RunJob) -> None:
    write_input(source, c=lists_table(7, tag="c"))
    with pytest.raises(KeyboardInterrupt):
        run_job(source, finished, scorer_class=StopAfter(0))
    assert not (finished / "_summary.json").exists()
    assert run_job(source, finished)["rows"] == 112


def test_a_changed_file_with_finished_units_is_refused(source: Path, unfinished: Path, run_job: RunJob) -> None:
    change(source / "a.parquet")
    before = contents(unfinished)
    with pytest.raises(RefusedError, match=r"input file .*a\.parquet has changed after units of it were finished"):
        run_job(source, unfinished)
    assert contents(unfinished) == before


def test_a_removed_file_with_finished_units_is_refused(source: Path, finished: Path, run_job: RunJob) -> None:
    (source / "b.parquet").unlink()
    before = contents(finished)
    with pytest.raises(RefusedError, match=r"input file .*b\.parquet was removed after units of it were finished"):
        run_job(source, finished)
    assert contents(finished) == before


def test_a_file_without_finished_units_may_change(source: Path, unfinished: Path, run_job: RunJob) -> None:
    change(source / "b.parquet")
    assert run_job(source, unfinished)["rows"] == 105
    assert {row["query_id"][:7] for row in rows_of_output(unfinished)[100:]} == {"changed"}


def test_a_file_without_finished_units_may_go(source: Path, unfinished: Path, run_job: RunJob) -> None:
    (source / "b.parquet").unlink()
    assert_summary_adds_up(unfinished, run_job(source, unfinished), 100)


def test_an_unreadable_file_is_tried_again_once_it_is_repaired(source: Path, output: Path, run_job: RunJob) -> None:
    good = (source / "b.parquet").read_bytes()
    (source / "b.parquet").write_bytes(good[:-20])
    summary = run_job(source, output)
    assert list(summary["unreadable"]) == [str(source / "b.parquet")]
    before = touched(output)
    assert run_job(source, output) == summary  # still unreadable: nothing new
    (source / "b.parquet").write_bytes(good)
    repaired = run_job(source, output)
    assert repaired["unreadable"] == {}
    assert {name: touched(output)[name] for name in before} == before
    assert_summary_adds_up(output, repaired, 105)


def test_an_output_that_we_may_not_write_is_a_usage_error(
    shared_directory: Path, run_job: RunJob, bert_directory: Path
) -> None:
    source = write_input(shared_directory / "in", a=lists_table(3))
    model = shutil.copytree(bert_directory, shared_directory / "model")
    for file in model.iterdir():
        file.chmod(0o644)
    output = shared_directory / "out"
    output.mkdir(mode=0o555)
    told = r"out may not be written by this user \(Permission denied\); let it, or give another directory"
    with as_nobody(), pytest.raises(ConfigError, match=told):
        run_job(source, output, reranker={"model": str(model)})
    assert list(output.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"top_n": 2}, "--top-n was None, is 2"),
        ({"score_threshold": 0.5, "uncalibrated": True}, "--score-threshold was None, is 0.5"),
        ({"reranker": {"raw_scores": True}}, "--raw-scores was False, is True"),
        ({"reranker": {"max_length": 64}}, "--max-length was 512, is 64; --max-query-length was 256, is 32"),
        ({"reranker": {"max_query_length": 32}}, "--max-query-length was 256, is 32"),
        ({"reranker": {"overlap_tokens": 10}}, "--overlap-tokens was 80, is 10"),
        ({"reranker": {"max_chunks_per_doc": 1}}, "--max-chunks-per-doc was None, is 1"),
        ({"reranker": {"dtype": "bfloat16"}}, "--dtype was 'float32', is 'bfloat16'"),
        ({"mapping": ColumnMapping(query="query_id")}, "--query-column was 'query', is 'query_id'"),
        ({"mapping": ColumnMapping(output_prefix="our_")}, "--output-prefix was '', is 'our_'"),
        ({"mapping": ColumnMapping(drop=("padding",))}, r"--drop was \[\], is \['padding'\]"),
        ({"layout": Layout.PAIRS}, "--layout was 'lists', is 'pairs'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_what_would_change_the_result_is_refused_with_both_values(
    source: Path,
    state: str,
    settings: dict[str, Any],
    named: str,
    run_job: RunJob,
    request: pytest.FixtureRequest,
) -> None:
    directory = request.getfixturevalue(state)
    before = contents(directory)
    with pytest.raises(RefusedError, match=f"OUTPUT was begun with other settings: {named}; give the same settings"):
        run_job(source, directory, **settings)
    assert contents(directory) == before


@pytest.mark.parametrize("limit", [{"max_pairs": 1}, {"max_minutes": 1e-6}], ids=lambda limit: next(iter(limit)))
def test_a_limit_stops_a_run_that_the_same_command_goes_on_with(
    source: Path, output: Path, run_job: RunJob, limit: dict[str, Any]
) -> None:
    """Here after each unit, of which there are five."""
    told = "is reached: this run has ranked .* of 105 rows are done"
    for runs in range(1, 5):
        with pytest.raises(StoppedError, match=told):
            run_job(source, output, **limit)
        assert len(parts(output)) == runs
    assert_summary_adds_up(output, run_job(source, output, **limit), 105)


def test_a_limit_that_is_reached_with_the_last_unit_stops_nothing(source: Path, output: Path, run_job: RunJob) -> None:
    pairs = run_job(source, output)["pairs"]
    assert run_job(source, output, overwrite=True, max_pairs=pairs)["pairs"] == pairs


def test_where_no_part_is_finished_other_settings_begin_anew(
    source: Path, unfinished: Path, run_job: RunJob, said: StringIO
) -> None:
    for part in parts(unfinished):
        part.unlink()
    summary = run_job(source, unfinished, top_n=2)
    told = "has no finished part, so it begins anew: OUTPUT was begun with other settings: --top-n was None, is 2"
    assert told in said.getvalue()
    assert len(summary["attempts"]) == 1
    assert {len(row["ranking"]) for row in rows_of_output(unfinished)} == {2}


def test_another_model_is_refused(
    source: Path, unfinished: Path, run_job: RunJob, bert_directory: Path, tmp_path: Path
) -> None:
    other = edit_config(copy_model(bert_directory, tmp_path / "other"), layer_norm_eps=1e-6)
    digests = r"--model \(SHA-256 of its files\) was '[0-9a-f]{64}', is '[0-9a-f]{64}'"
    with pytest.raises(RefusedError, match=f"begun with other settings: {digests};"):
        run_job(source, unfinished, reranker={"model": str(other)})


def test_the_same_model_at_another_place_is_the_same(
    source: Path, unfinished: Path, run_job: RunJob, bert_directory: Path, tmp_path: Path
) -> None:
    moved = copy_model(bert_directory, tmp_path / "moved")
    assert run_job(source, unfinished, reranker={"model": str(moved)})["rows"] == 105


def test_lengths_beyond_the_model_are_the_same_after_clamping(source: Path, unfinished: Path, run_job: RunJob) -> None:
    assert run_job(source, unfinished, reranker={"max_length": 4_096})["rows"] == 105


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_overwrite_starts_anew(source: Path, state: str, run_job: RunJob, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(state)
    (source / "b.parquet").unlink()
    summary = run_job(source, directory, overwrite=True, top_n=1)
    assert_summary_adds_up(directory, summary, 100)
    assert_nothing_left_over(directory)
    assert {len(row["ranking"]) for row in rows_of_output(directory)} == {1}
    assert names(directory / "_attempts") == ["000001.json"]


def test_overwrite_leaves_foreign_files_of_our_directory_alone(source: Path, finished: Path, run_job: RunJob) -> None:
    (finished / "notes.txt").write_text("mine")
    run_job(source, finished, overwrite=True)
    assert (finished / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", "_SUCCESS", "day=1/a.parquet"])
def test_a_directory_that_is_not_ours_is_refused(
    source: Path, output: Path, run_job: RunJob, name: str, overwrite: bool
) -> None:
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("theirs")
    with pytest.raises(RefusedError, match=f"OUTPUT {output} is not empty .* and no job of ours wrote it"):
        run_job(source, output, overwrite=overwrite)
    assert contents(output) == {name: b"theirs"}


def test_an_overwrite_that_the_columns_forbid_destroys_nothing(source: Path, finished: Path, run_job: RunJob) -> None:
    before = contents(finished)
    with pytest.raises(ConfigError, match="texts"):
        run_job(source, finished, overwrite=True, mapping=ColumnMapping(documents="texts"))
    assert contents(finished) == before


def test_a_usage_error_leaves_no_directory_behind(source: Path, output: Path, run_job: RunJob) -> None:
    with pytest.raises(ConfigError, match="column `texts` is missing"):
        run_job(source, output, mapping=ColumnMapping(documents="texts"))
    assert not output.exists()


def test_an_output_that_is_a_file_is_refused(source: Path, output: Path, run_job: RunJob) -> None:
    output.write_text("a file")
    with pytest.raises(RefusedError, match=f"OUTPUT {output} is a file; give a directory"):
        run_job(source, output)
    assert output.read_text() == "a file"


@pytest.mark.parametrize(
    ("input_at", "output_at"),
    [
        ("in", "in"),
        ("in", "in/out"),
        ("in/*.parquet", "in"),
        ("in/a.parquet", "in"),
        ("in", "."),
        ("in*", "in/out"),
        ("*", "out"),
        ("**/*.parquet", "in/deep/out"),
        ("in/../in", "in/out"),
    ],
)
def test_output_inside_input_and_input_inside_output_are_refused(
    source: Path, tmp_path: Path, run_job: RunJob, input_at: str, output_at: str
) -> None:
    before = contents(tmp_path)
    with pytest.raises(RefusedError, match="contain one another; keep them apart"):
        run_job(f"{tmp_path}/{input_at}", f"{tmp_path}/{output_at}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("output_at", ["inn", "out/in", "in.out"])
def test_neighbours_are_apart(source: Path, tmp_path: Path, run_job: RunJob, output_at: str) -> None:
    assert run_job(source, tmp_path / output_at)["rows"] == 105


def test_an_output_behind_a_link_into_the_input_is_refused(source: Path, tmp_path: Path, run_job: RunJob) -> None:
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(RefusedError, match="contain one another"):
        run_job(source, tmp_path / "link" / "out")


def test_a_second_driver_is_refused(source: Path, unfinished: Path, run_job: RunJob) -> None:
    with hold_lease(str(unfinished)):
        before = contents(unfinished)
        for overwrite in (False, True):
            with pytest.raises(RefusedError, match=f"another driver is writing to {unfinished}"):
                run_job(source, unfinished, overwrite=overwrite)
        assert contents(unfinished) == before
    assert run_job(source, unfinished)["rows"] == 105


def test_a_job_that_was_begun_and_ended_by_another_driver_meanwhile_is_not_begun_again(
    source: Path, output: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers see an empty directory; one is done before the other gets the lease."""
    real_lease = jobs.driver.run.hold_lease
    other: list[dict[str, tuple[int, int]]] = []

    def lease_after_the_other(path: str, *rest: Any) -> Any:
        monkeypatch.setattr(jobs.driver.run, "hold_lease", real_lease)
        run_job(source, output)
        other.append(touched(output))
        return real_lease(path, *rest)

    monkeypatch.setattr(jobs.driver.run, "hold_lease", lease_after_the_other)
    run_job(source, output)
    assert touched(output) == other[0]


def test_relative_paths_are_those_of_the_working_directory(
    source: Path, output: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run_job("in", "out")
    assert [Path(file["path"]) for file in read_json(output / "_manifest.json")["files"]] == [
        source / "a.parquet",
        source / "b.parquet",
    ]
    monkeypatch.chdir(source)
    assert run_job("../in", "../out")["rows"] == 105


@pytest.mark.parametrize(("input_at", "output_at"), [("in", "{}/out"), ("{}/in", "out")])
def test_relative_paths_inside_a_submitted_job_are_refused(
    source: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, input_at: str, output_at: str
) -> None:
    monkeypatch.setenv(JOB_ENVIRONMENT, "{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="inside a submitted job it must be absolute"):
        run_job(input_at.format(tmp_path), output_at.format(tmp_path))
    assert names(tmp_path) == ["in", "in/a.parquet", "in/b.parquet"]


def test_a_relative_model_inside_a_submitted_job_is_refused(
    source: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bert_directory: Path
) -> None:
    monkeypatch.setenv(JOB_ENVIRONMENT, "{}")
    monkeypatch.chdir(bert_directory.parent)
    with pytest.raises(ConfigError, match="--model is 'bert'; inside a submitted job"):
        run_job(source, tmp_path / "out", reranker={"model": bert_directory.name})


def test_embedded_is_the_embedded_model_beside_a_directory_of_that_name(
    source: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bert_directory: Path
) -> None:
    """In a submitted job too, which refuses directories that are relative."""
    shutil.copytree(bert_directory, tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)

    def files_of_model(output: str, model: str) -> str:
        run_job(source, tmp_path / output, reranker={"model": model})
        return str(read_json(tmp_path / output / "_manifest.json")["fingerprint"]["files"])

    directory = files_of_model("a", "./embedded")
    assert directory == files_of_model("b", str(bert_directory))
    monkeypatch.setenv(JOB_ENVIRONMENT, "{}")
    assert files_of_model("c", "embedded") == find_model("embedded").digest() != directory
    with pytest.raises(ConfigError, match=r"--model is '\./embedded'; inside a submitted job"):
        files_of_model("d", "./embedded")


def test_leftovers_of_a_killed_driver_are_cleared_away(source: Path, unfinished: Path, run_job: RunJob) -> None:
    for path in (unfinished, unfinished / "_attempts"):
        (path / ".something.json.0123456789abcdef.tmp").write_text("half")
    run_job(source, unfinished)
    assert_nothing_left_over(unfinished)


def test_a_part_of_another_job_stops_the_summary(source: Path, finished: Path, tmp_path: Path, run_job: RunJob) -> None:
    run_job(source, tmp_path / "other", reranker={"max_length": 64})
    (finished / "_summary.json").unlink()
    shutil.copy(parts(tmp_path / "other")[0], parts(finished)[0])
    with pytest.raises(StoppedError, match=r"part-a.* is not a part of this job; remove it and run the same"):
        run_job(source, finished)
    parts(finished)[0].unlink()
    assert run_job(source, finished)["rows"] == 105


def test_a_damaged_part_stops_the_summary(source: Path, finished: Path, run_job: RunJob) -> None:
    (finished / "_summary.json").unlink()
    os.truncate(parts(finished)[0], 100)
    with pytest.raises(StoppedError, match=r"part-a.* cannot be read .*; remove it and run the same command again"):
        run_job(source, finished)
    parts(finished)[0].unlink()
    assert run_job(source, finished)["rows"] == 105


@pytest.mark.parametrize("footer", [b"{", b"[]", b"[" * 100_000, b"\xff", b"{}"])
def test_a_part_with_another_footer_stops_the_summary(
    source: Path, finished: Path, run_job: RunJob, footer: bytes
) -> None:
    (finished / "_summary.json").unlink()
    part = parts(finished)[0]
    pq.write_table(pq.ParquetFile(part).read().replace_schema_metadata({METADATA_KEY: footer}), part)
    assert [str(part)] == [finding.path for finding in verify(look(str(finished))) if finding.path.endswith("parquet")]
    with pytest.raises(StoppedError, match=r"part-a.*; remove it and run the same command again"):
        run_job(source, finished)


def test_a_manifest_of_another_format_is_refused(source: Path, finished: Path, run_job: RunJob) -> None:
    text = (finished / "_manifest.json").read_text()
    (finished / "_manifest.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(RefusedError, match="has format 2, this version writes 1; use --overwrite"):
        run_job(source, finished)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_a_damaged_manifest_is_refused(source: Path, finished: Path, run_job: RunJob, text: str) -> None:
    (finished / "_manifest.json").write_text(text)
    with pytest.raises(RefusedError, match="is damaged"):
        run_job(source, finished)
    assert run_job(source, finished, overwrite=True)["rows"] == 105


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "[" * 100_000])
@pytest.mark.parametrize("name", ["_summary.json", "_attempts/000001.json", "_attempts/000001 (copy).json"])
def test_a_damaged_summary_is_made_anew_and_damaged_records_are_passed_over(
    source: Path, finished: Path, run_job: RunJob, name: str, text: str
) -> None:
    before = read_json(finished / "_summary.json")
    (finished / "_summary.json").unlink()
    (finished / name).write_text(text)
    summary = run_job(source, finished)
    assert [summary[key] for key in ("rows", "errors", "parts")] == [before[key] for key in ("rows", "errors", "parts")]
    assert read_json(finished / "_summary.json") == summary
    assert verify(look(str(finished))) == []


def test_a_disk_failure_in_the_driver_stops_resumably(
    source: Path, unfinished: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(jobs.driver.run, "write_json", full_disk)
        with pytest.raises(StoppedError, match="No space left on device"):
            run_job(source, unfinished)
    assert run_job(source, unfinished)["rows"] == 105


def test_finished_units_are_not_scored_again(source: Path, unfinished: Path, run_job: RunJob) -> None:
    summary = run_job(source, unfinished, scorer_class=RecordingScorer)
    assert len(recorded_calls(unfinished)) == 3
    assert summary["parts"] == 5


def test_other_library_versions_are_a_warning(
    source: Path, unfinished: Path, run_job: RunJob, said: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.driver.run, "library_versions", lambda: {"torch": "1.0"})
    assert run_job(source, unfinished)["rows"] == 105
    assert "begun with other library versions" in said.getvalue()


def test_the_manifest_says_what_was_asked_for(
    source: Path, finished: Path, settings_of: Callable[..., RerankSettings]
) -> None:
    manifest = read_json(finished / "_manifest.json")
    assert manifest["options"] == settings_of(source, finished).result_options(Layout.LISTS, {}).as_dict()
    assert (manifest["fingerprint"]["max_length"], manifest["fingerprint"]["dtype"]) == (512, "float32")
    assert [file["rows"] for file in manifest["files"]] == [100, 5]
    assert [len(file["units"]) for file in manifest["files"]] == [4, 1]
    assert read_output_rows(finished) == 105


def read_output_rows(output: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in parts(output))


def test_the_input_is_read_only(source: Path, output: Path, run_job: RunJob) -> None:
    before = contents(source)
    run_job(source, output)
    assert contents(source) == before
