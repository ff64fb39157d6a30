"""The demo's data half: documents and labels exist, the log has its schema, the report's figures are right."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.demo import log as demo_log
from jobs.demo import report

KNOWN_DOCUMENTS = {
    "asyncio.gather",
    "collections.abc.Mapping",
    "collections.deque",
    "fileinput.input",
    "itertools.chain",
    "json.dumps",
    "os.listdir",
    "os.path.join",
    "print",
    "random.randint",
    "re.sub",
    "str.splitlines",
}
RANKING = pa.list_(pa.struct([("id", pa.string()), ("index", pa.int32()), ("relevance_score", pa.float32())]))


@pytest.fixture(scope="module")
def documents() -> list[demo_log.Document]:
    return demo_log.standard_library_documents()


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return demo_log.build_log()


@pytest.fixture
def ranked(tmp_path: Path) -> Path:
    """Three questions of four candidates: one lifted to the top, one pushed down, one that came back with an error.

    The second has a right answer, `z`, that the first stage missed.
    """
    rows = [
        ("lifted", "abcd", "c", "cabd"),
        ("pushed down", "abcd", "az", "bacd"),
        ("failed", "abcd", "b", None),
    ]
    table = pa.Table.from_pylist(
        [
            {
                "query_id": query,
                "query": query,
                "documents": [{"id": name, "text": name, "score": 4.0 - i} for i, name in enumerate(before)],
                "relevant": list(relevant),
                "ranking": after
                and [{"id": name, "index": before.index(name), "relevance_score": 0.5} for name in after],
                "error": None if after else "the query is blank",
            }
            for query, before, relevant, after in rows
        ],
        schema=pa.schema([*demo_log.LOG_SCHEMA, ("ranking", RANKING), ("error", pa.string())]),
    )
    pq.write_table(table.slice(0, 2), tmp_path / "part-0.parquet")
    pq.write_table(table.slice(2), tmp_path / "part-1.parquet")
    return tmp_path


def test_the_standard_library_has_thousands_of_documents_with_unique_ids(
    documents: list[demo_log.Document],
) -> None:
    ids = {document.id for document in documents}
    assert len(documents) > 3000
    assert len(ids) == len(documents)
    assert ids >= KNOWN_DOCUMENTS
    assert not [name for name in ids if any(part.startswith("_") for part in name.split("."))]


def test_a_document_is_its_signature_and_its_docstring(documents: list[demo_log.Document]) -> None:
    (text,) = (document.text for document in documents if document.id == "str.splitlines")
    assert text.startswith("str.splitlines(self, /, keepends=False)\nReturn a list of the lines in the string")


def test_collecting_documents_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    demo_log.standard_library_documents()
    assert tuple(capfd.readouterr()) == ("", "")


def test_no_question_is_lost_on_this_python(documents: list[demo_log.Document]) -> None:
    queries = demo_log.labelled_queries(document.id for document in documents)
    assert len(queries) == len(written_queries()) >= 60
    assert len({query.query_id for query in queries}) == len(queries)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="labels were made on Python 3.11; others drop a few")
def test_every_label_names_a_document(documents: list[demo_log.Document]) -> None:
    ids = {document.id for document in documents}
    assert {label for row in written_queries() for label in row["relevant"]} <= ids


def test_labels_that_this_python_lacks_are_dropped_and_with_the_last_one_the_question() -> None:
    first = written_queries()[0]
    (query,) = demo_log.labelled_queries(first["relevant"][:1])
    assert query == demo_log.Query(first["query_id"], first["query"], (first["relevant"][0],))


def test_the_log_has_the_layout_of_the_jobs_input(log: pa.Table) -> None:
    document = pa.struct([("id", pa.string()), ("text", pa.string()), ("score", pa.float64())])
    assert log.schema.names == ["query_id", "query", "documents", "relevant"]
    assert log.schema.types == [pa.string(), pa.string(), pa.list_(document), pa.list_(pa.string())]


def test_candidates_come_best_first_and_at_most_fifty(log: pa.Table) -> None:
    for documents in log["documents"].to_pylist():
        scores = [document["score"] for document in documents]
        assert scores == sorted(scores, reverse=True)
        assert scores[-1] > 0
        assert len(documents) <= 50


def test_a_query_without_any_known_word_finds_nothing(documents: list[demo_log.Document]) -> None:
    assert demo_log.retrieve(documents, ["qwertzuiop", "read a file"])[0] == []


def test_a_log_that_says_the_same_is_not_written_again(log: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "made" / "log.parquet"
    assert report.write_if_changed(log, path)
    assert not report.write_if_changed(log, path)
    assert report.write_if_changed(log.slice(1), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["log.parquet"]


def test_measures_equal_figures_worked_out_by_hand(ranked: Path) -> None:
    """For one right answer at rank r nDCG is 1 / log2(1 + r); two of them divide by 1 + 1 / log2(3) = 1.630930."""
    queries = report.read_queries(ranked)
    actual = {order: report.measure(queries, order) for order in ("before", "after", "ceiling")}
    expected: dict[str, dict[str, list[float]]] = {
        "before": {"nDCG@10": [0.5, 0.613147, 0.630930], "MRR@10": [0.333333, 1, 0.5], "recall@10": [1, 0.5, 1]},
        "after": {"nDCG@10": [1, 0.386853, 0], "MRR@10": [1, 0.5, 0], "recall@10": [1, 0.5, 0]},
        "ceiling": {"nDCG@10": [1, 0.613147, 1], "MRR@10": [1, 1, 1], "recall@10": [1, 0.5, 1]},
    }
    for order, values in expected.items():
        assert actual[order] == {name: pytest.approx(value, abs=1e-6) for name, value in values.items()}


def test_the_report_shows_means_changes_and_what_was_missed(ranked: Path) -> None:
    shown = CliRunner(env={"COLUMNS": "100"}).invoke(report.app, ["report", str(ranked)])
    assert shown.exit_code == 0, shown.output
    numbers = [re.findall(r"\d\.\d{3}", line) for line in shown.output.splitlines()]
    assert [line for line in numbers if line] == [
        ["0.581", "0.611", "0.833"],
        ["0.462", "0.500", "0.500"],
        ["0.871", "1.000", "0.833"],
    ]
    examples = re.findall(r"^(lifted|pushed down|failed) *$", shown.output, re.MULTILINE)
    assert examples == ["lifted", "failed", "pushed down"]
    assert "3 questions. For 0 of them BM25 found no right answer" in shown.output
    assert "Rows that came back with an error, 0 as reranked: 1." in " ".join(shown.output.split())


def test_the_largest_gains_come_first_then_the_largest_losses() -> None:
    before = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    after = [0.6, 0.9, 0.5, 0.6, 0.7, 0.4, 0.1, 0.3]
    assert report.largest_changes(before, after) == [1, 4, 0, 6, 7]


@pytest.mark.parametrize(
    ("columns", "message"),
    [({}, "has no part-*.parquet"), ({"query": ["q"]}, "has no column documents, ranking, relevant")],
)
def test_a_directory_that_is_no_reranked_log_is_refused(
    columns: dict[str, list[str]], message: str, tmp_path: Path
) -> None:
    if columns:
        pq.write_table(pa.table(columns), tmp_path / "part-0.parquet")
    with pytest.raises(demo_log.DemoError, match=re.escape(message)):
        report.read_queries(tmp_path)
    assert CliRunner().invoke(report.app, ["report", str(tmp_path)]).exit_code == 2


def written_queries() -> list[dict[str, Any]]:
    lines = Path(demo_log.__file__).with_name("queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
