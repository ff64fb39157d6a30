"""Benchmark sets as they lie on disks, with all that can be wrong with their lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigError
from pipelines.evaluation.sets import LISTS, as_grade, first_candidates, read_corpus, read_set


def write_set(folder: Path, **changes: Any) -> Path:
    """A set of two queries and four documents; `changes` are other contents of its files, by name."""
    documents = [{"id": f"d{i}", "text": f"text {i}"} for i in range(4)]
    candidates = [{"query_id": one, "documents": documents[::-1]} for one in ("q1", "q2")]
    contents = {
        "queries": [{"id": "q1", "text": "first", "lang": "en"}, {"id": "q2", "text": "second", "lang": "de"}],
        "corpus": documents,
        "qrels": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n",
        "candidates": candidates,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("queries", "corpus"):
        lines = [one if isinstance(one, str) else json.dumps(one) for one in contents[name]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels.tsv").write_text(contents["qrels"])
    pq.write_table(pa.Table.from_pylist(contents["candidates"]), folder / "candidates.parquet")
    return folder


def test_a_set_is_read(tmp_path: Path) -> None:
    one = read_set(write_set(tmp_path / "mine"))
    assert (one.name, one.problems) == ("mine", ())
    assert [(query.text, query.language) for query in one.queries.values()] == [("first", "en"), ("second", "de")]
    assert one.grades == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}
    assert one.candidates.schema == LISTS
    assert [document["id"] for document in one.candidates["documents"][0].as_py()] == ["d3", "d2", "d1", "d0"]
    cut = first_candidates(one.candidates, 2)
    assert cut.schema == LISTS
    assert [document["id"] for document in cut["documents"][1].as_py()] == ["d3", "d2"]


def test_judgements_in_trecs_four_columns_are_read(tmp_path: Path) -> None:
    one = read_set(write_set(tmp_path, qrels="q1 0 d1 2\nq2\t0\td3\t1\n"))
    assert one.grades == {"q1": {"d1": 2}, "q2": {"d3": 1}}
    assert one.problems == ()


def test_judgements_may_have_a_byte_order_mark_blank_lines_and_ids_with_line_separators(tmp_path: Path) -> None:
    """Unicode's line separators end no line; a line that is no UTF-8 costs no other."""
    one, other = "q\u20281", "d\x851"
    folder = write_set(tmp_path, queries=[{"id": one, "text": "a"}], corpus=[{"id": other, "text": "b"}])
    (folder / "qrels.tsv").write_bytes(f"\ufeff{one}\t{other}\t2\r\n\n \t\n".encode() + b"q1\td\xff\t1\n")
    read = read_set(folder)
    assert read.grades == {one: {other: 2}}
    assert "qrels.tsv, line 4: is no UTF-8" in str(read.problems[0])


