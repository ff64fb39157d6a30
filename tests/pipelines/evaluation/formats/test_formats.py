"""Each reader, on a small sample in the layout of its publisher."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from pipelines.errors import ConfigError
from pipelines.evaluation.formats.catalogue import FORMATS, import_set
from pipelines.evaluation.formats.reading import Asked
from pipelines.evaluation.measures import values_by_query
from pipelines.evaluation.sets import read_set


def write(path: Path, text: str) -> Path:
    """A file with this text, packed where its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    return write(path, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """A table as pandas writes it for ToolBench."""
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    return write(path, text.getvalue())


def imported(name: str, folder: Path, *sources: Path, depth: int = 100, **asked: Any) -> dict[str, Any]:
    """What `meta.json` says of the set that is written into the folder."""
    import_set(name, sources, folder, Asked(**asked), depth)
    meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    return meta


def lines(folder: Path, name: str) -> list[Any]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def qrels(folder: Path) -> list[tuple[str, ...]]:
    header, *rows = (folder / "qrels.tsv").read_text().splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    return [tuple(row.split("\t")) for row in rows]


def beir(folder: Path, packed: str = "", **more: Sequence[Any]) -> Path:
    """A dataset of BEIR's with two queries of the test split and one of another; `more` are lines at ends of files."""
    write_lines(
        folder / f"corpus.jsonl{packed}",
        {"_id": "d1", "title": "Vitamin D", "text": "It helps bones.", "metadata": {}},
        {"_id": "d2", "title": "", "text": "Iron is a metal."},
        {"_id": "d3", "text": "No title here."},
        *more.get("corpus", ()),
    )
    write_lines(
        folder / f"queries.jsonl{packed}",
        {"_id": "q1", "text": "bones", "metadata": {}},
        {"_id": "q2", "text": "metals"},
        {"_id": "t9", "text": "of the training split"},
        *more.get("queries", ()),
    )
    header = "query-id\tcorpus-id\tscore"
    rows = (header, "q1\td1\t2", "q1\td3\t1", "q2\td2\t1", *more.get("qrels", ()))
    write_lines(folder / "qrels" / f"test.tsv{packed}", *rows)
    write_lines(folder / "qrels" / "train.tsv", header, "t9\td1\t1")
    return folder


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_beir(tmp_path: Path, packed: str) -> None:
    meta = imported("beir", tmp_path / "set", beir(tmp_path / "scifact", packed))
    assert lines(tmp_path / "set", "queries.jsonl") == [
        {"id": "q1", "text": "bones", "lang": "en"},
        {"id": "q2", "text": "metals", "lang": "en"},
    ]
    assert [one["text"] for one in lines(tmp_path / "set", "corpus.jsonl")] == [
        "Vitamin D It helps bones.",
        "Iron is a metal.",
        "No title here.",
    ]
    assert qrels(tmp_path / "set") == [("q1", "d1", "2"), ("q1", "d3", "1"), ("q2", "d2", "1")]
    assert not (tmp_path / "set" / "candidates.parquet").exists()
    assert {name: meta[name] for name in ("format", "measure", "judged_by", "language", "split", "left_out")} == {
        "format": "beir",
        "measure": "nDCG@10",
        "judged_by": "qrels",
        "language": ["en"],
        "split": "test",
        "left_out": 0,
    }
    assert meta["left_out_by_rule"] == {"queries without a judgement in this split": 1}


def test_another_split_of_beir(tmp_path: Path) -> None:
    imported("beir", tmp_path / "set", beir(tmp_path / "scifact"), split="train", languages=("de",))
    assert lines(tmp_path / "set", "queries.jsonl") == [{"id": "t9", "text": "of the training split", "lang": "de"}]


def test_a_run_becomes_the_first_stage_in_the_order_of_trec_eval(tmp_path: Path) -> None:
    """By score and not by rank; equal scores by the id, the last first; at most so many; never the query itself."""
    source = beir(tmp_path / "scifact", corpus=[{"_id": "q1", "text": "the query itself"}])
    run = write_lines(
        tmp_path / "bm25.run",
        "q1 Q0 d1 3 1.5 bm25",
        "q1 Q0 d3 1 1.5 bm25",
        "q1 Q0 d2 2 9.25 bm25",
        "q1 Q0 q1 4 99 bm25",
        "q2 Q0 d2 1 7 bm25",
        "t9 Q0 d2 1 7 bm25",
    )
    meta = imported("beir", tmp_path / "set", source, run=run, depth=2)
    assert pq.read_table(tmp_path / "set" / "candidates.parquet").to_pylist() == [
        {
            "query_id": "q1",
            "query": "bones",
            "documents": [
                {"id": "d2", "text": "Iron is a metal.", "score": 9.25},
                {"id": "d3", "text": "No title here.", "score": 1.5},
            ],
        },
        {"query_id": "q2", "query": "metals", "documents": [{"id": "d2", "text": "Iron is a metal.", "score": 7.0}]},
    ]
    assert (meta["lists"], meta["left_out"], meta["ignores_identical_ids"]) == (2, 0, True)
    assert meta["left_out_by_rule"] == {
        "queries without a judgement in this split": 1,
        "ranked documents with the id of their query": 1,
        "ranked documents of queries that are not in this set": 1,
    }
    one = read_set(tmp_path / "set")
    assert (one.problems, one.measure, one.judged_by) == ((), "nDCG@10", "qrels")
    assert one.grades == {"q1": {"d1": 2, "d3": 1}, "q2": {"d2": 1}}


@pytest.mark.parametrize("depth", [2, 100])
def test_a_document_that_comes_again_in_a_list_is_named_at_any_depth(tmp_path: Path, depth: int) -> None:
    """The first line counts, also where the document has fallen out of the list's head."""
    run = write_lines(tmp_path / "run", "q1 Q0 d1 1 1 x", "q1 Q0 d2 2 3 x", "q1 Q0 d3 3 2 x", "q1 Q0 d1 4 9 x")
    imported("beir", tmp_path / "set", beir(tmp_path / "b"), run=run, depth=depth)
    row = pq.read_table(tmp_path / "set" / "candidates.parquet").to_pylist()[0]
    assert [one["id"] for one in row["documents"]] == ["d2", "d3", "d1"][:depth]
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{tmp_path}/", "")
    assert told == "run, line 4: document 'd1' of query 'q1' is ranked above already\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "Q1 Q0 d1 1 5 x",
            "its queries have ids such as 'Q1', and those of the set such as 'q1'; give the run the ids",
        ),
        ("q1 Q0 D1 1 5 x", "its documents have ids such as 'D1', and those of the set such as 'd1'; give the run the"),
        ("q1 d1 5", "run has no line that can be used: .*run, line 1: has 3 fields, and a line of a run has 6"),
        ("", "run has no line that can be used$"),
    ],
)
def test_a_run_of_which_no_list_is_left_is_an_error(tmp_path: Path, line: str, told: str) -> None:
    run = write_lines(tmp_path / "run", line)
    with pytest.raises(ConfigError, match=told):
        imported("beir", tmp_path / "set", beir(tmp_path / "b"), run=run)


