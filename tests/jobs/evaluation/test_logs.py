"""Logs of one's own: which rows of which files are measured, with which grades, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.evaluation.logs import Log
from jobs.table.columns import ColumnMapping
from pipelines.errors import ConfigError
from pipelines.evaluation.measures import values_by_query
from pipelines.evaluation.sets import LISTS, BenchmarkSet
from pipelines.reranker import Reranker
from tests.checkpoints import words
from tests.jobs.evaluation.test_evaluate import evaluate
from tests.stores import Bucket, upload


def read(location: object, label: str = "clicks", count: int | None = None, **names: str) -> BenchmarkSet:
    return Log(str(location), label, ColumnMapping(**names)).read(count)


def write(path: Path, rows: list[dict[str, Any]], *schema: tuple[str, pa.DataType]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema) if schema else None), path, row_group_size=2)
    return path


def texts(count: int, seed: int = 0) -> list[str]:
    return [words(6, seed=100 * seed + i) for i in range(count)]


def test_a_list_of_labels_beside_texts(tmp_path: Path) -> None:
    """Documents without ids are called by their places; a label that is null is no judgement."""
    rows = [
        {"query": "first", "documents": texts(3), "clicks": [False, True, None], "lang": "en"},
        {"query": "second", "documents": texts(2, 1), "clicks": [False, False], "lang": None},
        {"query": "third", "documents": texts(2, 2), "clicks": None, "lang": "de"},
        {"query": "fourth", "documents": texts(2, 3), "clicks": [True, True], "lang": " "},
        {"query": "fifth", "documents": [], "clicks": [], "lang": "en"},
    ]
    one = read(write(tmp_path / "log.parquet", rows))
    assert (one.name, one.problems, one.unlabelled, one.queries_in_all) == ("log", (), 3, 2)
    assert one.grades == {"log.parquet:0": {"#0": 0, "#1": 1}, "log.parquet:3": {"#0": 1, "#1": 1}}
    assert [(query.text, query.language) for query in one.queries.values()] == [("first", "en"), ("fourth", None)]
    assert one.candidates.schema == LISTS
    assert [document["text"] for document in one.candidates["documents"][0].as_py()] == texts(3)


@pytest.mark.parametrize(
    ("kind", "values"),
    [(pa.bool_(), [True, False]), (pa.int64(), [3, 0]), (pa.float32(), [2.0, 0.0]), (pa.decimal128(5, 2), [1, -2])],
)
def test_a_field_of_the_documents(tmp_path: Path, kind: pa.DataType, values: list[Any]) -> None:
    """Under names of one's own, in a directory whose subdirectories count."""
    document = pa.struct(
        {"sku": pa.int64(), "body": pa.string(), "clicked": kind, "meta": pa.struct({"clicked": kind})}
    )
    hits = [{"sku": 70 + i, "body": f"text {i}", "clicked": value} for i, value in enumerate(values)]
    schema = (("q", pa.large_string()), ("hits", pa.large_list(document)))
    write(tmp_path / "logs" / "day=1" / "a.parquet", [{"q": "x", "hits": hits}, {"q": "y", "hits": None}], *schema)
    write(tmp_path / "logs" / "b.parquet", [{"q": "z", "hits": hits[::-1]}], *schema)
    one = read(tmp_path / "logs", "hits.clicked", query="q", documents="hits", id_field="sku", text_field="body")
    grades = {"70": int(values[0]), "71": int(values[1])}
    assert one.grades == {"b.parquet:0": grades, "day=1/a.parquet:0": grades}
    order = {row["query_id"]: [document["id"] for document in row["documents"]] for row in one.candidates.to_pylist()}
    assert order == {"b.parquet:0": ["71", "70"], "day=1/a.parquet:0": ["70", "71"]}
    assert (one.name, one.unlabelled) == ("logs", 1)


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.string()], ids=str)
def test_ids_of_the_documents_that_were_clicked(tmp_path: Path, kind: pa.DataType) -> None:
    """One id, or several; a click on what is not in the list makes no document right."""
    documents = [{"id": f"d{i}", "text": f"text {i}"} for i in range(3)]
    is_one = pa.types.is_string(kind)
    clicks = ["d1", None, "d9", "d0"] if is_one else [["d1", "d2", None], [], ["d9"], ["d0", "d9"]]
    rows = [{"query": f"q{i}", "documents": documents, "clicks": one} for i, one in enumerate(clicks)]
    path = write(
        tmp_path / "log.parquet",
        rows,
        ("query", pa.string()),
        ("documents", pa.list_(pa.struct({"id": pa.string(), "text": pa.string()}))),
        ("clicks", kind),
    )
    one = read(path)
    assert one.grades == {
        "log.parquet:0": {"d0": 0, "d1": 1, "d2": 0 if is_one else 1},
        "log.parquet:3": {"d0": 1, "d1": 0, "d2": 0},
    }
    unknown = "clicks has 'd9', and the row has no such document"
    expected = [(2, unknown), (2, "no document that is left has a positive label"), (3, unknown)]
    assert [(problem.line, problem.what) for problem in one.problems] == expected[: 2 if is_one else 3]
    assert one.unlabelled == 1


