"""A corpus that is joined on disk: the same rows as one that is held, whatever stops it on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jobs.joins.corpus.disk_join
import jobs.joins.corpus.disk_join_steps
import jobs.joins.corpus.survey
from jobs.errors import StoppedError
from jobs.input.corpus import Corpus
from jobs.input.cutting import MIN_UNIT_BYTES
from jobs.input.selection import EVERYTHING
from jobs.joins.corpus.attaching import TextsById
from jobs.joins.corpus.disk_join import cut_into_batches
from jobs.joins.corpus.disk_join_steps import batch_name
from jobs.records import Unit
from jobs.storage.local import LocalDisk
from jobs.table.columns import ColumnMapping
from tests.jobs import drive
from tests.jobs.conftest import RunJob
from tests.jobs.driver.test_states import StopAfter
from tests.jobs.joins.corpus.test_corpus_jobs import assert_ranked, corpus_table, ids_table
from tests.jobs.tables import (
    PADDING,
    assert_nothing_left_over,
    assert_summary_adds_up,
    names,
    parts,
    read_json,
    rows_of_output,
    write_input,
)
from tests.jobs.workers.test_death import wait_until, written

STAGES = {"ask": "asked", "cut_corpus": "corpus", "answer": "answered", "deliver": "delivered"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.joins.corpus.survey, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(jobs.joins.corpus.disk_join, "BUCKET_BYTES", 2_000)
    monkeypatch.setattr(jobs.joins.corpus.disk_join, "BATCH_BYTES", 2 * MIN_UNIT_BYTES)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    files = write_input(tmp_path / "corpus", a=corpus_table(0, 200), b=corpus_table(200, 100))
    return Corpus(str(files), memory=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some eight units, four batches."""
    return write_input(tmp_path / "in", a=ids_table(200, PADDING))


Ids = st.none() | st.sampled_from(["a", "b", "c", "d", "e", "17", "unknown"])
Texts = st.none() | st.sampled_from(["one", "two", "one"])