def test_a_query_whose_grade_is_refused_is_no_query_without_judgements(tmp_path: Path) -> None:
    source = beir(tmp_path / "b")
    write_lines(source / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1.0", "q2\td2\t0.5")
    meta = imported("beir", tmp_path / "set", source, split="dev")
    assert qrels(tmp_path / "set") == [("q1", "d1", "1")]
    told = (tmp_path / "set" / "left-out.txt").read_text().removeprefix(f"{source}/")
    assert told == "qrels/dev.tsv, line 3: the grade is '0.5', which is no whole number of at most 1,000,000\n"
    assert meta["left_out_by_rule"] == {"queries without a judgement in this split": 1}  # t9
    assert list(read_set(tmp_path / "set").grades) == ["q1"]


def test_files_with_carriage_returns_at_line_ends_are_read(tmp_path: Path) -> None:
    """As on old Macs, and as the publisher's loader reads them, which opens them as texts."""
    source = beir(tmp_path / "b")
    for path in source.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r"))
    run = write(tmp_path / "run", "q1 Q0 d1 1 5 x\rq2 Q0 d2 1 5 x\r")
    meta = imported("beir", tmp_path / "set", source, run=run)
    assert qrels(tmp_path / "set") == [("q1", "d1", "2"), ("q1", "d3", "1"), ("q2", "d2", "1")]
    assert (meta["queries"], meta["documents"], meta["lists"], meta["left_out"]) == (2, 3, 2, 0)


def test_lines_that_cannot_be_used_are_named_and_left_out(tmp_path: Path) -> None:
    source = beir(
        tmp_path / "b",
        corpus=[
            {"_id": "d1", "text": "again"},
            "{",
            "[]",
            {"_id": "d8"},
            {"_id": "d9", "text": "\ud800"},
            {"text": "a"},
        ],
        queries=[{"_id": "q1", "text": "again"}, {"_id": "q2b", "text": " "}],
        qrels=["q1\td1\t1", "q1\tdX\t1", "qX\td1\t1", "q2\td1\thigh", "q2\td1", "q2b\td1\t1"],
    )
    run = write_lines(
        tmp_path / "run", "q1 Q0 d2 1 nan x", "q1 Q0 d2 1 5 x", "q1 Q0 d2 2 4 x", "q1 d2", "q1 Q0 no 9 1 x"
    )
    meta = imported("beir", tmp_path / "set", source, run=run)
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{source}/", "").replace(f"{tmp_path}/", "")
    assert sorted(line.partition(" (")[0] for line in told.splitlines()) == sorted(
        [
            "run, line 1: the score is 'nan', which is no finite number",
            "run, line 3: document 'd2' of query 'q1' is ranked above already",
            "run, line 4: has 2 fields, and a line of a run has 6",
            "run, line 5: there is no document 'no'",
            "qrels/test.tsv, line 2: document 'd1' of query 'q1' has a grade below again, which counts",
            "qrels/test.tsv, line 6: there is no document 'dX'",
            "qrels/test.tsv, line 7: there is no query 'qX'",
            "qrels/test.tsv, line 8: the grade is 'high', which is no whole number of at most 1,000,000",
            "qrels/test.tsv, line 9: has 2 fields, and 3 are needed",
            "qrels/test.tsv, line 10: there is no query 'q2b'",
            "queries.jsonl, line 4: has the id 'q1', which stands above already",
            "queries.jsonl, line 5: query 'q2b' has no text",
            "corpus.jsonl, line 4: has the id 'd1', which stands above already",
            "corpus.jsonl, line 5: is no JSON",
            "corpus.jsonl, line 6: is no JSON object",
            "corpus.jsonl, line 7: document 'd8' has no text",
            "corpus.jsonl, line 8: document 'd9' has no text",
            "corpus.jsonl, line 9: the id is None, which cannot be used",
        ]
    )
    assert meta["left_out"] == 18
    assert qrels(tmp_path / "set") == [("q1", "d1", "1"), ("q1", "d3", "1"), ("q2", "d2", "1")]
    assert read_set(tmp_path / "set").problems == ()


def test_beirs_judgements_are_read_as_its_loader_reads_them(tmp_path: Path) -> None:
    """With the csv module, which puts an id with a quote into quotes; a dict keeps the last grade of a document."""
    quoted = '<dbpedia:"Weird_Al"_Yankovic>'
    source = beir(tmp_path / "dbpedia", corpus=[{"_id": quoted, "text": "a singer"}])
    rows = [("query-id", "corpus-id", "score"), ("q1", quoted, 2), ("q2", "d2", 0), ("q2", "d2", 1)]
    path = write_table(source / "qrels" / "test.tsv", rows)
    with path.open(newline="") as file:
        _, *read = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
    theirs = {(query, document): grade for query, document, grade in read}
    imported("beir", tmp_path / "set", source)
    assert qrels(tmp_path / "set") == [(*ids, grade) for ids, grade in theirs.items()]
    assert (tmp_path / "set" / "left-out.txt").read_text() == (
        f"{path}, line 3: document 'd2' of query 'q2' has a grade below again, which counts\n"
    )


def test_judgements_of_trec_have_no_quotes_and_the_first_one_counts(tmp_path: Path) -> None:
    source = beir(tmp_path / "b", corpus=[{"_id": '"d4"', "text": "four"}])
    judged = write_lines(tmp_path / "judged", 'q1 0 "d4" 1', "q1 0 d1 2", "q1 0 d1 0")
    imported("beir", tmp_path / "set", source, qrels=judged)
    assert qrels(tmp_path / "set") == [("q1", '"d4"', "1"), ("q1", "d1", "2")]


def test_nanobeir_with_the_publishers_first_stage(tmp_path: Path) -> None:
    """As sentence-transformers/NanoBEIR-en has it: a split for each dataset, and lists of documents."""

    def table(name: str, **columns: Any) -> None:
        path = tmp_path / "nano" / name / "NanoSciFact-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path)

    table("corpus", _id=["a", "b", "c"], text=["one", "two", "three"])
    table("queries", _id=["1"], text=["which?"])
    table("qrels", **{"query-id": ["1"], "corpus-id": [["c", "a"]]})
    table("bm25", **{"query-id": ["1", "1"], "corpus-ids": [["b", "a"], None]})
    meta = imported("nanobeir", tmp_path / "set", tmp_path / "nano", split="NanoSciFact")
    assert qrels(tmp_path / "set") == [("1", "c", "1"), ("1", "a", "1")]
    row = pq.read_table(tmp_path / "set" / "candidates.parquet").to_pylist()[0]
    assert [(one["id"], one["text"]) for one in row["documents"]] == [("b", "two"), ("a", "one")]
    assert (meta["queries"], meta["documents"], meta["left_out"]) == (1, 3, 1)
    run = write_lines(tmp_path / "run", "1 Q0 c 1 9 x")
    imported("nanobeir", tmp_path / "other", tmp_path / "nano", split="NanoSciFact", run=run)
    row = pq.read_table(tmp_path / "other" / "candidates.parquet").to_pylist()[0]
    assert [one["id"] for one in row["documents"]] == ["c"]  # of two first stages one list would be made


def test_nanobeir_with_a_row_for_each_judgement(tmp_path: Path) -> None:
    """As the datasets of zeta-alpha-ai have it. Documents without a character are named and left out, as there."""
    for name, columns in {
        "corpus": {"_id": ["a", "empty", "b"], "text": ["one", "", "two"]},
        "queries": {"_id": ["1"], "text": ["which?"]},
        "qrels": {"query-id": ["1", "1"], "corpus-id": ["a", "b"]},
    }.items():
        path = tmp_path / "nano" / name / "train-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path)
    meta = imported("nanobeir", tmp_path / "set", tmp_path / "nano")
    assert qrels(tmp_path / "set") == [("1", "a", "1"), ("1", "b", "1")]
    assert (meta["documents"], meta["left_out"]) == (2, 1)
    told = (tmp_path / "set" / "left-out.txt").read_text()
    assert "document 'empty' has an empty text, which NanoBEIREvaluator leaves out" in told


def test_air_bench(tmp_path: Path) -> None:
    """Its judgements lie in a repository of their own; the language is in the folder's name."""
    data = tmp_path / "qa_wiki_de" / "AIR-Bench_24.05" / "default"
    judgements = tmp_path / "qrels-qa_wiki_de-dev" / "AIR-Bench_24.05" / "default"
    write_lines(data / "corpus.jsonl", {"id": "doc-1", "text": "Eins"}, {"id": "doc-2", "text": "Zwei"})
    write_lines(data / "dev_queries.jsonl", {"id": "q-1", "text": "Was?"})
    write_lines(data / "test_queries.jsonl", {"id": "q-2", "text": "Wer?"})
    write_lines(judgements / "dev_qrels.jsonl", {"qid": "q-1", "docid": "doc-2", "relevance": 1})
    meta = imported("air-bench", tmp_path / "set", tmp_path / "qa_wiki_de", tmp_path / "qrels-qa_wiki_de-dev")
    assert lines(tmp_path / "set", "queries.jsonl") == [{"id": "q-1", "text": "Was?", "lang": "de"}]
    assert qrels(tmp_path / "set") == [("q-1", "doc-2", "1")]
    assert (meta["measure"], meta["split"], meta["language"]) == ("nDCG@10", "dev", ["de"])


def test_several_datasets_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    for name in ("lex_files_300K-400K", "lex_files_400K-500K"):
        write_lines(tmp_path / "long-doc_law_en" / name / "dev_qrels.jsonl", {"qid": "q", "docid": "d", "relevance": 1})
    with pytest.raises(
        ConfigError, match=r"300K-400K/dev_qrels.jsonl and .*400K-500K/dev_qrels.jsonl are both a dev_q"
    ):
        imported("air-bench", tmp_path / "set", tmp_path / "long-doc_law_en")


def test_miracl(tmp_path: Path) -> None:
    data = tmp_path / "miracl-v1.0-sw"
    write_lines(data / "topics" / "topics.miracl-v1.0-sw-dev.tsv", "2#0\tMji mkuu wa Kenya ni upi?", "3#0\tbila jibu")
    rows = ("2#0\tQ0\t10#1\t1", "2#0\tQ0\t10#0\t0")
    write_lines(data / "qrels" / "qrels.miracl-v1.0-sw-dev.tsv", *rows)
    corpus = tmp_path / "miracl-corpus-v1.0-sw"
    write_lines(corpus / "docs-0.jsonl.gz", {"docid": "10#0", "title": "Kenya", "text": "Kenya ni nchi."})
    write_lines(corpus / "docs-1.jsonl.gz", {"docid": "10#1", "title": "Kenya", "text": "Nairobi ni mji mkuu."})
    meta = imported("miracl", tmp_path / "set", data, corpus)
    assert lines(tmp_path / "set", "queries.jsonl") == [
        {"id": "2#0", "text": "Mji mkuu wa Kenya ni upi?", "lang": "sw"},
    ]
    assert lines(tmp_path / "set", "corpus.jsonl")[1] == {"id": "10#1", "text": "Kenya Nairobi ni mji mkuu."}
    assert qrels(tmp_path / "set") == [("2#0", "10#1", "1"), ("2#0", "10#0", "0")]
    assert (meta["language"], meta["measure"]) == (["sw"], "nDCG@10")


def test_codesearchnet(tmp_path: Path) -> None:
    """The function without its docstring, which `code` has within it."""

    def function(language: str, name: str, **more: Any) -> dict[str, Any]:
        return {
            "repo": "o/r",
            "url": f"https://github.com/o/r/blob/0/{name}#L1-L3",
            "language": language,
            "code": f'def {name}():\n    """Does {name}."""\n    return 1',
            "code_tokens": ["def", name, "(", ")", ":", "return", "1"],
            "docstring": f"Does {name}.\n\nArgs: none",
            "docstring_tokens": ["Does", name, "."],
            **more,
        }

    folder = tmp_path / "python" / "final" / "jsonl" / "test"
    rows = (
        function("python", "f"),
        function("go", "g"),
        function("python", "f"),
        function("cobol", "h"),
        function("python", "i", docstring_tokens=[]),
        function("python", "j", url=["https://github.com"]),
    )
    write_lines(folder / "python_test_0.jsonl.gz", *rows)
    write_lines(folder.parent / "train" / "python_train_0.jsonl.gz", function("python", "train"))
    meta = imported("codesearchnet", tmp_path / "set", tmp_path / "python", languages=("python",))
    url = "https://github.com/o/r/blob/0/f#L1-L3"
    assert lines(tmp_path / "set", "queries.jsonl") == [{"id": url, "text": "Does f .", "lang": "python"}]
    assert lines(tmp_path / "set", "corpus.jsonl") == [{"id": url, "text": "def f ( ) : return 1"}]
    assert qrels(tmp_path / "set") == [(url, url, "1")]
    assert (meta["measure"], meta["left_out"]) == ("MRR@10", 4)
    assert meta["left_out_by_rule"] == {"functions of other languages": 1}
    told = (tmp_path / "set" / "left-out.txt").read_text()
    assert "line 4: the language is 'cobol', which is none of go, java, javascript, php, python, ruby" in told
    assert "line 6: the url is ['https://github.com'], which cannot be used as an id" in told


def test_toolbench(tmp_path: Path) -> None:
    """Instructions and APIs come as often as they belong together; quotes are doubled, as pandas does."""
    api = {
        "category_name": "Weather",
        "tool_name": "Sky",
        "api_name": "now",
        "api_description": 'Says "rain"',
        "required_parameters": [{"name": "city", "type": "STRING"}],
        "optional_parameters": [],
        "method": "GET",
        "template_response": {"rain": "bool"},
    }
    other = {"category_name": "Food", "tool_name": None, "api_name": "menu"}
    folder = tmp_path / "G1"
    corpus = [("docid", "document_content"), (1, json.dumps(api)), (2, json.dumps(other)), (1, json.dumps(api))]
    write_table(folder / "corpus.tsv", [*corpus, (3, "no JSON"), (2, json.dumps(api))])
    write_table(folder / "test.query.txt", [(7, 'I said "rain"?\tor not'), (7, 'I said "rain"?\tor not'), (8, "Lunch")])
    write_table(folder / "qrels.test.tsv", [(7, 0, 1, 1), (8, 0, 2, 1), (8, 0, 1, 1), (7, 0, 1, 1)])
    meta = imported("toolbench", tmp_path / "set", folder)
    assert [one["text"] for one in lines(tmp_path / "set", "queries.jsonl")] == ['I said "rain"?\tor not', "Lunch"]
    assert lines(tmp_path / "set", "corpus.jsonl") == [
        {
            "id": "1",
            "text": 'Weather, Sky, now, Says "rain", required_params: [{"name": "city", "type": "STRING"}], '
            'optional_params: [], return_schema: {"rain": "bool"}',
        },
        {
            "id": "2",
            "text": 'Food, , menu, , required_params: "", optional_params: "", return_schema: ""',
        },
    ]
    assert qrels(tmp_path / "set") == [("7", "1", "1"), ("8", "2", "1"), ("8", "1", "1")]
    assert meta["measure"] == "recall@3"
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{folder}/", "").splitlines()
    assert told == [
        "corpus.tsv, line 5: document '3' has no text",
        "corpus.tsv, line 6: has the id '2', which stands above already",
    ]


def test_a_quote_that_is_not_closed_takes_in_no_rows_in_silence(tmp_path: Path) -> None:
    """Of pandas, by which the publisher reads them, it is an error."""
    folder = tmp_path / "G1"
    write_table(folder / "corpus.tsv", [("docid", "document_content"), (1, json.dumps({"tool_name": "Sky"}))])
    write_table(folder / "qrels.test.tsv", [(number, 0, 1, 1) for number in range(5)])
    write_lines(folder / "test.query.txt", "0\tfirst", '1\t"a quote', '2\t"b"', "3\tthird", '4\t"at the end', "5\tno")
    imported("toolbench", tmp_path / "set", folder)
    assert [one["text"] for one in lines(tmp_path / "set", "queries.jsonl")] == ["first", "third"]
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{folder}/test.query.txt, ", "").splitlines()
    assert told[:2] == [
        "line 2: is no row of a table ('\t' expected after '\"'); a quote takes in the lines up to 3, which are left "
        "out, too",
        "line 5: is no row of a table (unexpected end of data); a quote takes in the lines up to 6, which are left "
        "out, too",
    ]


def test_toolbenchs_instructions(tmp_path: Path) -> None:
    """An API that several instructions name is one document; all APIs of an instruction are relevant for it."""
    sky, menu = ({"category_name": name, "tool_name": "T", "api_name": "a"} for name in ("Weather", "Food"))
    train = [{"query": "Will it rain?", "api_list": [sky]}, {"query": ["Lunch", "Food?"], "api_list": [menu, sky]}]
    test = [
        {"query": "Rain and lunch", "api_list": [sky, menu], "relevant APIs": [["T", "a"]], "query_id": 7},
        {"query": "No list"},
        {"query": "", "api_list": [sky]},
        "text",
    ]
    files = [tmp_path / "G1_query.json", tmp_path / "G1_instruction.json"]
    for path, content in zip(files, (train, test), strict=True):
        path.write_text(json.dumps(content))
    meta = imported("toolbench", tmp_path / "all", *files)
    asked = [one["text"] for one in lines(tmp_path / "all", "queries.jsonl")]
    assert asked == ["Will it rain?", "Lunch", "Food?", "Rain and lunch"]
    assert [one["text"].split(",")[0] for one in lines(tmp_path / "all", "corpus.jsonl")] == ["Weather", "Food"]
    pairs = [("1", "1"), ("2", "2"), ("2", "1"), ("3", "2"), ("3", "1"), ("4", "1"), ("4", "2")]
    assert qrels(tmp_path / "all") == [(*pair, "1") for pair in pairs]
    assert meta["left_out"] == 3
    told = (tmp_path / "all" / "left-out.txt").read_text().replace(f"{tmp_path}/", "").splitlines()
    assert told == [
        "G1_instruction.json, entry 2: the instruction has no api_list of objects",
        "G1_instruction.json, entry 3: the instruction has no query",
        "G1_instruction.json, entry 4: the instruction has no api_list of objects",
    ]
    imported("toolbench", tmp_path / "test", *files, queries=files[1])
    assert [one["text"] for one in lines(tmp_path / "test", "queries.jsonl")] == ["Rain and lunch"]
    assert len(lines(tmp_path / "test", "corpus.jsonl")) == 2
    for asked, told in (({"qrels": files[1]}, "--qrels is given"), ({"split": "train"}, "has no splits")):
        with pytest.raises(ConfigError, match=told):
            imported("toolbench", tmp_path / "none", files[0], **asked)
        shutil.rmtree(tmp_path / "none")
    files[0].write_text("{}")
    with pytest.raises(ConfigError, match="holds no array of instructions"):
        imported("toolbench", tmp_path / "none", files[0])


def test_nstext2sql(tmp_path: Path) -> None:
    """The same tables in another order are the same schema."""
    singer = "CREATE TABLE singer (\n    id number,\n    name text\n)"
    song = "CREATE TABLE song (\n    title text\n)"
    request = "\n\n\n-- Using valid SQLite, answer the following questions for the tables provided above.\n\n-- "

    def row(tables: Sequence[str], question: str, source: str = "spider") -> dict[str, str]:
        return {"instruction": "\n\n".join(tables) + request + question + "\n", "output": "SELECT 1", "source": source}

    path = write_lines(
        tmp_path / "train.jsonl",
        row([singer, song], "How many singers?"),
        row([song, singer], "Which songs?"),
        row([song], "All titles?"),
        row([singer], "Of another source?", "wikisql"),
        {"instruction": "SELECT", "output": "", "source": "spider"},
    )
    meta = imported("nstext2sql", tmp_path / "set", path, part="spider")
    assert lines(tmp_path / "set", "queries.jsonl") == [
        {"id": "row-1", "text": "How many singers?", "lang": "en"},
        {"id": "row-2", "text": "Which songs?", "lang": "en"},
        {"id": "row-3", "text": "All titles?", "lang": "en"},
    ]
    assert lines(tmp_path / "set", "corpus.jsonl") == [
        {"id": "schema-1", "text": f"{singer}\n\n{song}"},
        {"id": "schema-2", "text": song},
    ]
    assert qrels(tmp_path / "set") == [
        ("row-1", "schema-1", "1"),
        ("row-2", "schema-1", "1"),
        ("row-3", "schema-2", "1"),
    ]
    assert (meta["measure"], meta["part"], meta["left_out"]) == ("recall@3", "spider", 1)
    assert meta["left_out_by_rule"] == {"rows of other sources": 1}


def test_trecs_markup(tmp_path: Path) -> None:
    documents = """<DOC>
<DOCNO> FT911-1 </DOCNO>
<HEADLINE>
FT  14 MAY 91 / Mining &amp; metals
</HEADLINE>
<TEXT>
Prices <F P=1>rose</F>.

A lot.
</TEXT>
<PUB>The Financial Times</PUB>
</DOC>

<DOC>
<DOCNO>FT911-2</DOCNO>
<PUB>no text</PUB>
</DOC>
<DOC>
<DOCNO>FT911-3</DOCNO>
<TEXT>cut off
"""
    write(tmp_path / "ft" / "911" / "ft911_1", documents)
    write(tmp_path / "ft" / "README", "no documents\n")
    topics = write(
        tmp_path / "topics.txt",
        "<top>\n\n<num> Number: 301 \n<title> Metal\n prices \n\n<desc> Description: \nMore.\n\n</top>\n"
        "<top>\n<num> Number: 302\n<title> Without judgements\n</top>\n",
    )
    judged = write_lines(tmp_path / "qrels", "301 0 FT911-1 1", "301 0 FT911-9 -1")
    run = write_lines(tmp_path / "run", "301 Q0 FT911-1 1 3.5 x")
    meta = imported("trec", tmp_path / "set", tmp_path / "ft", queries=topics, qrels=judged, run=run)
    assert lines(tmp_path / "set", "queries.jsonl") == [{"id": "301", "text": "Metal prices"}]
    assert lines(tmp_path / "set", "corpus.jsonl") == [
        {"id": "FT911-1", "text": "FT 14 MAY 91 / Mining & metals\nPrices rose . A lot."}
    ]
    assert qrels(tmp_path / "set") == [("301", "FT911-1", "1")]
    assert (meta["lists"], meta["left_out"]) == (1, 4)
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{tmp_path}/", "").splitlines()
    assert told[:3] == [
        "ft/911/ft911_1, line 14: document 'FT911-2' has none of the tags "
        "TEXT HEADLINE TITLE HL HEAD TTL DD DATE LP LEADPARA",
        "ft/911/ft911_1, line 18: <doc> is not closed",
        "ft/README, line 1: the file has no <doc>",
    ]


def test_trecs_tags_may_have_attributes_and_an_end_without_a_beginning_is_named(tmp_path: Path) -> None:
    documents = """<DOC>
<DOCNO>A1</DOCNO>
<TEXT>if x < 5 and y > 3<!-- a comment --></TEXT>
</DOC>
<DOC id="A2" type="story">
<DOCNO lang="en">A2</DOCNO>
<TEXT lang="en">two</TEXT>
</DOC>
<DOCNO>A3</DOCNO>
<TEXT>three</TEXT>
</DOC>
"""
    corpus = write(tmp_path / "docs", documents)
    topics = write(tmp_path / "topics", '<top lang="en">\n<num>1\n<title>what\n</top>\n')
    judged = write_lines(tmp_path / "qrels", "1 0 A1 1")
    imported("trec", tmp_path / "set", corpus, queries=topics, qrels=judged)
    assert lines(tmp_path / "set", "corpus.jsonl") == [
        {"id": "A1", "text": "if x < 5 and y > 3"},
        {"id": "A2", "text": "two"},
    ]
    told = (tmp_path / "set" / "left-out.txt").read_text().removeprefix(f"{tmp_path}/")
    assert told == "docs, line 11: </doc> closes nothing; what stands before it is left out\n"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ("<num> Number: 1\n<title> tax <b>rate</b> if x < 5 and AT&amp;T\n", "tax rate if x < 5 and AT&T"),
        ("<num>1</num>\n<title>tax\n<i>rates</i></title> 2011\n<desc>More.", "tax rates"),
        ("<num> Number: 1 <title> Topic: tax rates <desc> Description: More.", "tax rates"),
        ("<num>1</num><title lang='en'>\ntax rates\n<narr> More.", "tax rates"),
    ],
)
def test_a_title_ends_where_it_is_closed_or_the_next_field_begins(tmp_path: Path, fields: str, text: str) -> None:
    topics = write(tmp_path / "topics", f"<top>\n{fields}\n</top>\n")
    corpus = write_lines(tmp_path / "docs.jsonl", {"id": "d1", "text": "A"})
    judged = write_lines(tmp_path / "qrels", "1 0 d1 1")
    imported("trec", tmp_path / "set", corpus, queries=topics, qrels=judged)
    assert lines(tmp_path / "set", "queries.jsonl") == [{"id": "1", "text": text}]


