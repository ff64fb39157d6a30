"""A job from its input to its output: which rows come out, and how. On a real Ray where Ray could matter."""

from __future__ import annotations

import datetime
import decimal
import functools
import itertools
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs.driver.run
from jobs.driver.run import run
from jobs.errors import RefusedError
from jobs.rerank import exit_code
from jobs.scoring.scorer import LoadScorer, own_scorer
from jobs.settings import RerankSettings
from jobs.table.columns import RANKING_TYPE, ColumnMapping, Layout
from pipelines.errors import ConfigError
from pipelines.records import CandidateList
from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import StubScorer, stub_score
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    parts,
    queries,
    read_output,
    rows_of_output,
    wide_table,
    write_input,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reranker(bert_directory: Path) -> Reranker:
    return Reranker.load(str(bert_directory), device="cpu", num_threads=1)


def struct_documents(count: int, with_ids: bool) -> list[list[dict[str, Any]]]:
    """Three documents for each query; the first is long enough for two chunks."""
    return [
        [
            {"text": words(600 if j == 0 else 20, seed=10 * i + j)} | ({"id": f"d{i}.{j}"} if with_ids else {"rank": j})
            for j in range(3)
        ]
        for i in range(count)
    ]


def assert_ranked_by_stub(row: dict[str, Any]) -> None:
    expected = sorted((-stub_score(row["query"], document), i) for i, document in enumerate(row["documents"]))
    assert [(-one["relevance_score"], one["index"]) for one in row["ranking"]] == expected
    assert row["error"] is None


def test_every_row_comes_out_ranked_and_in_order(tmp_path: Path, cluster: str, run_job: RunJob) -> None:
    table = wide_table(100)
    output = tmp_path / "out"
    summary = run_job(write_input(tmp_path / "in", a=table), output, replicas=(2, 2))
    answered = read_output(output)
    assert answered.select(table.column_names).equals(table)
    assert answered.schema.names == [*table.schema.names, "ranking", "error"]
    assert answered.schema.field("ranking").type == RANKING_TYPE
    for row in answered.to_pylist():
        assert_ranked_by_stub(row)
    assert summary["parts"] == 4
    assert_summary_adds_up(output, summary, 100)
    assert_nothing_left_over(output)


def test_scores_are_those_of_the_reranker_in_every_form_of_list(
    tmp_path: Path, cluster: str, run_job: RunJob, reranker: Reranker
) -> None:
    """Three files with different schemas in one job; and two runs, with other replicas, write the same bytes.

    To the last bit as long as a score depends on nothing but its unit, so without memory.
    """
    tables = {
        "a": lists_table(10),
        "b": pa.table({"query": queries(5), "documents": struct_documents(5, with_ids=True), "day": range(5)}),
        "c": pa.table({"query": queries(5, "c"), "documents": struct_documents(5, with_ids=False)}),
    }
    source = write_input(tmp_path / "in", **tables)
    summary = run_job(source, tmp_path / "out", scorer_class=own_scorer, replicas=(1, 1), recent_pairs=0)
    assert_summary_adds_up(tmp_path / "out", summary, 20)
    assert summary["chunks"] > summary["pairs"] == 60
    for row in rows_of_output(tmp_path / "out"):
        texts = [one if isinstance(one, str) else one["text"] for one in row["documents"]]
        ids = [None if isinstance(one, str) else one.get("id") for one in row["documents"]]
        [ranking] = reranker.rerank_lists([CandidateList(row["query"], texts)])
        assert [one["index"] for one in row["ranking"]] == [one.index for one in ranking.documents]
        assert [one["id"] for one in row["ranking"]] == [ids[one.index] for one in ranking.documents]
        for ours, direct in zip(row["ranking"], ranking.documents, strict=True):
            assert ours["relevance_score"] == pytest.approx(direct.relevance_score, abs=TOLERANCE)
    for part in parts(tmp_path / "out"):
        of_file = tables[part.name.split("-")[1]]
        assert pq.read_schema(part).names == [*of_file.schema.names, "ranking", "error"]
    run_job(source, tmp_path / "again", scorer_class=own_scorer, replicas=(2, 2), recent_pairs=0)
    both = [{part.name: part.read_bytes() for part in parts(tmp_path / one)} for one in ("out", "again")]
    assert both[0] == both[1]