def test_clicked_ids_that_are_uuids_and_places(tmp_path: Path) -> None:
    """Documents without an id are called by their places, also beside others that have one."""
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes([i] * 16) for i in range(3)], pa.binary(16)))
    documents = pa.StructArray.from_arrays([ids, pa.array(["a", "b", "c"])], ["id", "text"])
    clicks = pa.ListArray.from_arrays([0, 1], ids.slice(2))
    rows = {"query": ["q"], "documents": pa.ListArray.from_arrays([0, 3], documents)}
    for name, column in (("list", clicks), ("one", ids.slice(2))):
        pq.write_table(pa.table({**rows, "clicks": column}), tmp_path / f"{name}.parquet")
        assert list(read(tmp_path / f"{name}.parquet").grades[f"{name}.parquet:0"].values()) == [0, 0, 1]
    some = [{"id": "a", "text": "one"}, {"id": None, "text": "two"}]
    one = read(write(tmp_path / "some.parquet", [{"query": "q", "documents": some, "clicks": ["#1", "x", "y"]}]))
    assert one.grades == {"some.parquet:0": {"a": 0, "#1": 1}}
    told = "row 0: clicks has 'x' and 1 more, and the row has no such document"
    assert [str(problem) for problem in one.problems] == [f"{tmp_path}/some.parquet, {told}"]


def test_columns_whose_names_have_dots(tmp_path: Path) -> None:
    """Each is told from the values within another one."""
    hits = [{"id": "a", "text": "one", "clicked": 0, "of": {"clicked": 1}}, {"id": "b", "text": "two", "clicked": 1}]
    row = {"hits.x": {"clicked": 7}, "query": "q", "clicks.n": 3, "hits": hits, "clicks": ["b"], "clicks.of": [[1]]}
    path = write(tmp_path / "log.parquet", [row])
    for label in ("clicks", "hits.clicked"):
        assert read(path, label, documents="hits").grades == {"log.parquet:0": {"a": 0, "b": 1}}


def test_a_clicked_id_that_is_no_utf8_is_that_of_no_document(tmp_path: Path) -> None:
    clicks = pa.array([[b"\xff", b"d0"], None, [b"\xff"]], pa.list_(pa.binary())).cast(
        pa.list_(pa.string()), safe=False
    )
    rows = pa.table({"query": ["a", "b", "c"], "documents": [[{"id": "d0", "text": "x"}]] * 3, "clicks": clicks})
    pq.write_table(rows, tmp_path / "log.parquet")
    one = read(tmp_path / "log.parquet")
    assert one.grades == {"log.parquet:0": {"d0": 1}}
    told = "clicks has an id that is not valid UTF-8, and the row has no such document"
    none = "no document that is left has a positive label"
    assert [(problem.line, problem.what) for problem in one.problems] == [(0, told), (2, told), (2, none)]