def test_trec_with_tables_and_json_lines(tmp_path: Path) -> None:
    corpus = write_lines(
        tmp_path / "docs.jsonl", {"docno": "d1", "title": "A", "contents": "b"}, {"id": 2, "text": "c"}
    )
    topics = write_lines(tmp_path / "topics.tsv", "1\twhat", "no tab")
    judged = write_lines(tmp_path / "qrels", "1\t0\td1\t3", "1\t0\t2\t0")
    meta = imported("trec", tmp_path / "set", corpus, queries=topics, qrels=judged, languages=("de",))
    assert lines(tmp_path / "set", "queries.jsonl") == [{"id": "1", "text": "what", "lang": "de"}]
    assert lines(tmp_path / "set", "corpus.jsonl") == [{"id": "d1", "text": "A b"}, {"id": "2", "text": "c"}]
    assert qrels(tmp_path / "set") == [("1", "d1", "3"), ("1", "2", "0")]
    assert meta["left_out"] == 1


def test_trecs_topics_in_xml(tmp_path: Path) -> None:
    """As TREC-COVID writes them, and as the Clinical Trials track does; what has another shape is named."""
    topics = write(
        tmp_path / "topics.xml",
        """<?xml version="1.0" encoding="UTF-8"?>
<topics task="COVID">
  <topic number="1">
    <query>coronavirus   origin &amp; spread</query>
    <question>what is the origin?</question>
  </topic>
  <topic number=" 2 ">
    A man of 45
    with a cough
  </topic>
  <topic><query>no number</query></topic>
  <topic number="4"><disease>flu</disease></topic>
</topics>
""",
    )
    corpus = write_lines(tmp_path / "docs.jsonl", {"id": "d1", "text": "A"})
    judged = write_lines(tmp_path / "qrels", "1 0 d1 2", "2 0 d1 1")
    imported("trec", tmp_path / "set", corpus, queries=topics, qrels=judged)
    assert lines(tmp_path / "set", "queries.jsonl") == [
        {"id": "1", "text": "coronavirus origin & spread"},
        {"id": "2", "text": "A man of 45 with a cough"},
    ]
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{tmp_path}/", "").splitlines()
    assert told == [
        f"topics.xml, line {line}: the topic that ends here has no number, or no title or query" for line in (11, 12)
    ]