def test_pair_rows_get_a_score_each(tmp_path: Path, without_ray: None, run_job: RunJob, reranker: Reranker) -> None:
    table = pa.table(
        {
            "query_id": [f"q{i // 4}" for i in range(40)],
            "query": [words(3, seed=i // 4) for i in range(40)],
            "document_id": range(40),
            "document": [None if i == 7 else words(20, seed=i) for i in range(40)],
        }
    )
    output = tmp_path / "out"
    summary = run_job(write_input(tmp_path / "in", a=table), output, scorer_class=own_scorer)
    answered = read_output(output)
    assert answered.select(table.column_names).equals(table)
    assert answered.schema.names == [*table.schema.names, "relevance_score", "error"]
    assert answered.schema.field("relevance_score").type == pa.float32()
    for i, row in enumerate(answered.to_pylist()):
        if i == 7:
            assert (row["relevance_score"], row["error"]) == (None, "null_document: document is null")
        else:
            [direct] = reranker.rerank(row["query"], [row["document"]])
            assert row["relevance_score"] == pytest.approx(direct.relevance_score, abs=TOLERANCE)
    assert_summary_adds_up(output, summary, 40)


def test_other_columns_come_out_as_they_went_in_whatever_their_type(
    tmp_path: Path, cluster: str, run_job: RunJob
) -> None:
    noon = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
    columns = {
        "binary": pa.array([b"\x00\xff", None, b""]),
        "boolean": pa.array([True, None, False]),
        "date": pa.array([noon.date(), None, noon.date()]),
        "decimal": pa.array([decimal.Decimal("1.20"), None, decimal.Decimal("-3.45")], pa.decimal128(10, 2)),
        "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
        "duration": pa.array([datetime.timedelta(1), None, datetime.timedelta(2)]),
        "fixed": pa.array([b"1234", None, b"5678"], pa.binary(4)),
        "float16": pa.array([1.5, None, -2.0], pa.float16()),
        "int8": pa.array([1, None, -1], pa.int8()),
        "large_list": pa.array([[1], None, []], pa.large_list(pa.int64())),
        "large_string": pa.array(["x", None, ""], pa.large_string()),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "nested": pa.array([{"a": [{"b": [1, None]}]}, None, {"a": None}]),
        "nothing": pa.nulls(3),
        "time": pa.array([noon.time(), None, noon.time()], pa.time64("us")),
        "timestamp": pa.array([noon, None, noon], pa.timestamp("us", "Europe/Berlin")),
        "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
        "vector": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    }
    table = lists_table(3)
    for name, column in columns.items():
        table = table.append_column(name, column)
    table = table.replace_schema_metadata({"origin": "a crawl"})
    table = table.set_column(1, pa.field("query", pa.string(), metadata={"lang": "en"}), table["query"])
    source = write_input(tmp_path / "in", a=table)
    read = pq.read_table(source / "a.parquet")
    run_job(source, tmp_path / "out")
    answered = read_output(tmp_path / "out")
    assert answered.select(table.column_names).equals(read)
    for name in table.column_names:
        assert answered.schema.field(name).type == read.schema.field(name).type, name
    assert answered.schema.field("query").metadata[b"lang"] == b"en"
    assert answered.schema.metadata[b"origin"] == b"a crawl"


def test_a_bad_row_gets_its_error_and_costs_no_other(tmp_path: Path, cluster: str, run_job: RunJob) -> None:
    texts: list[tuple[bytes | None, list[bytes | None] | None, str | None]] = [
        (b"fine", [b"one", b"two"], None),
        (None, [b"one"], "null_query: query is null"),
        (b" \t\n", [b"one"], "blank_query: query has nothing but white space"),
        (b"", [b"one"], "blank_query: query has nothing but white space"),
        (b"fine", None, "null_documents: documents is null"),
        (b"fine", [b"one", None], None),
        (b"fine", [b"one", b"ab\xff"], "invalid_utf8: documents[1] is not valid UTF-8 at byte 2"),
        (b"\xffine", [b"one"], "invalid_utf8: query is not valid UTF-8 at byte 0"),
        (b"fine", [], None),
        (b"fine", [b""], None),
        (b"fine", [b"one", b"two"], None),
    ]
    unchecked = functools.partial(pa.Array.cast, safe=False)
    table = pa.table(
        {
            "query_id": pa.nulls(len(texts), pa.string()),
            "query": unchecked(pa.array([query for query, _, _ in texts], pa.binary()), pa.string()),
            "documents": unchecked(
                pa.array([documents for _, documents, _ in texts], pa.list_(pa.binary())), pa.list_(pa.string())
            ),
        }
    )
    structs = pa.table(
        {"query": ["fine"] * 3, "documents": [[{"text": "one"}, None], [{"text": None}], [{"text": "one"}]]}
    )
    output = tmp_path / "out"
    summary = run_job(write_input(tmp_path / "in", a=table, b=structs), output)
    answered = [pq.read_table(part) for part in parts(output)]
    assert answered[0]["error"].to_pylist() == [error for _, _, error in texts]
    assert answered[1]["error"].to_pylist() == [None] * 3
    for one in itertools.chain(*(table.select(["ranking", "error"]).to_pylist() for table in answered)):
        assert (one["ranking"] is None) == (one["error"] is not None)
    assert [len(one or []) for one in answered[0]["ranking"].to_pylist()] == [2, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2]
    assert [one["relevance_score"] for one in answered[1]["ranking"][1].as_py()] == [None]
    assert (
        answered[0]["query"]
        .combine_chunks()
        .cast(pa.binary())
        .equals(table["query"].combine_chunks().cast(pa.binary()))
    )
    assert summary["errors"] == {
        "blank_query": 2,
        "invalid_utf8": 2,
        "null_documents": 1,
        "null_query": 1,
    }
    assert (summary["rows"], summary["rows_with_errors"], summary["null_documents"]) == (14, 6, 3)
    strict = ColumnMapping(strict_documents=True)
    with pytest.raises(RefusedError, match="--strict-documents was False, is True"):
        run_job(tmp_path / "in", output, mapping=strict)
    summary = run_job(tmp_path / "in", output, mapping=strict, overwrite=True)
    assert (summary["errors"]["null_document"], summary["null_documents"]) == (3, 0)


def run_with_stub(settings: RerankSettings, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of the command line, with the stub as the scorer."""
    monkeypatch.setattr(jobs.driver.run, "run", functools.partial(run, load_scorer=StubScorer))
    return exit_code(settings)


def test_files_that_cannot_be_read_are_reported_and_cost_no_other(
    tmp_path: Path,
    cluster: str,
    run_job: RunJob,
    settings_of: Callable[..., RerankSettings],
    monkeypatch: pytest.MonkeyPatch,
    said: StringIO,
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(5, tag="a"), truncated=lists_table(5), z=lists_table(5))
    (source / "truncated.parquet").write_bytes((source / "truncated.parquet").read_bytes()[:-10])
    (source / "empty.parquet").touch()
    (source / "text.parquet").write_text("query,documents\n")
    damage_middle(source / "middle.parquet", wide_table(120, tag="m"))
    output = tmp_path / "out"
    summary = run_job(source, output, replicas=(2, 2))
    broken = [str(source / f"{name}.parquet") for name in ("empty", "middle", "text", "truncated")]
    assert sorted(summary["unreadable"]) == broken
    assert all(len(reason) > 15 for reason in summary["unreadable"].values())
    for path in broken:
        assert f"could not be read: {path}: {summary['unreadable'][path]}" in said.getvalue()
    kept = [row["query_id"] for row in rows_of_output(output)]
    lost = summary["rows_not_read"]
    assert 0 < lost < 120
    assert len(kept) == len(set(kept)) == 130 - lost
    assert_summary_adds_up(output, summary, 130 - lost)
    assert run_with_stub(settings_of(source, output), monkeypatch) == 1  # tried again, as unreadable as before


def damage_middle(path: Path, table: pa.Table) -> None:
    """Four row groups, of which the third is damaged; the footer is whole."""
    pq.write_table(table, path, row_group_size=30, compression="zstd")
    group = pq.read_metadata(path).row_group(2)
    content = bytearray(path.read_bytes())
    for i in range(group.num_columns):
        column = group.column(i)
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = b"\xaa" * column.total_compressed_size
    path.write_bytes(content)


def test_a_job_without_any_readable_file_ends_with_exit_code_1(
    tmp_path: Path,
    without_ray: None,
    settings_of: Callable[..., RerankSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "in" / "b.parquet").touch()
    assert run_with_stub(settings_of(tmp_path / "in", tmp_path / "out"), monkeypatch) == 1
    assert (tmp_path / "out" / "_summary.json").exists()
    assert run_with_stub(settings_of(tmp_path / "in", tmp_path / "out"), monkeypatch) == 1


@pytest.mark.parametrize(("max_errors", "code"), [(None, 0), (2, 0), (1, 1), (0, 1)])
def test_rows_with_errors_above_the_allowance_make_exit_code_1(
    tmp_path: Path,
    without_ray: None,
    settings_of: Callable[..., RerankSettings],
    monkeypatch: pytest.MonkeyPatch,
    max_errors: int | None,
    code: int,
) -> None:
    table = pa.table({"query": ["q", None, None], "documents": [["d"]] * 3})
    settings = settings_of(write_input(tmp_path / "in", a=table), tmp_path / "out", max_errors=max_errors)
    assert run_with_stub(settings, monkeypatch) == code
    assert run_with_stub(settings, monkeypatch) == code  # complete by now


def test_a_file_without_rows_has_no_parts(tmp_path: Path, without_ray: None, run_job: RunJob) -> None:
    summary = run_job(write_input(tmp_path / "in", a=lists_table(0)), tmp_path / "out")
    assert (summary["files"], summary["parts"], summary["rows"], summary["unreadable"]) == (1, 0, 0, {})
    assert_nothing_left_over(tmp_path / "out")


def test_documents_may_be_empty_everywhere(tmp_path: Path, without_ray: None, run_job: RunJob) -> None:
    table = pa.table({"query": ["q"] * 3, "documents": pa.array([[], [], []], pa.list_(pa.string()))})
    summary = run_job(write_input(tmp_path / "in", a=table), tmp_path / "out", scorer_class=own_scorer)
    assert (summary["rows"], summary["pairs"], summary["rows_with_errors"]) == (3, 0, 0)
    assert read_output(tmp_path / "out")["ranking"].to_pylist() == [[], [], []]


@pytest.mark.parametrize("scorer_class", [StubScorer, pytest.param(own_scorer, marks=pytest.mark.slow)])
def test_a_list_of_10000_candidates_and_a_document_of_a_megabyte(
    tmp_path: Path, cluster: str, run_job: RunJob, scorer_class: LoadScorer
) -> None:
    many = [words(5, seed=i) for i in range(10_000)]
    megabyte = (words(1_000) + " ") * 160
    assert len(megabyte) > 1_000_000
    table = pa.table(
        {"query": queries(5), "documents": [["small"], many, ["small", megabyte], ["small"], [megabyte, "small"]]}
    )
    summary = run_job(write_input(tmp_path / "in", a=table), tmp_path / "out", scorer_class=scorer_class)
    rankings = read_output(tmp_path / "out")["ranking"].to_pylist()
    assert [len(ranking) for ranking in rankings] == [1, 10_000, 2, 1, 2]
    assert sorted(one["index"] for one in rankings[1]) == list(range(10_000))
    assert_summary_adds_up(tmp_path / "out", summary, 5)


def test_top_n_drop_and_prefix(tmp_path: Path, without_ray: None, run_job: RunJob) -> None:
    table = lists_table(5).append_column("error", pa.array(["theirs"] * 5)).append_column("log", pa.array(range(5)))
    mapping = ColumnMapping(output_prefix="our_", drop=("documents", "log"))
    run_job(write_input(tmp_path / "in", a=table), tmp_path / "out", top_n=2, mapping=mapping)
    answered = read_output(tmp_path / "out")
    assert answered.schema.names == ["query_id", "query", "error", "our_ranking", "our_error"]
    assert answered["error"].to_pylist() == ["theirs"] * 5
    for row, documents in zip(answered.to_pylist(), table["documents"].to_pylist(), strict=True):
        best = sorted(range(3), key=lambda i, row=row, texts=documents: -stub_score(row["query"], texts[i]))[:2]
        assert [one["index"] for one in row["our_ranking"]] == best


def test_columns_under_other_names(tmp_path: Path, without_ray: None, run_job: RunJob) -> None:
    table = pa.table({"q": ["a", "b"], "hits": [[{"body": "x", "url": "u"}], [{"body": "y", "url": "v"}]]})
    mapping = ColumnMapping(query="q", documents="hits", text_field="body", id_field="url")
    run_job(write_input(tmp_path / "in", a=table), tmp_path / "out", mapping=mapping)
    rankings = read_output(tmp_path / "out")["ranking"].to_pylist()
    assert [one["id"] for [one] in rankings] == ["u", "v"]
    assert rankings[0][0]["relevance_score"] == pytest.approx(stub_score("a", "x"), abs=1e-6)


@pytest.mark.parametrize("id_field", ["id", "", "url"])
def test_ids_that_will_be_null_are_said_unless_somebody_said_so(
    tmp_path: Path, without_ray: None, run_job: RunJob, caplog: pytest.LogCaptureFixture, id_field: str
) -> None:
    table = pa.table({"query": ["a"], "documents": [[{"text": "x", "url": "u"}]]})
    mapping = ColumnMapping(id_field=id_field)
    run_job(write_input(tmp_path / "in", a=table), tmp_path / "out", mapping=mapping)
    told = "no field `id` in `documents` (there are `text`, `url`), so ids in rankings are null; name another"
    assert (told in caplog.text) == (id_field == "id")


def test_raw_scores_are_logits(tmp_path: Path, without_ray: None, run_job: RunJob, reranker: Reranker) -> None:
    source = write_input(tmp_path / "in", a=lists_table(10))
    run_job(source, tmp_path / "scores", scorer_class=own_scorer)
    run_job(source, tmp_path / "logits", scorer_class=own_scorer, reranker={"raw_scores": True})
    scores, logits = (read_output(tmp_path / one)["ranking"].to_pylist() for one in ("scores", "logits"))
    flat_scores, flat_logits = ([one for row in rows for one in row] for rows in (scores, logits))
    assert [one["index"] for one in flat_scores] == [one["index"] for one in flat_logits]
    assert any(not 0 <= one["relevance_score"] <= 1 for one in flat_logits)
    for score, logit in zip(flat_scores, flat_logits, strict=True):
        as_score = pa.compute.divide(1, 1 + pa.compute.exp(-logit["relevance_score"]).as_py()).as_py()
        assert score["relevance_score"] == pytest.approx(as_score, abs=1e-5)


def test_a_column_missing_in_one_file_is_the_error_of_its_rows(
    tmp_path: Path, without_ray: None, run_job: RunJob
) -> None:
    tables = {"a": pa.table({"query": ["q"] * 2}), "b": lists_table(3)}
    summary = run_job(write_input(tmp_path / "in", **tables), tmp_path / "out")
    assert summary["errors"] == {"missing_column": 2}
    assert [row["error"] is None for row in rows_of_output(tmp_path / "out")] == [False] * 2 + [True] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mapping": ColumnMapping(query="question")}, "column `question` is missing; there are `query_id`, `query`"),
        ({"mapping": ColumnMapping(drop=("nothing",))}, "--drop is 'nothing', which is no column"),
        ({"layout": Layout.PAIRS}, "column `document` is missing"),
    ],
)
def test_columns_that_no_file_has_are_a_usage_error_before_anything_starts(
    tmp_path: Path, without_ray: None, run_job: RunJob, settings: dict[str, Any], message: str
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(2), b=wide_table(2))
    with pytest.raises(ConfigError, match=message):
        run_job(source, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_top_n_does_not_go_with_pair_rows(tmp_path: Path, without_ray: None, run_job: RunJob) -> None:
    source = write_input(tmp_path / "in", a=pa.table({"query": ["q"], "document": ["d"]}))
    with pytest.raises(ConfigError, match="--top-n does not go with pair rows"):
        run_job(source, tmp_path / "out", top_n=3)
    assert not (tmp_path / "out").exists()


def test_more_cpus_than_there_are_is_a_usage_error_instead_of_a_wait(
    tmp_path: Path, cluster: str, run_job: RunJob
) -> None:
    source = write_input(tmp_path / "in", a=lists_table(2))
    for replicas in (None, (1, 1)):
        with pytest.raises(ConfigError, match="a replica asks for 64 CPUs and 0 GPUs, the largest node has 2 and 0"):
            run_job(source, tmp_path / "out", num_cpus=64, replicas=replicas)