def test_rows_that_cannot_be_used_are_named_by_file_and_row(tmp_path: Path) -> None:
    documents = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]
    rows = [
        {"query": "good", "documents": documents, "clicks": [0.0, 1.0]},
        {"query": "a half", "documents": documents, "clicks": [1.0, 0.5]},
        {"query": "not a number", "documents": documents, "clicks": [float("nan"), 1.0]},
        {"query": "too few", "documents": documents, "clicks": [1.0]},
        {"query": None, "documents": documents, "clicks": [1.0, 0.0]},
        {"query": " ", "documents": documents, "clicks": [1.0, 0.0]},
        {"query": "twice", "documents": [documents[0]] * 2, "clicks": [1.0, 1.0]},
        {"query": "null", "documents": [{"id": "a", "text": None}, documents[1]], "clicks": [1.0, 0.0]},
        {"query": "no documents", "documents": None, "clicks": [1.0]},
        {"query": "unlabelled and bad", "documents": None, "clicks": [0.0]},
    ]
    write(tmp_path / "logs" / "a.parquet", rows)
    write(tmp_path / "logs" / "b.parquet", [{"query": "x", "documents": ["one"], "clicks": ["yes"]}])
    write(tmp_path / "logs" / "c.parquet", [{"query": "x", "clicks": [1]}])
    (tmp_path / "logs" / "d.parquet").write_bytes(b"PAR1 nothing else PAR1")
    one = read(tmp_path / "logs")
    found = {str(problem).removeprefix(f"{tmp_path}/logs/").replace("`", "") for problem in one.problems}
    damaged = {problem for problem in found if problem.startswith("d.parquet: ")}
    assert len(damaged) == 1
    assert found - damaged == {
        "a.parquet, row 1: clicks has 0.5 for documents[1]; a grade is a whole number of at most 1,000,000",
        "a.parquet, row 2: clicks has nan for documents[0]; a grade is a whole number of at most 1,000,000",
        "a.parquet, row 3: clicks has 1 labels for 2 documents; if they are the ids of those that were right, make "
        "them texts",
        "a.parquet, row 4: null_query: query is null",
        "a.parquet, row 5: blank_query: query has nothing but white space",
        "a.parquet, row 6: documents[1] has the id 'a', which another one has",
        "a.parquet, row 7: documents[0] is null",
        "a.parquet, row 7: no document that is left has a positive label",
        "a.parquet, row 8: null_documents: documents is null",
        "b.parquet, row 0: clicks has 'yes', and the row has no such document; no document has a field 'id' "
        "(--id-field), so they are called #0, #1, ...",
        "b.parquet, row 0: no document that is left has a positive label",
        "c.parquet: missing_column: column documents is missing; there are query, clicks; name another with "
        "--documents-column; for one document a row give --layout pairs and --document-column",
    }
    assert one.grades == {"a.parquet:0": {"a": 0, "b": 1}, "a.parquet:6": {"a": 1}}
    assert (one.unlabelled, one.queries_in_all) == (1, 2)  # all that can be used are read, so none is `drawn`