@pytest.mark.parametrize(
    ("topics", "texts"),
    [
        ("<?xml version='1.0' encoding='ISO-8859-1'?>\n<topics>{}</topics>".encode("latin-1"), ["café"]),
        ("<?xml version='1.0' encoding='UTF-16'?>\n<topics>{}</topics>".encode("utf-16"), ["café"]),
        ("\ufeff<topics>\r\n{}</topics>".encode(), ["café"]),
        (b"<topics xmlns='http://x'>{}</topics>", ["café"]),
        (b"<!--\n" + b"a licence\n" * 30 + b"-->\n<topics>{}</topics>", ["café"]),
        (b"<!DOCTYPE topics [<!ENTITY e 'caf\xc3\xa9'>]><topics><topic number='1'><title/>"
         b"<query>&e;</query></topic></topics>", ["café"]),
        (b"<TOPICS><TOPIC number='1'><Query>caf\xc3\xa9</Query></TOPIC></TOPICS>", ["café"]),
        (b"1\ta <topic > of caf\xc3\xa9s\n", ["a <topic > of cafés"]),
        (b"<top><num> Number: 1 <title> caf\xc3\xa9 </top>\n", ["café"]),
        (b"<top>\n<num> Number: 1\n<title> caf\xe9\n</top>\n", ["caf\ufffd"]),
    ],
)  # fmt: skip
def test_topics_are_read_as_they_are_encoded_and_marked_up(tmp_path: Path, topics: bytes, texts: list[str]) -> None:
    """A byte that is no UTF-8 is named where the format does not say how it is encoded."""
    topic = "<topic number='1'><query>café</query></topic>"
    encoding = "latin-1" if b"8859" in topics else "utf-16-le" if topics.startswith(b"\xff\xfe") else "utf-8"
    (tmp_path / "topics").write_bytes(topics.replace("{}".encode(encoding), topic.encode(encoding)))
    corpus = write_lines(tmp_path / "docs.jsonl", {"id": "d1", "text": "A"})
    judged = write_lines(tmp_path / "qrels", "1 0 d1 2")
    imported("trec", tmp_path / "set", corpus, queries=tmp_path / "topics", qrels=judged)
    assert [one["text"] for one in lines(tmp_path / "set", "queries.jsonl")] == texts
    left_out = tmp_path / "set" / "left-out.txt"
    told = left_out.read_text().splitlines() if left_out.exists() else []
    mended = f"{tmp_path}/topics, line 3: bytes that are no UTF-8 are left out, and U+FFFD stands in their place"
    assert told == ([mended] if texts == ["caf\ufffd"] else [])