@given(
    documents=st.lists(st.tuples(Ids, Texts), min_size=1, max_size=12),
    lists=st.lists(st.none() | st.lists(Ids, max_size=4), min_size=1, max_size=8),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_those_of_a_corpus_that_is_held(
    documents: list[Any],
    lists: list[Any],
    tmp_path_factory: pytest.TempPathFactory,
    run_job: RunJob,
    without_ray: None,
) -> None:
    """With unknown, ambiguous and null ids, null texts and null lists."""
    directory = tmp_path_factory.mktemp("job")
    ids, texts = (pa.array(column, pa.string()) for column in zip(*documents, strict=True))
    held = Corpus(str(write_input(directory / "corpus", a=pa.table({"id": ids, "text": texts}))))
    table = pa.table({"query": ["q"] * len(lists), "documents": pa.array(lists, pa.list_(pa.string()))})
    source = write_input(directory / "in", a=table)
    run_job(source, directory / "held", corpus=held)
    run_job(source, directory / "joined", corpus=replace(held, memory=0))
    assert rows_of_output(directory / "joined") == rows_of_output(directory / "held")


def test_batches_hold_as_many_units_as_their_rows_with_texts_allow(tmp_path: Path) -> None:
    """However large units are: in a file of few row groups they are larger than others."""
    source = write_input(tmp_path / "in", a=ids_table(40, "x" * 1_000))
    units = [Unit(str(source / "a.parquet"), start, 4) for start in range(0, 40, 4)]
    texts = TextsById(ColumnMapping(by_id=True), 250.0)  # four of them in a row
    batches = cut_into_batches(units, EVERYTHING, texts)
    assert [unit for batch in batches for unit in batch] == units
    assert [len(batch) for batch in batches] == [3, 3, 3, 1]


@pytest.mark.slow
def test_on_ray_it_is_joined_and_nothing_is_left(
    source: Path, output: Path, corpus: Corpus, cluster: str, run_job: RunJob
) -> None:
    summary = run_job(source, output, corpus=corpus)
    for row in rows_of_output(output):
        assert_ranked(row)
    assert_summary_adds_up(output, summary, 200)
    assert_nothing_left_over(output)


def stopping(work: Callable[..., None], after: int) -> Callable[..., None]:
    """Fails when it has done so many pieces of work."""
    done: list[None] = []

    def fail(*arguments: Any, **named: Any) -> None:
        if len(done) == after:
            raise StoppedError("stopped by the test")
        done.append(work(*arguments, **named))

    return fail


def file_of(one: Any = None, batch: int = 0) -> str:
    """What a piece of work writes."""
    return batch_name(batch) if one is None else str(one.name)


@pytest.mark.parametrize("stage", STAGES)
def test_a_join_that_was_stopped_goes_on_with_what_is_missing(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None, stage: str
) -> None:
    work = getattr(jobs.joins.corpus.disk_join_steps, stage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.joins.corpus.disk_join_steps, stage, stopping(work, after=2))
        with pytest.raises(StoppedError, match="stopped by the test"):
            run_job(source, output, corpus=corpus)
    [place] = (output / "_texts").glob(f"*/{STAGES[stage]}")
    done = {path.name for path in place.iterdir()}
    assert len(done) == 2
    again: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def recorded(join: Any, *one: Any, **named: Any) -> None:
            again.append(file_of(*one, **named))
            work(join, *one, **named)

        patch.setattr(jobs.joins.corpus.disk_join_steps, stage, recorded)
        run_job(source, output, corpus=corpus)
    assert again
    assert done.isdisjoint(again)
    for row in rows_of_output(output):
        assert_ranked(row)


def test_units_that_came_later_are_joined_anew(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            jobs.joins.corpus.disk_join_steps, "deliver", stopping(jobs.joins.corpus.disk_join_steps.deliver, after=1)
        )
        with pytest.raises(StoppedError):
            run_job(source, output, corpus=corpus)
    pq.write_table(ids_table(30), source / "b.parquet")
    run_job(source, output, corpus=corpus)
    assert len(rows_of_output(output)) == 230
    for row in rows_of_output(output):
        assert_ranked(row)


def test_texts_of_another_job_that_could_not_be_removed_are_not_taken(
    tmp_path: Path, source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    """They are all there for the same rows, from another corpus."""
    files = {name: pq.read_table(f"{corpus.path}/{name}.parquet") for name in "ab"}
    upper = {name: table.set_column(2, "text", pc.utf8_upper(table.column("text"))) for name, table in files.items()}
    other = replace(corpus, path=str(write_input(tmp_path / "other", **upper)))
    with pytest.raises(KeyboardInterrupt):
        run_job(source, output, StopAfter(0), corpus=other)
    assert list(output.glob("_texts/*/delivered/batch-*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalDisk, "remove_below", lambda *_: None)
        run_job(source, output, corpus=corpus, overwrite=True)
    assert len(rows_of_output(output)) == 200
    for row in rows_of_output(output):
        assert_ranked(row)


def test_a_unit_whose_part_is_missing_is_joined_alone(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    run_job(source, output, corpus=corpus)
    before = {part.name: part.read_bytes() for part in parts(output)}
    parts(output)[1].unlink()
    run_job(source, output, corpus=corpus)
    assert {part.name: part.read_bytes() for part in parts(output)} == before


def test_a_file_that_cannot_be_read_costs_its_own_rows(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    pq.write_table(ids_table(300, PADDING), source / "b.parquet", row_group_size=20)
    offset = pq.read_metadata(source / "b.parquet").row_group(14).column(2).data_page_offset
    whole = (source / "b.parquet").read_bytes()
    (source / "b.parquet").write_bytes(whole[:offset] + b"\xff" * 60 + whole[offset + 60 :])
    summary = run_job(source, output, corpus=corpus)
    assert list(summary["unreadable"]) == [str(source / "b.parquet")]
    assert 0 < summary["rows_not_read"] < 60
    for row in rows_of_output(output):
        assert_ranked(row)


def test_texts_that_were_not_gathered_stop_the_job(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a file that could not be read for a while."""
    named_ids = jobs.joins.corpus.disk_join_steps.named_ids
    monkeypatch.setattr(
        jobs.joins.corpus.disk_join_steps, "named_ids", lambda join, batch: list(named_ids(join, batch))[1:]
    )
    with pytest.raises(StoppedError, match=r"the texts of rows 0 to .* were not gathered: .* remove .*/_texts and run"):
        run_job(source, output, corpus=corpus)


@pytest.mark.endurance
def test_a_driver_killed_while_it_joins_loses_and_doubles_nothing(
    tmp_path: Path, source: Path, output: Path, corpus: Corpus, bert_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PIECES", "2000")
    flags = ["--model", bert_directory, "--replicas", "2", "--corpus", corpus.path, "--corpus-memory", "0"]
    moments = random.Random(1)
    for step in STAGES.values():
        with drive.start("SlowScorer", source, output, *flags) as driver:
            pattern, files = f"_texts/*/{step}/[!.]*", moments.randint(1, 3)
            wait_until(lambda at=pattern, files=files: len(list(output.glob(at))) >= files, driver)  # type: ignore[misc]
            driver.kill()
    with drive.start("SlowScorer", source, output, *flags) as driver:
        wait_until(lambda: len(parts(output)) >= 2, driver)
        driver.kill()
    finished = written(output)
    with drive.start("SlowScorer", source, output, *flags) as driver:
        told, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, told
    assert {name: version for name, version in written(output).items() if name in finished} == finished
    assert_summary_adds_up(output, read_json(output / "_summary.json"), 200)
    assert "_texts" not in names(output)
    for row in rows_of_output(output):
        assert_ranked(row)