def test_texts_are_read_of_the_drawn_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows each time, whichever files they are in."""
    for name in "abc":
        rows = [
            {"query": f"{name}{i}", "documents": texts(2), "clicks": [0, i % 2]}
            for i in range(20 if name == "a" else 4)
        ]
        write(tmp_path / "logs" / f"{name}.parquet", rows)
    one = read(tmp_path / "logs", count=5)
    assert (len(one.grades), one.queries_in_all, one.unlabelled) == (5, 14, 14)
    assert read(tmp_path / "logs", count=5) == one
    assert len(read(tmp_path / "logs", count=14).grades) == len(read(tmp_path / "logs", count=99).grades) == 14
    measured: list[int] = []
    lists_of = Log.lists_of
    monkeypatch.setattr(
        Log,
        "lists_of",
        lambda self, file, numbers, table, *rest: (
            measured.append(table.num_rows) or lists_of(self, file, numbers, table, *rest)
        ),
    )
    read(tmp_path / "logs", count=5)
    assert sum(measured) == 5


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("nothing", "--label-column is 'nothing', and the columns are `query`, `documents`, `clicks`, `rank`; a "),
        ("documents.clicked", "--label-column is 'documents.clicked', and the fields of `documents` are `id`, `text`"),
        ("documents.text", "which is list<element: struct<id: string, text: string>>; it has to be a list of booleans"),
        ("rank", "--label-column is 'rank', which is int64; it has to be a list of booleans or numbers"),
        ("clicks", "no row that can be measured has a positive label in 'clicks'"),
    ],
)
def test_a_log_without_labels_is_a_usage_error(tmp_path: Path, label: str, told: str) -> None:
    rows = [{"query": "x", "documents": [{"id": "a", "text": "one"}], "clicks": [0], "rank": 3}]
    with pytest.raises(ConfigError) as error:
        read(write(tmp_path / "log.parquet", rows), label)
    assert told in str(error.value)


def test_a_log_is_called_by_its_file_or_its_directory(tmp_path: Path) -> None:
    rows = [{"query": "x", "documents": texts(2), "clicks": [0, 1]}]
    write(tmp_path / "logs" / "may" / "a.parquet", rows)
    write(tmp_path / "logs" / "june" / "b.parquet", rows)
    found = [read(tmp_path / "logs" / one) for one in ("", "may", "may/a.parquet", "*/*.parquet", "j*/b.parquet")]
    assert [one.name for one in found] == ["logs", "may", "a", "logs", "logs"]
    assert [sorted(one.grades) for one in found] == [
        ["june/b.parquet:0", "may/a.parquet:0"],
        ["a.parquet:0"],
        ["a.parquet:0"],
        ["june/b.parquet:0", "may/a.parquet:0"],
        ["june/b.parquet:0"],
    ]


def test_a_log_in_an_object_store(tmp_path: Path, s3_bucket: Bucket) -> None:
    write(tmp_path / "logs" / "a.parquet", [{"query": "x", "documents": texts(2), "clicks": [0, 1]}])
    one = read(upload(tmp_path / "logs", s3_bucket, "logs"))
    assert (one.name, one.grades) == ("logs", {"a.parquet:0": {"#0": 0, "#1": 1}})


def test_the_command_measures_a_log(tmp_path: Path, cluster: str, bert_directory: Path) -> None:
    """The order that was shown is the first stage; a model is measured by the clicks."""
    rows = [
        {"query": words(3, seed=i), "shown": texts(5, i), "clicks": [place == i % 7 for place in range(5)]}
        for i in range(14)
    ]
    log = write(tmp_path / "log.parquet", rows)
    names = ("--label-column", "clicks", "--documents-column", "shown", "--measure", "MRR@10")
    output = tmp_path / "out"
    done = evaluate(log, *names, "--model", bert_directory, "--output", output, "--address", cluster)
    assert done.exit_code == 0, done.output
    results = json.loads((output / "results.json").read_text())["sets"]["log"]
    assert (results["queries"], results["unlabelled"], results["problems"]) == (10, 4, 0)
    assert results["first_stage"]["name"] == "first stage"
    assert results["rows"]["first stage"]["MRR@10"]["mean"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5)
    reranker = Reranker.load(str(bert_directory), device="cpu")
    measured = [row for row in rows if any(row["clicks"])]
    order = {
        str(i): [str(one.index) for one in reranker.rerank(row["query"], row["shown"])]
        for i, row in enumerate(measured)
    }
    grades = {str(i): {str(row["clicks"].index(True)): 1} for i, row in enumerate(measured)}
    expected = values_by_query("MRR@10", grades, order)
    mean = results["rows"][str(bert_directory)]["MRR@10"]["mean"]
    assert mean == pytest.approx(sum(expected.values()) / 10)
    assert "log: 4 row(s) have no positive label, and are not measured" in done.output


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "logs has no queries.jsonl; if it is a log of your own, give --label-column"),
        (("--label-column", "clicks", "--first-stage", "bm25"), 2, "a log has its own lists, and no corpus to search"),
        (("--label-column", "seen"), 2, "--label-column is 'seen', and the columns are"),
        (("--label-column", "clicks", "--output", "{log}/out"), 3, "contain one another; keep them apart"),
    ],
)
def test_what_cannot_be_evaluated_of_a_log(tmp_path: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    write(tmp_path / "logs" / "a.parquet", [{"query": "x", "documents": texts(2), "clicks": [0, 1]}])
    given = [one.format(log=tmp_path / "logs") for one in arguments]
    done = evaluate(tmp_path / "logs", "--baseline", "bm25", "--output", tmp_path / "out", *given)
    assert done.exit_code == code
    assert told in " ".join(done.output.split())