@pytest.mark.parametrize(
    ("topics", "told"),
    [
        (b"<topics><topic number='1'>", "is no XML that can be read: no element found"),
        (b"<topics>\n<topic number='1'>\xff</topic></topics>", "not well-formed .* line 2"),
        (b"<?xml version='1.0' encoding='Shift_JIS'?><topics/>", "multi-byte encodings are not supported"),
        (b"<?xml version='1.0' encoding='nothing'?><topics/>", "unknown encoding"),
        (b"<!DOCTYPE t [<!ENTITY e SYSTEM 'qrels'>]><topics><topic>&e;</topic></topics>", "undefined entity"),
        (b"<!DOCTYPE t [<!ENTITY a '" + b"x" * 10**5 + b"'>]><topics><topic number='1'>" + b"&a;" * 10**4 +
         b"</topic></topics>", "amplification factor"),
        (b"<?xml version='1.0'?><questions><question/></questions>", "line 1: the file has no <topic>"),
    ],
)  # fmt: skip
def test_xml_that_cannot_be_read_is_an_error(tmp_path: Path, topics: bytes, told: str) -> None:
    """No file is read that an entity names, and none grows in memory."""
    (tmp_path / "topics").write_bytes(topics)
    corpus = write_lines(tmp_path / "docs.jsonl", {"id": "d1", "text": "A"})
    judged = write_lines(tmp_path / "qrels", "1 0 d1 2")
    with pytest.raises(ConfigError, match=told):
        imported("trec", tmp_path / "set", corpus, queries=tmp_path / "topics", qrels=judged)


