"""`crossray label`: a row out for each row in, and beside it the very scores that the teachers give."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from Stemmer import Stemmer
from tokenizers import Tokenizer
from transformers import AutoModel
from typer.testing import CliRunner

import jobs.training.label.run
from jobs.cli import app
from jobs.driver.resolution import JOB_ENVIRONMENT
from jobs.errors import DONE, DONE_WITH_ERRORS, REFUSED, USAGE, RefusedError, StoppedError, UnreadableFileError
from jobs.input.selection import Selection
from jobs.records import Unit
from jobs.settings import RerankSettings
from jobs.table.columns import ColumnMapping
from jobs.training.encoders import EncoderSettings
from jobs.training.label import pieces
from jobs.training.label.pieces import fused
from jobs.training.label.run import label
from jobs.training.label.settings import LabelSettings
from jobs.training.label.teachers import Kind, Teacher, parse_teacher
from pipelines.errors import ConfigError
from pipelines.reranker import Reranker
from tests.jobs.tables import parts
from tests.jobs.training.here import stay_here
from tests.stores import Bucket, download, upload

DOCUMENTS = [
    "sorted() returns a new sorted list",
    "list.sort sorts a list in place",
    "bananas are yellow",
    "os.fork makes a child process",
    "str.split cuts a text at white space",
]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    stay_here(monkeypatch)


def odd_table() -> pa.Table:
    """Rows 0, 1 and 6 can be scored, 1 but for a null document."""
    return pa.table(
        {
            "query": pa.array(["sort a list", "sort", None, " ", "fork", "split", "child list"], pa.large_string()),
            "documents": pa.array(
                [DOCUMENTS, [DOCUMENTS[1], None, DOCUMENTS[2]], DOCUMENTS, DOCUMENTS, None, [], [*DOCUMENTS[:2], ""]],
                pa.large_list(pa.large_string()),
            ),
            "language": pa.array(["en", "de", "en", None, "en", "en", "en"]).dictionary_encode(),
            "labels": [[1.0, 1.0, 0.0, 0.0, 0.0], None, [], [], [], [], [0.0, 1.0, None]],
        }
    )


ERRORS = {"blank_query": 1, "null_documents": 1, "null_query": 1}


def structs_table() -> pa.Table:
    documents = [[{"id": "a", "text": text} for text in DOCUMENTS[1:]], [{"id": "b", "text": None}]]
    return pa.table({"query": ["make a process", "none"], "documents": documents, "row": [1, 2]})


def write(directory: Path, *tables: pa.Table) -> Path:
    directory.mkdir()
    for i, table in enumerate(tables):
        pq.write_table(table, directory / f"{i}.parquet", row_group_size=3)
    return directory


def labelled(source: Path, output: Path, teacher: str, **options: Any) -> dict[str, Any]:
    said = options.pop("said", io.StringIO())
    encoder = options.pop("encoder", None)
    column = options.pop("column", "teacher")
    job = RerankSettings(str(source), str(output), **{"replicas": (1, 1)} | options)
    return label(LabelSettings(job, parse_teacher(teacher), column, encoder), Console(file=said, width=200))


def column(output: Path, name: str = "teacher") -> list[list[float | None] | None]:
    return [row for part in parts(output) for row in pq.read_table(part).column(name).to_pylist()]


def assert_equal(actual: Sequence[float | None] | None, expected: Sequence[float | None]) -> None:
    assert actual is not None
    assert [x is None for x in actual] == [x is None for x in expected]
    known = [(x, y) for x, y in zip(actual, expected, strict=True) if x is not None]
    assert [x for x, _ in known] == pytest.approx([y for _, y in known], abs=1e-4)


def test_a_reranker_as_teacher_gives_the_logits_of_the_engine(cluster: str, tmp_path: Path) -> None:
    """On Ray, through the offline job; all else comes out as it came in, and the same command finds nothing to do."""
    source, output = write(tmp_path / "in", odd_table(), structs_table()), tmp_path / "out"
    summary = labelled(source, output, "reranker:embedded")
    assert summary["rows"] == 9
    assert summary["errors"] == ERRORS
    assert summary["null_documents"] == 2
    assert sorted(path.name for path in output.iterdir() if path not in parts(output)) == [
        "_manifest.json",
        "_summary.json",
    ]
    tables = [pq.read_table(part) for part in parts(output)]
    for before, after in zip((odd_table(), structs_table()), tables, strict=True):
        assert after.drop_columns("teacher").equals(before)
        assert after.schema.field("teacher").type == pa.list_(pa.float32())

    def logits(query: str, documents: Sequence[str]) -> list[float]:
        return engine.compute_score([(query, document) for document in documents])

    engine = Reranker.load("embedded", raw_scores=True)
    scores = column(output)
    assert_equal(scores[0], logits("sort a list", DOCUMENTS))
    first, last = logits("sort", DOCUMENTS[1:3])
    assert_equal(scores[1], [first, None, last])
    assert scores[2:6] == [None, None, None, []]
    assert_equal(scores[6], logits("child list", [*DOCUMENTS[:2], ""]))
    assert_equal(scores[7], logits("make a process", DOCUMENTS[1:]))
    assert_equal(scores[8], [None])

    said = io.StringIO()
    assert labelled(source, output, "reranker:embedded", said=said) == summary
    assert "is complete" in said.getvalue()
    with pytest.raises(RefusedError, match=r"teacher was 'reranker:embedded', is 'bm25'"):
        labelled(source, output, "bm25")


def test_a_fusion_is_the_sum_of_z_scores_within_the_list(tmp_path: Path, here: None, bert_directory: Path) -> None:
    """Of BM25 over all files and of a dense encoder with the prefixes of e5, each computed without us."""
    source, output = write(tmp_path / "in", odd_table(), structs_table()), tmp_path / "out"
    encoder = EncoderSettings("", "query: ", "passage: ", 64)
    summary = labelled(source, output, f"fusion:bm25,dense:{bert_directory}", encoder=encoder)
    assert summary["errors"] == ERRORS
    cosines = cosines_of(bert_directory, "sort a list", DOCUMENTS)
    expected = z_by_hand(bm25_of("sort a list", DOCUMENTS)) + z_by_hand(cosines)
    assert_equal(column(output)[0], expected.tolist())


def z_by_hand(scores: Sequence[float]) -> np.ndarray:
    return (np.asarray(scores) - np.mean(scores)) / np.std(scores)


def bm25_of(query: str, documents: Sequence[str]) -> list[float]:
    """By bm25s over the six distinct documents of the tables above."""
    distinct = [*DOCUMENTS, ""]
    index = bm25s.BM25()
    cut: dict[str, Any] = {"stopwords": "en", "stemmer": Stemmer("english"), "show_progress": False}
    index.index(bm25s.tokenize(distinct, **cut), show_progress=False)
    [words] = bm25s.tokenize([query], return_ids=False, **cut)
    scores = index.get_scores(words)
    return [float(scores[distinct.index(document)]) for document in documents]


def cosines_of(directory: Path, query: str, documents: Sequence[str]) -> list[float]:
    model = AutoModel.from_pretrained(directory, add_pooling_layer=False).eval()
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    vectors = []
    for text in (f"query: {query}", *(f"passage: {document}" for document in documents)):
        with torch.inference_mode():
            hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=-1))
    return [float(vectors[0] @ vector) for vector in vectors[1:]]


def test_bm25_counts_each_document_of_all_files_once(tmp_path: Path, here: None) -> None:
    source = write(tmp_path / "in", odd_table(), structs_table(), odd_table())
    labelled(source, tmp_path / "out", "bm25")
    scores = column(tmp_path / "out")
    assert_equal(scores[0], bm25_of("sort a list", DOCUMENTS))
    assert_equal(scores[6], bm25_of("child list", [*DOCUMENTS[:2], ""]))
    assert_equal(scores[7], bm25_of("make a process", DOCUMENTS[1:]))
    assert scores[9:] == scores[:7]


def test_a_dense_encoder_of_xlm_roberta_gives_its_cosines(
    cluster: str, tmp_path: Path, xlm_roberta_directory: Path
) -> None:
    """On Ray, in a pool of its own."""
    source = write(tmp_path / "in", odd_table())
    encoder = EncoderSettings("", "query: ", "passage: ")
    labelled(source, tmp_path / "out", f"dense:{xlm_roberta_directory}", encoder=encoder)
    assert_equal(column(tmp_path / "out")[0], cosines_of(xlm_roberta_directory, "sort a list", DOCUMENTS))


def test_what_was_stopped_goes_on_with_the_missing_parts(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = write(tmp_path / "in", odd_table(), structs_table()), tmp_path / "out"
    labelled(source, tmp_path / "whole", "fusion:bm25,reranker:embedded")
    run_stage = jobs.training.label.run.run_stage_on_replicas

    def only_the_first(stage: Any, argument: Any, items: Sequence[dict[str, Any]], *rest: Any, **options: Any) -> None:
        run_stage(stage, argument, items[:1], *rest, **options)

    monkeypatch.setattr(jobs.training.label.run, "run_stage_on_replicas", only_the_first)
    with pytest.raises(StoppedError, match="1 piece"):
        labelled(source, output, "fusion:bm25,reranker:embedded")
    [first] = parts(output)
    before = first.stat().st_mtime_ns
    monkeypatch.setattr(jobs.training.label.run, "run_stage_on_replicas", run_stage)
    summary = labelled(source, output, "fusion:bm25,reranker:embedded")
    assert first.stat().st_mtime_ns == before
    assert summary["rows"] == 9
    assert column(output) == column(tmp_path / "whole")


def test_several_teachers_stand_in_one_table(tmp_path: Path, here: None) -> None:
    """A column that is there is refused, and replaced in its place with --overwrite."""
    source = write(tmp_path / "in", odd_table())
    labelled(source, tmp_path / "one", "bm25", column="words")
    labelled(tmp_path / "one", tmp_path / "two", "reranker:embedded")
    assert pq.read_table(parts(tmp_path / "two")[0]).column_names[-2:] == ["words", "teacher"]
    with pytest.raises(ConfigError, match="has a column `words` already"):
        labelled(tmp_path / "two", tmp_path / "three", "reranker:embedded", column="words")
    labelled(tmp_path / "two", tmp_path / "three", "reranker:embedded", column="words", overwrite=True)
    table = pq.read_table(parts(tmp_path / "three")[0])
    assert table.column_names[-2:] == ["words", "teacher"]
    assert table.column("words").to_pylist() == table.column("teacher").to_pylist()


def test_overwrite_replaces_another_teachers_output(tmp_path: Path, here: None) -> None:
    source, output = write(tmp_path / "in", odd_table()), tmp_path / "out"
    labelled(source, output, "reranker:embedded")
    labelled(source, output, "bm25", overwrite=True)
    assert_equal(column(output)[0], bm25_of("sort a list", DOCUMENTS))


def test_a_damaged_file_and_too_many_bad_rows_are_told_by_the_exit_code(tmp_path: Path, here: None) -> None:
    source = write(tmp_path / "in", odd_table())

    def exit_code(*arguments: str) -> int:
        return CliRunner().invoke(app, ["label", str(source), *map(str, arguments)]).exit_code

    assert exit_code(str(tmp_path / "a"), "--teacher", "bm25", "--max-errors", "3") == DONE
    assert exit_code(str(tmp_path / "b"), "--teacher", "bm25", "--max-errors", "2") == DONE_WITH_ERRORS
    assert exit_code(str(tmp_path / "c"), "--teacher", "nobody") == USAGE
    (tmp_path / "file").touch()
    assert exit_code(str(tmp_path / "file" / "c"), "--teacher", "bm25") == USAGE
    assert exit_code(str(tmp_path / "c"), "--teacher", "dense:nowhere") == USAGE
    assert exit_code(str(tmp_path / "c"), "--teacher", "bm25", "--query-column", "nothing") == USAGE
    assert exit_code(str(tmp_path / "a"), "--teacher", "bm25", "--column", "other") == REFUSED
    (source / "broken.parquet").write_bytes(b"PAR1 no")
    assert exit_code(str(tmp_path / "d"), "--teacher", "bm25") == DONE_WITH_ERRORS
    assert exit_code(str(tmp_path / "d"), "--teacher", "bm25") == DONE_WITH_ERRORS
    summary = json.loads((tmp_path / "d" / "_summary.json").read_text())
    assert summary["rows"] == 7
    assert list(summary["unreadable"]) == [str(source / "broken.parquet")]


def test_relative_paths_are_refused_in_a_submitted_job(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch, bert_directory: Path
) -> None:
    source = write(tmp_path / "in", odd_table())
    monkeypatch.setenv(JOB_ENVIRONMENT, "{}")
    with pytest.raises(ConfigError, match="OUTPUT is 'out'; inside a submitted job it must be absolute"):
        labelled(source, Path("out"), "bm25")
    with pytest.raises(ConfigError, match="must be absolute"):
        labelled(source, tmp_path / "out", "dense:folder")
    labelled(source, tmp_path / "out", "bm25")


def test_object_stores_hold_input_and_output(tmp_path: Path, here: None, s3_bucket: Bucket) -> None:
    write(tmp_path / "in", odd_table(), structs_table())
    source = upload(tmp_path / "in", s3_bucket, "in")
    job = RerankSettings(source, f"{s3_bucket.uri}/out", replicas=(1, 1))
    label(LabelSettings(job, parse_teacher("fusion:bm25,reranker:embedded")), Console(file=io.StringIO()))
    labelled(tmp_path / "in", tmp_path / "out", "fusion:bm25,reranker:embedded")
    assert sorted(name for name in s3_bucket.names() if not name.startswith(("in/", "out/part-"))) == [
        "out/_manifest.json",
        "out/_summary.json",
    ]
    assert column(download(s3_bucket, "out", tmp_path / "there")) == column(tmp_path / "out")


def test_a_file_that_can_be_read_again_is_labelled_by_the_same_command(tmp_path: Path, here: None) -> None:
    """As when somebody had no right to read it; its words were not counted with the others."""
    source = write(tmp_path / "in", odd_table())
    other = write(tmp_path / "other", pa.table({"query": ["child list"], "documents": [["a list of children"]]}))
    content = next(other.iterdir()).read_bytes()
    late = source / "late.parquet"
    late.write_bytes(b"PAR1" + bytes(len(content) - 8) + b"PAR1")
    os.utime(late, ns=(0, 0))
    before = labelled(source, tmp_path / "out", "bm25")
    assert list(before["unreadable"]) == [str(late)]
    late.write_bytes(content)
    os.utime(late, ns=(0, 0))
    after = labelled(source, tmp_path / "out", "bm25")
    assert (after["unreadable"], after["rows"]) == ({}, before["rows"] + 1)
    [score] = column(tmp_path / "out")[-1]
    assert score > 0


def test_a_file_that_could_not_be_read_while_words_were_counted_is_no_longer_named(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_once(piece: Unit, selection: Selection) -> pa.Table:
        monkeypatch.undo()
        raise UnreadableFileError(piece.path, "OSError: no answer")

    source = write(tmp_path / "in", odd_table())
    monkeypatch.setattr(pieces, "read_rows", failing_once)
    summary = labelled(source, tmp_path / "out", "bm25")
    assert (summary["unreadable"], summary["parts"]) == ({}, 1)


def test_lists_under_other_names_are_read(tmp_path: Path, here: None) -> None:
    table = odd_table().rename_columns({"query": "q", "documents": "d"})
    source = write(tmp_path / "in", table)
    labelled(source, tmp_path / "out", "bm25", mapping=ColumnMapping(query="q", documents="d"))
    assert_equal(column(tmp_path / "out")[0], bm25_of("sort a list", DOCUMENTS))


def test_bytes_that_are_not_utf8_cost_their_own_row(tmp_path: Path, here: None) -> None:
    table = pa.table({"query": ["a", "list"], "documents": pa.array([[b"\xff"], [b"a list"]], pa.list_(pa.binary()))})
    summary = labelled(write(tmp_path / "in", table), tmp_path / "out", "bm25")
    assert summary["errors"] == {"invalid_utf8": 1}
    assert column(tmp_path / "out")[0] is None


def test_bm25_finds_the_words_of_languages_without_spaces(tmp_path: Path, here: None) -> None:
    table = pa.table(
        {"query": ["東京の天気"], "documents": [["今日の東京は晴れ。", "明日の大阪の天気", "パンを食べる"]]}
    )
    labelled(write(tmp_path / "in", table), tmp_path / "out", "bm25")
    [[tokyo, osaka, bread]] = column(tmp_path / "out")
    assert osaka > tokyo > bread == 0  # two pairs of letters, one pair, none


def test_without_a_stemmer_the_way_out_is_named(tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", odd_table())
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(ConfigError, match=r"^BM25 needs .*: pip install bm25s PyStemmer \("):
        labelled(source, tmp_path / "out", "fusion:bm25,reranker:embedded")


def test_scores_over_other_words_are_not_mixed(tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A labelling by BM25 that was begun with another analyzer is refused; other teachers do not care."""
    source = write(tmp_path / "in", odd_table())
    labelled(source, tmp_path / "words", "bm25")
    labelled(source, tmp_path / "no words", "reranker:embedded")
    monkeypatch.setattr(jobs.training.label.run, "ANALYZER", "letters-2")
    with pytest.raises(RefusedError, match=r"words was 'stems-and-bigrams-2', is 'letters-2'"):
        labelled(source, tmp_path / "words", "bm25")
    labelled(source, tmp_path / "no words", "reranker:embedded")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bm26", "give reranker:MODEL"),
        ("dense:", "give reranker:MODEL"),
        ("fusion:bm25", "two or more"),
        ("fusion:bm25,fusion:bm25,bm25", "two or more|no other fusion"),
        ("fusion:bm25,bm25", "comes once"),
    ],
)
def test_no_teacher(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_teacher(text)


def test_a_teacher_is_what_it_is_called() -> None:
    teacher = parse_teacher("fusion:bm25,dense:/a/b,reranker:BAAI/bge-reranker-v2-m3")
    assert str(teacher) == "fusion:bm25,dense:/a/b,reranker:BAAI/bge-reranker-v2-m3"
    assert teacher.members[1] == Teacher(Kind.DENSE, "/a/b")


def test_a_fusion_by_hand() -> None:
    """(1, 3) is (-1, 1) in z-scores, equal scores are zeros, and a null document has no score."""
    one, other = np.array([1.0, np.nan, 3.0]), np.array([5.0, np.nan, 5.0])
    assert np.array_equal(fused([one, other]), [-1.0, np.nan, 1.0], equal_nan=True)
