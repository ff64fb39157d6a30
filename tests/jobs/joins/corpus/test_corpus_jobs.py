"""Whole jobs over lists of ids with a corpus beside them."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import jobs.joins.corpus.disk_join
import jobs.joins.corpus.survey
from jobs.audit.facts import look
from jobs.audit.integrity import verify
from jobs.driver.dry_run import dry_run
from jobs.errors import RefusedError, StoppedError
from jobs.input.conditions import parse_condition
from jobs.input.corpus import Corpus
from jobs.input.cutting import MIN_UNIT_BYTES
from jobs.input.shards import Shard
from jobs.settings import RerankSettings
from jobs.table.columns import ATTACHED
from pipelines.errors import ConfigError
from tests.checkpoints import words
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import stub_score
from tests.jobs.tables import (
    PADDING,
    assert_nothing_left_over,
    assert_summary_adds_up,
    parts,
    read_output,
    rows_of_output,
    write_input,
)
from tests.stores import Bucket, upload

DOCUMENTS = 300


def text(document: int) -> str:
    return words(5, seed=document)


def corpus_table(start: int = 0, count: int = DOCUMENTS) -> pa.Table:
    documents = range(start, start + count)
    return pa.table({"title": ["t"] * count, "id": documents, "text": [text(one) for one in documents]})


def ids_of(row: int) -> list[str]:
    return [str((7 * row + 3 * i) % DOCUMENTS) for i in range(4)]


def ids_table(count: int, padding: str = "") -> pa.Table:
    """`count` queries with the ids of four documents each."""
    return pa.table(
        {
            "query_id": [f"q{i}" for i in range(count)],
            "query": [f"q{i} {words(3, seed=i)}" for i in range(count)],
            "documents": [ids_of(i) for i in range(count)],
            "number": range(count),
            "padding": [padding] * count,
        }
    )


@pytest.fixture(params=[None, 0], ids=["held by each node", "joined on disk"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Two files, in segments of a few dozen documents; in buckets and batches as small, where it is joined."""
    monkeypatch.setattr(jobs.joins.corpus.survey, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr(jobs.joins.corpus.disk_join, "BUCKET_BYTES", 2_000)
    monkeypatch.setattr(jobs.joins.corpus.disk_join, "BATCH_BYTES", 2 * MIN_UNIT_BYTES)
    files = write_input(tmp_path / "corpus", a=corpus_table(0, 200), b=corpus_table(200, 100))
    return Corpus(str(files), memory=request.param)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_input(tmp_path / "in", a=ids_table(100, PADDING))


def assert_ranked(row: dict[str, Any]) -> None:
    """By the texts of the corpus."""
    scores = {one: stub_score(row["query"], text(int(one))) for one in row["documents"]}
    ranked = [(one["id"], one["relevance_score"]) for one in row["ranking"]]
    assert ranked == [(one, pytest.approx(scores[one])) for one in sorted(scores, key=lambda one: -scores[one])]
    assert row["error"] is None


def test_lists_of_ids_are_ranked_with_the_texts_of_the_corpus(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None, said: StringIO
) -> None:
    summary = run_job(source, output, corpus=corpus)
    rows = rows_of_output(output)
    assert [row["documents"] for row in rows] == [ids_of(i) for i in range(100)]
    for row in rows:
        assert_ranked(row)
    assert read_output(output).column_names == [*ids_table(1).column_names, "ranking", "error"]
    assert "corpus: 300 documents" in said.getvalue()
    assert summary["pairs"] == 400
    assert_summary_adds_up(output, summary, 100)
    assert_nothing_left_over(output)
    assert verify(look(str(output))) == []


@pytest.mark.slow
def test_on_ray_the_replicas_share_it_and_a_stopped_job_goes_on(
    source: Path, output: Path, corpus: Corpus, cluster: str, run_job: RunJob
) -> None:
    run_job(source, output, corpus=corpus)
    before = {part.name: part.read_bytes() for part in parts(output)}
    (output / "_summary.json").unlink()
    parts(output)[0].unlink()
    summary = run_job(source, output, corpus=corpus)
    assert {part.name: part.read_bytes() for part in parts(output)} == before
    assert [attempt["units"] for attempt in summary["attempts"]] == [len(before), 1]
    for row in rows_of_output(output):
        assert_ranked(row)


def test_a_corpus_and_an_input_in_a_store_do_as_well(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None, s3_bucket: Bucket
) -> None:
    there = Corpus(upload(Path(corpus.path), s3_bucket, "corpus"), memory=corpus.memory)
    run_job(upload(source, s3_bucket, "in"), f"{s3_bucket.uri}/out", corpus=there)
    run_job(source, output, corpus=corpus)
    names = [name for name in s3_bucket.names() if name.startswith("out/part-")]
    remote = [row for name in names for row in pq.read_table(pa.BufferReader(s3_bucket.get(name))).to_pylist()]
    assert remote == rows_of_output(output)


def test_ids_that_are_not_in_the_corpus_cost_their_rows_alone(
    tmp_path: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    table = ids_table(4).set_column(2, "documents", pa.array([ids_of(0), ["1", "x"], None, ids_of(3)]))
    summary = run_job(write_input(tmp_path / "in", a=table), output, corpus=corpus)
    assert summary["errors"] == {"null_documents": 1, "unknown_document": 1}
    rows = rows_of_output(output)
    assert rows[1]["error"] == "unknown_document: documents[1] is 'x', which is not in the corpus"
    assert_ranked(rows[0])
    assert_ranked(rows[3])


def test_pairs_are_scored_with_the_text_of_their_id(
    tmp_path: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    source = write_input(tmp_path / "in", a=pa.table({"query": ["a", "b", "c"], "document_id": [5, 299, 300]}))
    summary = run_job(source, output, corpus=corpus)
    assert summary["errors"] == {"unknown_document": 1}
    rows = rows_of_output(output)
    assert [row["relevance_score"] for row in rows] == [
        pytest.approx(stub_score("a", text(5))),
        pytest.approx(stub_score("b", text(299))),
        None,
    ]
    assert read_output(output).column_names == ["query", "document_id", "relevance_score", "error"]


def test_a_part_of_the_rows_gets_its_texts_too(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    run_job(source, output, corpus=corpus, limit=50, where=(parse_condition("number >= 40"),))
    assert [row["number"] for row in rows_of_output(output)] == list(range(40, 50))
    for row in rows_of_output(output):
        assert_ranked(row)


def test_shares_with_the_same_corpus_make_up_the_whole(
    source: Path, tmp_path: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    rows = []
    for number in (1, 2):
        output = tmp_path / f"out{number}"
        run_job(source, output, corpus=corpus, shard=Shard(number, 2))
        rows += rows_of_output(output)
    assert sorted(row["number"] for row in rows) == list(range(100))


def test_a_resumption_with_another_corpus_is_refused(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    run_job(source, output, corpus=corpus)
    pq.write_table(corpus_table(0, 10), Path(corpus.path) / "c.parquet")
    with pytest.raises(RefusedError, match=r"--corpus was \{'path': '.*'files': 2, .*\}, is \{'path': .*'files': 3, "):
        run_job(source, output, corpus=corpus)
    with pytest.raises(RefusedError, match=r"--corpus was \{.*\}, is None"):
        run_job(source, output)
    assert run_job(source, output, corpus=corpus, overwrite=True)["rows_with_errors"] == 0


@pytest.mark.parametrize("place", ["in", "out"])
def test_a_corpus_inside_input_or_output_is_refused(
    source: Path, output: Path, run_job: RunJob, without_ray: None, place: str
) -> None:
    corpus = write_input(source.parent / place / "corpus", c=corpus_table())
    with pytest.raises(RefusedError, match="corpus"):
        run_job(source, output, corpus=Corpus(str(corpus)))


def test_columns_that_have_no_ids_are_a_usage_error_and_without_corpus_the_error_names_it(
    tmp_path: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    source = write_input(tmp_path / "in", a=pa.table({"query": ["q"], "documents": [[{"key": "1"}]]}))
    with pytest.raises(ConfigError, match="field `id` of `documents` is missing"):
        run_job(source, output, corpus=corpus)
    source = write_input(tmp_path / "structs", a=pa.table({"query": ["q"], "documents": [[{"id": "1"}]]}))
    with pytest.raises(ConfigError, match="where there are only ids, give --corpus"):
        run_job(source, output)


def test_a_corpus_with_a_hole_stops_the_job_rather_than_make_documents_unknown(
    source: Path, output: Path, corpus: Corpus, run_job: RunJob, without_ray: None
) -> None:
    file = Path(corpus.path) / "a.parquet"
    pq.write_table(corpus_table(0, 600), file, row_group_size=20)
    start = pq.read_metadata(file).row_group(25).column(2).data_page_offset
    whole = file.read_bytes()
    file.write_bytes(whole[:start] + b"\xff" * 100 + whole[start + 100 :])
    with pytest.raises(StoppedError, match=r"corpus file .*a\.parquet cannot be read \(rows .*\): OSError"):
        run_job(source, output, corpus=corpus)
    assert parts(output) == []


def test_a_dry_run_counts_what_the_job_then_does(
    source: Path,
    output: Path,
    corpus: Corpus,
    run_job: RunJob,
    without_ray: None,
    settings_of: Callable[..., RerankSettings],
    said: StringIO,
) -> None:
    settings = settings_of(source, output, corpus=corpus, dry_run=True, pairs_per_second=100.0)
    if corpus.memory == 0:
        with pytest.raises(
            ConfigError, match=r"--dry-run holds the whole corpus in memory, and .* give --corpus-memory"
        ):
            dry_run(settings, Console(file=said))
        return
    estimate = dry_run(settings, Console(file=said))
    summary = run_job(source, output, corpus=corpus)
    assert estimate["pairs"] == summary["pairs"]
    assert estimate["units"] == summary["parts"]
    assert ATTACHED not in said.getvalue()


def test_units_hold_as_many_passages_as_if_the_texts_were_in_the_rows(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    long = pa.table({"id": range(100), "text": ["x" * 1_000] * 100})
    table = pa.table({"query": ["q"] * 500, "documents": [[str(i % 100) for i in range(20)]] * 500})
    corpus = Corpus(str(write_input(tmp_path / "corpus", a=long)))
    summary = run_job(write_input(tmp_path / "in", a=table), output, corpus=corpus)
    assert summary["parts"] > 50