def test_documents_that_follow_on_one_line_stay_apart(tmp_path: Path) -> None:
    documents = "<doc><docno>a</docno><text>one</text></doc><doc><docno>b</docno>\n<text>two</text></doc>\n"
    corpus = write(tmp_path / "docs", documents)
    topics, judged = write_lines(tmp_path / "topics", "1\twhat"), write_lines(tmp_path / "qrels", "1 0 a 1")
    imported("trec", tmp_path / "set", corpus, queries=topics, qrels=judged)
    assert lines(tmp_path / "set", "corpus.jsonl") == [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]


def test_a_run_has_the_order_that_trec_eval_gives_it(tmp_path: Path) -> None:
    """trec_eval reads 32 bits of a score: documents that differ only beyond them go by their ids."""
    scores = {"1": {"a": 23.452, "b": 23.451999}, "2": {"a": 23.452, "b": 23.45}, "3": {"a": -1.0, "b": -1.0000000001}}
    corpus = write_lines(tmp_path / "docs.jsonl", {"id": "a", "text": "A"}, {"id": "b", "text": "B"})
    topics = write_lines(tmp_path / "topics", *(f"{query}\twhat" for query in scores))
    judged = write_lines(tmp_path / "qrels", *(f"{query} 0 a 1" for query in scores), "3 0 b 1_0")
    ranked = [f"{query} Q0 {one} 0 {score!r} r" for query, by_id in scores.items() for one, score in by_id.items()]
    run = write_lines(tmp_path / "run", *ranked, "1 Q0 c 0 1_0 r")
    meta = imported("trec", tmp_path / "set", corpus, queries=topics, qrels=judged, run=run)
    evaluator = pytrec_eval.RelevanceEvaluator({query: {"a": 1} for query in scores}, {"recip_rank"})
    expected = {query: by_name["recip_rank"] for query, by_name in evaluator.evaluate(scores).items()}
    rows = pq.read_table(tmp_path / "set" / "candidates.parquet").to_pylist()
    found = {row["query_id"]: 1 / (1 + [one["id"] for one in row["documents"]].index("a")) for row in rows}
    assert found == expected == {"1": 0.5, "2": 1.0, "3": 0.5}
    assert {one["id"]: one["score"] for one in rows[0]["documents"]} == scores["1"]
    assert meta["left_out"] == 2  # numbers with an underscore are none but to Python