def test_carriage_returns_end_lines(tmp_path: Path) -> None:
    """As on old Macs: a file with nothing but them is no single line, which would be taken for the header."""
    folder = write_set(tmp_path)
    for name in ("queries.jsonl", "corpus.jsonl", "qrels.tsv"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\n", b"\r"))
    one = read_set(folder)
    assert one.grades == {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}
    assert one.problems == ()


@pytest.mark.parametrize(
    ("written", "grade"),
    [
        ("1", 1),
        (1, 1),
        (1.0, 1),
        ("1.0", 1),
        ("-2.00", -2),
        ("+1.0 ", 1),
        (True, None),
        (0.5, None),
        (float("inf"), None),
        ("0.5", None),
        ("1.01", None),
        (".0", None),
        ("1.", None),
        ("1_0.0", None),
        ("1e0", None),
        ("1000001.0", None),
    ],
)
def test_a_grade_is_a_whole_number_that_may_be_written_as_a_float(written: object, grade: int | None) -> None:
    assert as_grade(written) == grade


def test_judgements_may_have_been_floats(tmp_path: Path) -> None:
    """As pandas writes a column of integers that had a null in it."""
    one = read_set(write_set(tmp_path, qrels="q1\td1\t2.0\nq1\td2\t0.5\nq2\td3\t1.0\n"))
    assert one.grades == {"q1": {"d1": 2}, "q2": {"d3": 1}}
    assert "line 2: the grade is '0.5', which is no whole number" in str(one.problems[0])


def test_candidates_may_have_other_types_for_the_same_texts(tmp_path: Path) -> None:
    documents = [{"text": "b", "id": 7, "score": 1.0}, {"text": "c", "id": 8, "score": 0.5}]
    rows = pa.array([documents], pa.large_list(pa.struct({"text": pa.large_string(), "id": pa.int64()})))
    folder = write_set(tmp_path, qrels="q1\td1\t1\n")
    pq.write_table(
        pa.table({"query_id": pa.array(["q1"]).dictionary_encode(), "documents": rows}), folder / "candidates.parquet"
    )
    assert read_set(folder).candidates["documents"][0].as_py() == [{"id": "7", "text": "b"}, {"id": "8", "text": "c"}]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"query_id": "q1", "documents": ["a text"]}, "candidates.parquet cannot be read: .*string to struct"),
        ({"query_id": "q1", "documents": [{"id": "d1", "text": ["a"]}]}, "candidates.parquet cannot be read"),
        ({"query": "q1"}, "candidates.parquet has no column 'query_id'; it has query"),
    ],
)
def test_candidates_that_are_no_documents_are_an_error(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_set(write_set(tmp_path, candidates=[row]))


def test_answers_judge_the_candidates_where_there_are_no_judgements(tmp_path: Path) -> None:
    """A query stays that no candidate answers: it counts 0."""
    folder = write_set(tmp_path)
    (folder / "qrels.tsv").unlink()
    rows = [{"id": "q1", "answers": ["text 2", "nothing"]}, {"id": "q2", "answers": ["text 9"]}]
    bad = [{"id": "q9", "answers": ["a"]}, {"id": "q1", "answers": ["a"]}]
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, *bad]))
    (folder / "meta.json").write_text('{"measure": "Success@10", "document_language": "en", "queries": 2}')
    one = read_set(folder)
    assert one.grades == {"q1": {"d3": 0, "d2": 1, "d1": 0, "d0": 0}, "q2": {"d3": 0, "d2": 0, "d1": 0, "d0": 0}}
    assert (one.measure, one.judged_by) == ("Success@10", "answers")
    assert [str(problem).removeprefix(f"{folder}/") for problem in one.problems] == [
        "answers.jsonl, line 3: there is no query 'q9'",
        "answers.jsonl, line 4: has the id 'q1', which stands above already",
    ]


def test_lists_that_come_later_are_judged_too(tmp_path: Path) -> None:
    """Such as those of a first stage that is made on the spot."""
    folder = write_set(tmp_path)
    (folder / "qrels.tsv").unlink()
    (folder / "answers.jsonl").write_text('{"id": "q1", "answers": ["2"]}\n')
    one = read_set(folder)
    lists = [{"query_id": "q1", "query": "first", "documents": [{"id": "x", "text": "2 or 3"}]}]
    assert one.with_candidates(pa.Table.from_pylist(lists, schema=LISTS)).grades == {"q1": {"x": 1}}


def test_candidates_that_somebody_else_finds_are_not_those_that_were_published(tmp_path: Path) -> None:
    folder = write_set(tmp_path)
    (folder / "meta.json").write_text('{"benchmark": "BEIR SciFact", "published_candidates": "BM25 of theirs"}')
    assert read_set(folder).published_candidates == "BM25 of theirs"
    other = read_set(folder, with_candidates=False)
    assert (other.benchmark, other.published_candidates) == ("BEIR SciFact", None)


def test_a_document_with_the_id_of_its_query_is_no_candidate_where_the_set_says_so(tmp_path: Path) -> None:
    documents = [{"id": one, "text": one} for one in ("q1", "d1")]
    folder = write_set(tmp_path, candidates=[{"query_id": "q1", "documents": documents}])
    assert read_set(folder).candidates["documents"].to_pylist() == [documents]
    (folder / "meta.json").write_text('{"ignores_identical_ids": true}')
    assert read_set(folder).candidates["documents"].to_pylist() == [documents[1:]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "meta.json cannot be read"),
        ("[]", "meta.json is no JSON object"),
        ('{"measure": 10}', "measure is 10; it is text"),
    ],
)
def test_a_meta_json_that_cannot_be_used_is_an_error(tmp_path: Path, content: str, told: str) -> None:
    (write_set(tmp_path) / "meta.json").write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_set(tmp_path)