def mkqa(tmp_path: Path) -> tuple[Path, Path]:
    """Four examples of MKQA's, of which two have short answers, and a corpus."""

    def example(one: int, type_: str, text: str | None, *aliases: str, **queries: str) -> dict[str, Any]:
        answer = {"type": type_, "entity": "Q1", "text": text, **({"aliases": list(aliases)} if aliases else {})}
        german = {"type": type_, "text": "auf Deutsch"}
        questions = {"en": f"question {one}", "de": f"Frage {one}", **queries}
        return {"example_id": one, "query": "", "queries": questions, "answers": {"en": [answer], "de": [german]}}

    questions = write_lines(
        tmp_path / "mkqa.jsonl.gz",
        example(-11, "entity", "Dave Edmunds", "David W. Edmunds", xx="?"),
        example(12, "date", "1972-01-05", "January 5, 1972", "\ud800"),
        example(13, "unanswerable", None),
        example(14, "binary", "yes"),
    )
    corpus = write_lines(
        tmp_path / "nq" / "corpus.jsonl",
        {"_id": "doc0", "title": "A song", "text": "It was sung by “Dave Edmunds” (1970)."},
        {"_id": "doc1", "title": "David W Edmunds", "text": "A singer."},
        {"_id": "doc2", "title": "", "text": "On January 6, 1972."},
    )
    return questions, corpus.parent


def test_mkqa_by_answers(tmp_path: Path) -> None:
    """A question of which the first stage found no answer stays in the mean, as 0."""
    run = write_lines(
        tmp_path / "run",
        *(
            f"{query} Q0 {document} 1 {score} x"
            for query in ("de:-11", "de:12")
            for document, score in RANKED_DOCUMENTS
        ),
    )
    meta = imported("mkqa", tmp_path / "set", *mkqa(tmp_path), languages=("de",), run=run)
    assert lines(tmp_path / "set", "queries.jsonl") == [
        {"id": "de:-11", "text": "Frage -11", "lang": "de"},
        {"id": "de:12", "text": "Frage 12", "lang": "de"},
    ]
    assert lines(tmp_path / "set", "answers.jsonl")[0] == {
        "id": "de:-11",
        "answers": ["Dave Edmunds", "David W. Edmunds"],
    }
    assert not (tmp_path / "set" / "qrels.tsv").exists()
    assert (meta["judged_by"], meta["measure"], meta["document_language"]) == ("answers", "Success@10", "en")
    assert (meta["left_out"], meta["left_out_by_rule"]) == (1, {"questions without a short answer": 2})
    assert "line 1: the language code 'xx' is none of MKQA's" in (tmp_path / "set" / "left-out.txt").read_text()
    one = read_set(tmp_path / "set")
    assert (one.judged_by, one.measure) == ("answers", "Success@10")
    assert one.grades == {"de:-11": {"doc2": 0, "doc1": 1, "doc0": 1}, "de:12": {"doc2": 0, "doc1": 0, "doc0": 0}}
    order = {row["query_id"]: [one["id"] for one in row["documents"]] for row in one.candidates.to_pylist()}
    assert values_by_query("Success@10", one.grades, order) == {"de:-11": 1.0, "de:12": 0.0}
    assert values_by_query("Success@1", one.grades, order) == {"de:-11": 0.0, "de:12": 0.0}


def test_a_run_of_mkqa_names_examples_or_those_of_one_language(tmp_path: Path) -> None:
    """A list of an example is that of all languages which have none of their own; what is wrong in it is named once."""
    run = write_lines(
        tmp_path / "run", "-11 Q0 doc0 1 2 x", "-11 Q0 doc9 2 1 x", "de:-11 Q0 doc1 1 1 x", "12 Q0 doc2 1 1 x"
    )
    meta = imported("mkqa", tmp_path / "set", *mkqa(tmp_path), languages=("en", "de", "fr"), run=run)
    rows = pq.read_table(tmp_path / "set" / "candidates.parquet").to_pylist()
    assert {row["query_id"]: [one["id"] for one in row["documents"]] for row in rows} == {
        "en:-11": ["doc0"],
        "de:-11": ["doc1"],
        "en:12": ["doc2"],
        "de:12": ["doc2"],
    }
    assert meta["lists"] == 4
    told = (tmp_path / "set" / "left-out.txt").read_text().replace(f"{tmp_path}/", "").splitlines()
    assert [line for line in told if line.startswith("run")] == ["run, line 2: there is no document 'doc9'"]
    assert meta["left_out_by_rule"]["questions without a short answer"] == 2


RANKED_DOCUMENTS = (("doc2", 3), ("doc1", 2), ("doc0", 1))


def test_mkqa_by_judgements(tmp_path: Path) -> None:
    """They are of an example in all languages, or of one."""
    judged = write_lines(tmp_path / "qrels.tsv", "-11\t0\tdoc0\t1", "en:12\t0\tdoc2\t1")
    meta = imported("mkqa", tmp_path / "set", *mkqa(tmp_path), qrels=judged, languages=("en", "de"))
    assert sorted(qrels(tmp_path / "set")) == [("de:-11", "doc0", "1"), ("en:-11", "doc0", "1"), ("en:12", "doc2", "1")]
    assert not (tmp_path / "set" / "answers.jsonl").exists()
    assert (meta["judged_by"], meta["measure"], meta["language"]) == ("qrels", "recall@10", ["de", "en"])


def test_mkqa_in_a_language_that_a_question_lacks(tmp_path: Path) -> None:
    imported("mkqa", tmp_path / "set", *mkqa(tmp_path), languages=("en", "ko"))
    assert "mkqa.jsonl.gz, line 2: query 'ko:12' has no text" in (tmp_path / "set" / "left-out.txt").read_text()


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("bier", {}, "FORMAT is 'bier'; it is one of beir, nanobeir, mkqa"),
        ("beir", {"part": "spider"}, "beir does not take --part; it takes --split, --language, --queries, --qrels"),
        ("mkqa", {"split": "test"}, "mkqa does not take --split"),
        ("mkqa", {"languages": ("xx",)}, "--language is 'xx'; mkqa has ar, da, de"),
        ("mkqa", {"document_language": "xx"}, "--document-language is 'xx'"),
        ("beir", {"languages": ("de", "en")}, "--language is given 2 times"),
        ("beir", {"languages": (" ",)}, "--language is empty"),
        ("beir", {"split": "dev"}, "there is no qrels/dev.tsv in "),
        ("beir", {"split": "**"}, "--split is '\\*\\*'; it is the name of a split"),
        ("beir", {"split": "../test"}, "--split is '../test'; it is the name of a split"),
        ("beir", {"qrels": Path("nowhere.tsv")}, "nowhere.tsv is not there"),
        ("trec", {}, "needs --queries TOPICS and --qrels FILE"),
    ],
)
def test_what_is_asked_wrongly_is_said(tmp_path: Path, name: str, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        imported(name, tmp_path / "set", beir(tmp_path / "b"), **asked)


def test_nothing_left_to_measure_is_an_error_that_names_the_lines(tmp_path: Path) -> None:
    source = beir(tmp_path / "b")
    write_lines(source / "qrels" / "none.tsv", "query-id\tcorpus-id\tscore", "q1\td77\t1")
    with pytest.raises(
        ConfigError, match=r"no query with a document that is relevant is left.*there is no document 'd77'"
    ):
        imported("beir", tmp_path / "set", source, split="none")


def test_nothing_left_to_measure_says_what_the_benchmark_leaves_out(tmp_path: Path) -> None:
    source = beir(tmp_path / "b")
    write_lines(source / "qrels" / "none.tsv", "query-id\tcorpus-id\tscore")
    with pytest.raises(ConfigError, match=r"no query is left.* \(3 queries without a judgement in this split are left"):
        imported("beir", tmp_path / "set", source, split="none")


def test_a_source_of_which_nothing_is_read_is_an_error(tmp_path: Path) -> None:
    """Such as instructions beside the folder that was made of them, which has its own."""
    with pytest.raises(ConfigError, match=r"nothing of .*notes\.txt is read; leave it out, or give what beir reads"):
        imported("beir", tmp_path / "one", beir(tmp_path / "scifact"), write(tmp_path / "notes.txt", "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"nothing of .*empty is read"):
        imported("beir", tmp_path / "two", tmp_path / "scifact", tmp_path / "empty")


def test_an_archive_has_to_be_unpacked(tmp_path: Path) -> None:
    archive = write(tmp_path / "scifact.zip", "PK")
    with pytest.raises(
        ConfigError, match=r"there is no qrels/test.tsv in .*; unpack .*scifact.zip, and give the folder"
    ):
        imported("beir", tmp_path / "set", archive)


def test_a_packed_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    source = beir(tmp_path / "b", ".gz")
    path = source / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ConfigError, match=r"corpus.jsonl.gz cannot be read: Compressed file ended"):
        imported("beir", tmp_path / "set", source)


def test_each_format_says_whom_it_follows() -> None:
    assert all(kind.publisher.startswith("https://") and "https://" in kind.files for kind, _ in FORMATS.values())