def test_a_query_without_a_relevant_document_is_not_measured(tmp_path: Path) -> None:
    one = read_set(write_set(tmp_path, qrels="q1\td1\t1\nq2\td3\t0\n"))
    assert list(one.grades) == ["q1"]
    assert one.candidates["query_id"].to_pylist() == ["q1"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"queries": [{"id": "q1", "text": "a"}, "{"]}, "queries.jsonl, line 2: is no JSON"),
        ({"queries": [{"id": "q1", "text": "a"}, {"id": 7}]}, "line 2: is no object with an `id` that is a text"),
        ({"queries": [{"id": "q1", "text": "a"}, {"id": "q2", "text": " "}]}, "line 2: query 'q2' has no `text`"),
        ({"queries": [{"id": "q1", "text": "a"}] * 2}, "line 2: has the id 'q1', which stands above already"),
        ({"queries": [{"id": "q1", "text": "a"}, {"id": "q2", "text": "b", "lang": 3}]}, "has the `lang` 3"),
        ({"qrels": "q1\td1\t1\nq9\td1\t1\n"}, "qrels.tsv, line 2: there is no query 'q9'"),
        ({"qrels": "q1\td1\t1\nq1\td9\t1\n"}, "line 2: there is no document 'd9'"),
        ({"qrels": "q1\td1\t1\nq1\td1\t2\n"}, "line 2: document 'd1' of query 'q1' has a grade above already"),
        ({"qrels": "q1\td1\t1\nq1\td2\thigh\n"}, "line 2: the grade is 'high', which is no whole number"),
        (
            {"qrels": "q1\td1\t1\nq1\td2\t1000001\n"},
            "the grade is '1000001', which is no whole number of at most 1,000,000",
        ),
        ({"queries": [{"id": "q1", "text": "a"}, {"id": "q2", "text": "\ud800"}]}, "line 2: query 'q2' has no `text`"),
        (
            {"queries": [{"id": "q1", "text": "a"}, {"id": "\udfff", "text": "b"}]},
            "is no object with an `id` that is a text",
        ),
        ({"qrels": "q1\td1\t1\nq1\n"}, "line 2: has 1 fields; give query id, document id and grade"),
        ({"candidates": [{"query_id": "q9", "documents": []}]}, "candidates.parquet, line 1: there is no query 'q9'"),
        (
            {"candidates": [{"query_id": "q1", "documents": [{"id": "d1", "text": "a"}, {"id": "d1", "text": "b"}]}]},
            "line 1: documents[1] has the id 'd1', which another one has",
        ),
        (
            {"candidates": [{"query_id": "q1", "documents": [{"id": "d1", "text": None}]}]},
            "line 1: documents[0] has no id or no text",
        ),
        ({"candidates": [{"query_id": "q1", "documents": None}] * 2}, "query 'q1' has candidates above already"),
    ],
)
def test_a_line_that_cannot_be_used_is_left_out_and_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    one = read_set(write_set(tmp_path, **changes))
    assert told in str(one.problems[0])
    assert "q1" in one.grades


@pytest.mark.parametrize("missing", ["queries.jsonl", "corpus.jsonl", "qrels.tsv"])
def test_a_folder_without_a_file_is_no_set(tmp_path: Path, missing: str) -> None:
    (write_set(tmp_path) / missing).unlink()
    with pytest.raises(ConfigError, match=f"is no benchmark set: it has no {missing}"):
        read_set(tmp_path)


def test_a_set_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no query has a judged document that is relevant"):
        read_set(write_set(tmp_path, qrels="q1\td1\t0\n"))


def test_a_set_without_candidates_says_which_corpus_is_to_be_searched(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine", corpus=[{"id": "d1", "text": "one"}, {"id": "d2"}, {"id": "d3", "text": ""}])
    assert not read_set(folder).needs_candidates
    one = read_set(folder, with_candidates=False)
    assert (one.needs_candidates, one.candidates.num_rows) == (True, 0)
    assert one.corpus == read_set(folder).corpus == folder / "corpus.jsonl"
    assert not one.with_candidates(one.candidates).needs_candidates
    assert list(read_corpus(folder / "corpus.jsonl")) == [("d1", "one"), ("d3", "")]
    assert "corpus.jsonl, line 2: document 'd2' has no `text`" in str(one.problems[0])
    (folder / "candidates.parquet").unlink()
    assert read_set(folder) == one
