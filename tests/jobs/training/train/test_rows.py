"""Rows become training rows; a bad one is named by its reason and costs no other."""

from __future__ import annotations

import io
import math
import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer

import jobs.training.train.data
from jobs.storage import find_input
from jobs.training.bad_rows import BadRow
from jobs.training.train.config import Columns, Source, TrainConfig
from jobs.training.train.data import prepared
from jobs.training.train.paths import RunFiles
from jobs.training.train.planning import SourceFile, file_of, first_difference, source_files, stretches
from jobs.training.train.rows import TrainingLayout, TrainingRow, layout_of, training_rows
from jobs.training.train.shards import (
    ShardReport,
    ShardSettings,
    prepare,
    read_shard,
    share_of,
    with_random_negatives,
    without_false_negatives,
)
from pipelines.training.base import load_base
from tests.jobs.stubs import run_stage_here

UNKNOWN = pytest.approx(math.nan, nan_ok=True)


def read(table: pa.Table) -> dict[int, TrainingRow | BadRow]:
    return dict(training_rows(table, Columns()))


def reasons(table: pa.Table) -> dict[int, str]:
    return {row: one.reason for row, one in read(table).items() if isinstance(one, BadRow)}


def test_lists_with_grades_and_teacher_scores() -> None:
    table = pa.table(
        {
            "query": ["q", "q", "q"],
            "documents": [["a", "b"], ["c", None, "d"], ["e", "f"]],
            "labels": pa.array([[2, 0], [1, 0, None], None], pa.list_(pa.int8())),
            "teacher": [None, None, [0.5, -1.5]],
        }
    )
    rows = read(table)
    assert rows[0] == TrainingRow("q", ["a", "b"], [2.0, 0.0], [UNKNOWN] * 2)
    assert rows[1] == TrainingRow("q", ["c", "d"], [1.0, UNKNOWN], [UNKNOWN] * 2)
    assert rows[2] == TrainingRow("q", ["e", "f"], [UNKNOWN] * 2, [0.5, -1.5])


def test_bad_lists_are_named() -> None:
    table = pa.table(
        {
            "query": [None, " ", "q", "q", "q", "q", "q"],
            "documents": [["a"], ["a"], None, [], ["a", "b"], ["a", "b"], ["a", "b"]],
            "labels": [[1.0], [1.0], [1.0], [], [1.0], [1.0, math.inf], [0.0, None]],
        }
    )
    assert reasons(table) == {
        0: "null_query",
        1: "blank_query",
        2: "null_documents",
        3: "null_documents",
        4: "labels_do_not_match",
        5: "label_is_no_number",
        6: "nothing_to_learn",
    }


def test_positives_with_negatives_of_any_kind() -> None:
    table = pa.table(
        {
            "query": pa.array(["q", "q", None, "q"], pa.large_string()),
            "positive": pa.array(["a", "b", "c", ""]).dictionary_encode(),
            "negatives": [["x", "", None, "a", "x"], None, ["y"], ["z"]],
            "negative": [None, "w", None, None],
            "group": pa.array([1, None, 2, 3]),
        }
    )
    rows = read(table)
    assert rows[0] == TrainingRow("q", ["a", "x"], [1.0, 0.0], [UNKNOWN] * 2, "1")
    assert rows[1] == TrainingRow("q", ["b", "w"], [1.0, 0.0], [UNKNOWN] * 2)
    assert reasons(table) == {2: "null_query", 3: "no_positive"}


def test_graded_pairs_of_a_query_are_one_list() -> None:
    table = pa.table(
        {
            "query": ["q", "q", "r", "q", "q", "q"],
            "document": ["a", "b", "c", None, "d", "e"],
            "label": ["1", "0.5", "0.25", "1", "x", "2"],
        }
    )
    rows = read(table)
    assert rows[0] == TrainingRow("q", ["a", "b"], [1.0, 0.5], [UNKNOWN] * 2)
    assert rows[2] == TrainingRow("r", ["c"], [0.25], [UNKNOWN])
    assert rows[5] == TrainingRow("q", ["e"], [2.0], [UNKNOWN])
    assert reasons(table) == {3: "null_document", 4: "label_is_no_number"}


def test_numbers_that_cannot_be_kept_and_pairs_that_teach_nothing_are_named() -> None:
    lists = pa.table({"query": ["q", "q"], "documents": [["a", "b"]] * 2, "teacher": [[7e4, 0.0], [6e4, 0.0]]})
    assert reasons(lists) == {0: "label_is_no_number"}
    pairs = pa.table({"query": ["q", "q", "r"], "document": ["a", "b", "c"], "label": [0.0, 0.0, 1.0]})
    assert reasons(pairs) == {0: "nothing_to_learn", 1: "nothing_to_learn"}


def test_a_list_of_one_document_that_a_teacher_scored_is_named() -> None:
    """It gets no passages of other rows; one that has a label alone does."""
    table = pa.table(
        {
            "query": ["q"] * 4,
            "documents": [["a"], ["a", None], ["a"], ["a", "b"]],
            "labels": [[1.0], None, [1.0], None],
            "teacher": [[1.5], [1.5, None], [None], [1.5, 0.5]],
        }
    )
    assert reasons(table) == {0: "nothing_to_learn", 1: "nothing_to_learn"}
    assert read(table)[0] == BadRow("nothing_to_learn", "documents has one document, and no other to compare it with")


def test_decimals_are_numbers_and_a_column_of_nulls_says_nothing() -> None:
    labels = pa.array([[Decimal("1.00"), Decimal("0.00")]])
    table = pa.table({"query": ["q"], "documents": [["a", "b"]], "labels": labels, "teacher": pa.nulls(1)})
    assert read(table)[0] == TrainingRow("q", ["a", "b"], [1.0, 0.0], [UNKNOWN] * 2)


def test_labels_below_0_count_as_0_and_teacher_scores_below_0_stay() -> None:
    lists = pa.table(
        {"query": ["q"], "documents": [["a", "b", "c"]], "labels": [[1, -1, None]], "teacher": [[0.5, -2.5, None]]}
    )
    assert read(lists)[0] == TrainingRow("q", ["a", "b", "c"], [1.0, 0.0, UNKNOWN], [0.5, -2.5, UNKNOWN])
    pairs = pa.table({"query": ["q", "q"], "document": ["a", "b"], "label": ["1", "-1"]})
    assert read(pairs)[0] == TrainingRow("q", ["a", "b"], [1.0, 0.0], [UNKNOWN] * 2)


def test_invalid_utf8_is_that_rows_fault() -> None:
    raw = pa.array([b"q", b"\xff"], pa.binary()).view(pa.binary())
    table = pa.table({"query": raw, "positive": ["a", "b"]})
    assert reasons(table) == {1: "invalid_utf8"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "there is no column 'query'"),
        ({"query": ["a"]}, "there is no column 'documents', no 'positive'"),
        ({"query": [1.5], "positive": ["a"]}, "column 'query' is double, not texts"),
        ({"query": ["a"], "documents": [["b"]]}, "neither 'labels' nor 'teacher'"),
        ({"query": ["a"], "documents": ["b"], "labels": [[1]]}, "column 'documents' is string, not lists"),
        ({"query": ["a"], "documents": [["b"]], "labels": [1]}, "column 'labels' is int64, not lists"),
        ({"query": ["a"], "positive": ["b"], "negatives": ["c"]}, "column 'negatives' is string, not lists"),
        (
            {"query": ["a"], "positive": ["b"], "negatives": [[{"body": "c"}]]},
            "column 'negatives' is list.*, not lists of texts or of structs with a text in 'text'",
        ),
        ({"query": ["a"], "documents": [[{"body": "c"}]], "labels": [[1]]}, "column 'documents' is list.*, not lists"),
        ({"query": ["a"], "documents": [[{"text": {"x": "c"}}]], "labels": [[1]]}, "column 'documents' is list"),
    ],
)
def test_tables_that_cannot_be_read_say_why(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout_of(pa.table(columns).schema, Columns())


@pytest.mark.parametrize("name", ["query", "positive", "negatives"])
def test_a_column_that_occurs_twice_cannot_be_read(name: str) -> None:
    fields = [(column, pa.string()) for column in ("query", "positive", name)]
    with pytest.raises(ValueError, match=f"column '{name}' occurs more than once"):
        layout_of(pa.schema(fields if name != "negatives" else [*fields, fields[-1]]), Columns())


def test_texts_of_structs_and_groups_of_lists_are_read() -> None:
    """A list of `crossray mine` says which page its positive was taken from."""
    columns, structs = Columns(text_field="body"), [[{"body": "c"}, {"body": "d"}]]
    table = pa.table({"query": ["q"], "positive": ["a"], "negatives": structs})
    assert dict(training_rows(table, columns))[0] == TrainingRow("q", ["a", "c", "d"], [1.0, 0.0, 0.0], [UNKNOWN] * 3)
    table = pa.table({"query": ["q"], "documents": structs, "labels": [[1, 0]], "group": ["page"]})
    assert dict(training_rows(table, columns))[0] == TrainingRow("q", ["c", "d"], [1.0, 0.0], [UNKNOWN] * 2, "page")


def test_columns_have_the_names_that_the_source_says() -> None:
    table = pa.table({"question": ["q"], "answer": ["a"]})
    columns = Columns(query="question", positive="answer")
    assert layout_of(table.schema, columns) is TrainingLayout.POSITIVES
    assert dict(training_rows(table, columns)) == {0: TrainingRow("q", ["a"], [1.0], [UNKNOWN])}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            Columns(negatives="hards"),
            "there is no column 'hards' for negatives; the table has query, positive, hard, page",
        ),
        (Columns(group="pageid"), "there is no column 'pageid' for group"),
        (Columns(labels="click"), "there is no column 'click' for labels"),
    ],
)
def test_a_column_that_was_given_a_name_is_there(columns: Columns, message: str) -> None:
    """Also one that a table may lack: a misspelt name must not train without its negatives."""
    table = pa.table({"query": ["q"], "positive": ["a"], "hard": [["n"]], "page": ["x"]})
    assert layout_of(table.schema, Columns(negatives="hard", group="page")) is TrainingLayout.POSITIVES
    with pytest.raises(ValueError, match=message):
        layout_of(table.schema, columns)


def test_random_negatives_are_never_right_answers_nor_of_the_same_page() -> None:
    nan = math.nan
    rows = [
        TrainingRow("q", ["a"], [1.0], [nan], "page"),
        TrainingRow("q", ["b"], [1.0], [nan]),
        TrainingRow("r", ["c", "d"], [1.0, 0.0], [nan] * 2, "page"),
        TrainingRow("s", ["e"], [nan], [0.5]),
        TrainingRow("t", ["f"], [1.0], [nan]),
    ]
    filled = list(with_random_negatives(rows, 3, random.Random(0)))
    assert set(filled[0].passages[1:]) == {"e", "f"}
    assert set(filled[1].passages[1:]) <= {"c", "d", "e", "f"}
    assert len(filled[1].passages) == 4
    assert filled[3] == rows[3]
    assert filled[4].labels == [1.0, 0.0, 0.0, 0.0]


def test_a_passage_of_several_groups_is_no_random_negative_in_any_of_them() -> None:
    nan = math.nan
    rows = [
        TrainingRow("q", ["a"], [1.0], [nan], "one page"),
        TrainingRow("r", ["b"], [1.0], [nan], "one page"),
        TrainingRow("s", ["c", "b"], [1.0, 0.0], [nan] * 2, "another"),
    ]
    assert next(with_random_negatives(rows, 3, random.Random(0))).passages == ["a", "c"]


def test_a_negative_that_is_right_in_another_row_of_its_query_is_left_out() -> None:
    table = pa.table({"query": ["q", "q", "r"], "positive": ["a", "b", "c"], "negatives": [["b", "n"], ["n"], ["b"]]})
    rows = [row for row in read(table).values() if isinstance(row, TrainingRow)]
    assert [row.passages for row in without_false_negatives(rows)] == [["a", "n"], ["b", "n"], ["c", "b"]]


@pytest.mark.parametrize("held_back", [True, False])
def test_judged_lists_that_are_held_back_whole_keep_to_their_own_candidates(
    held_back: bool, tmp_path: Path, bert_directory: Path
) -> None:
    """Others are trained on, so they are filled up."""
    table = pa.table(
        {
            "query": [f"question {i}" for i in range(20)],
            "documents": [[f"right {i}", f"wrong {i}"] for i in range(20)],
            "labels": [[1, 0]] * 20,
        }
    )
    pq.write_table(table, tmp_path / "judged.parquet")
    source = Source(str(tmp_path / "judged.parquet"), random_negatives=3, held_back=held_back)
    files, output = stretch_all(tmp_path, source)
    settings = ShardSettings((source,), (bert_directory / "tokenizer.json").read_text(), 32, 0.2, seed=0)
    [report] = [prepare(one, settings) for one in stretches(files, [source], output)]
    assert report.passages == (40 if held_back else 80)


def test_a_report_names_the_highest_label_that_is_trained_on(tmp_path: Path, bert_directory: Path) -> None:
    """Null labels are none; a source that is held back whole may have any grades."""
    table = pa.table({"query": ["q", "r"], "documents": [["a", "b"]] * 2, "labels": [[3, None], [1, 0]]})
    pq.write_table(table, tmp_path / "graded.parquet")
    tokenizer = (bert_directory / "tokenizer.json").read_text()
    for held_back, highest in ((False, 3.0), (True, 0.0)):
        source = Source(str(tmp_path / "graded.parquet"), held_back=held_back)
        files, output = stretch_all(tmp_path, source)
        [stretch] = stretches(files, [source], output)
        assert prepare(stretch, ShardSettings((source,), tokenizer, 32, 1e-9, seed=0)).highest_label == highest


def stretch_all(tmp_path: Path, source: Source, stretch_rows: int = 1000) -> tuple[list[SourceFile], RunFiles]:
    output = RunFiles(str(tmp_path / "out"))
    (tmp_path / "out" / "lists").mkdir(parents=True, exist_ok=True)
    return [replace(file_of(0, file), stretch_rows=stretch_rows) for file in find_input(source.path)], output


def test_shards_hold_what_the_rows_say(tmp_path: Path, bert_directory: Path) -> None:
    table = pa.table({"query": [f"question {i}" for i in range(100)], "positive": [f"answer {i}" for i in range(100)]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=30)
    source = Source(str(tmp_path / "rows.parquet"), lists=50, random_negatives=2)
    files, output = stretch_all(tmp_path, source)
    found = stretches(files, [source], output)
    assert sum(stretch.take for stretch in found) == 50
    tokenizer = (bert_directory / "tokenizer.json").read_text()
    reports = [prepare(one, ShardSettings((source,), tokenizer, 32, 0.2, seed=0)) for one in found]
    lists = [read_shard(stretch.shard) for stretch in found]
    assert sum(len(one) for one in lists) == sum(report.lists for report in reports) == 50
    assert 0 < sum(report.held_back for report in reports) < 25
    plain = Tokenizer.from_str(tokenizer)
    texts = {tuple(plain.encode(text, add_special_tokens=False).ids) for text in table["query"].to_pylist()}
    first = lists[0]
    assert {tuple(first.text(int(number)).tolist()) for number in first.queries} <= texts
    assert first.labels.reshape(-1, 3)[:, 0].tolist() == [1.0] * len(first)


@pytest.mark.parametrize(("held_back", "expected"), [((False, True), (0, 60)), ((False, False), (18, 18))])
def test_a_source_that_is_held_back_is_all_that_is_measured_on(
    held_back: tuple[bool, bool], expected: tuple[int, int], tmp_path: Path, bert_directory: Path
) -> None:
    """Without such a one, the same queries are held back in both."""
    rows = {"query": [f"question {i}" for i in range(60)], "positive": [f"answer {i}" for i in range(60)]}
    sources = []
    for name, is_held in zip(("clicks", "judged"), held_back, strict=True):
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
        sources.append(Source(str(tmp_path / f"{name}.parquet"), held_back=is_held))
    files = [file_of(i, file) for i, one in enumerate(sources) for file in find_input(one.path)]
    output = RunFiles(str(tmp_path / "out"))
    (tmp_path / "out" / "lists").mkdir(parents=True)
    settings = ShardSettings(tuple(sources), (bert_directory / "tokenizer.json").read_text(), 32, 0.2, seed=0)
    reports = [prepare(one, settings) for one in stretches(files, sources, output)]
    assert tuple(report.held_back for report in reports) == expected
    assert [report.lists for report in reports] == [60, 60]


def test_a_query_that_is_measured_on_is_not_trained_on(
    tmp_path: Path, bert_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a source that is held back whole; the source that comes before it in the config has 40 of its queries."""
    monkeypatch.setattr(jobs.training.train.data, "run_stage", run_stage_here)
    clicks = pa.table({"query": [f"question {i}" for i in range(60)], "positive": [f"answer {i}" for i in range(60)]})
    pq.write_table(clicks, tmp_path / "clicks.parquet")
    judged = pa.table({"query": [f"question {i}" for i in range(20, 70)], "positive": ["zebra"] * 50})
    pq.write_table(judged, tmp_path / "judged.parquet")
    sources = tuple(
        Source(str(tmp_path / f"{name}.parquet"), name, held_back=name == "judged") for name in ("clicks", "judged")
    )
    config = TrainConfig(str(bert_directory), str(tmp_path / "out"), sources=sources)
    said, base = io.StringIO(), load_base(str(bert_directory))
    reports, shards = prepared(
        config, base, source_files(sources, Console(file=said)), RunFiles(config.output), Console(file=said)
    )
    assert [(report.lists, report.left_out, report.held_back) for report in reports] == [(20, 40, 0), (50, 0, 50)]
    assert "40 row(s) are left out, whose query a source has that is held back" in " ".join(said.getvalue().split())
    trained, measured = ({tuple(one.query) for one in read_shard(shard)} for shard in shards)
    assert (len(trained), len(measured), trained & measured) == (20, 50, set())


def test_large_row_groups_are_cut_and_every_row_is_taken_once(tmp_path: Path) -> None:
    for name, rows, group in (("a", 100, 100), ("b", 55, 10)):
        table = pa.table({"query": [f"{name}{i}" for i in range(rows)], "positive": ["p"] * rows})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=group)
    source = Source(str(tmp_path))
    files, output = stretch_all(tmp_path, source, stretch_rows=40)
    found = stretches(files, [source], output)
    assert [(one.first, one.rows, one.skip) for one in found] == [
        *((0, 40, 0), (40, 40, 40), (80, 20, 80)),
        *((0, 40, 0), (40, 15, 0)),
    ]
    assert [one.take for one in found] == [one.rows for one in found]


@pytest.mark.parametrize(("characters", "expected"), [(40, 20_000), (8192, 8192)])
def test_a_stretch_of_wide_rows_has_few(characters: int, expected: int, tmp_path: Path) -> None:
    """64 MiB of them at most, and one at least. (Letters in an order of their own, which no encoding shortens.)"""
    rows = min(100, (1 << 20) // characters + 1)
    table = pa.table(
        {"query": ["q"] * rows, "positive": [random.Random(i).randbytes(characters // 2).hex() for i in range(rows)]}
    )
    pq.write_table(table, tmp_path / "wide.parquet", use_dictionary=False)
    [file] = find_input(str(tmp_path / "wide.parquet"))
    assert file_of(0, file).stretch_rows == pytest.approx(expected, rel=0.02)


def graded_lists(
    folder: Path, tokenizer: str, runs: list[int], rows_per_group: int, stretch_rows: int, lists: int | None = None
) -> tuple[list[tuple[int, float]], list[ShardReport]]:
    """Passages and highest label of the lists that a table of graded pairs gives, cut into stretches, and the reports.

    Query i has `runs[i]` pairs, of which the first is right.
    """
    queries = [f"question {i}" for i, size in enumerate(runs) for _ in range(size)]
    labels = [float(place == 0) for size in runs for place in range(size)]
    table = pa.table({"query": queries, "document": [f"text {i}" for i in range(len(queries))], "label": labels})
    pq.write_table(table, folder / "pairs.parquet", row_group_size=rows_per_group)
    source = Source(str(folder / "pairs.parquet"), random_negatives=0, lists=lists)
    files, output = stretch_all(folder, source, stretch_rows)
    found = stretches(files, [source], output)
    reports = [prepare(one, ShardSettings((source,), tokenizer, 32, 0.2, seed=0)) for one in found]
    made = [one for stretch in found for one in read_shard(stretch.shard)]
    return [(len(one.passages), max(one.labels)) for one in made], reports


@pytest.mark.parametrize(("rows_per_group", "stretch_rows"), [(500, 7), (10, 7), (3, 7), (10, 100), (500, 1)])
def test_graded_pairs_of_a_query_stay_together_wherever_a_file_is_cut(
    rows_per_group: int, stretch_rows: int, tmp_path: Path, bert_directory: Path
) -> None:
    """Also a run that is longer than several stretches, and one that begins where a stretch does."""
    runs = [7, 3, 1, 25, 4, 7, 2, 30]
    tokenizer = (bert_directory / "tokenizer.json").read_text()
    lists, reports = graded_lists(tmp_path, tokenizer, runs, rows_per_group, stretch_rows)
    assert lists == [(size, 1.0) for size in runs]
    assert sum(report.rows for report in reports) == sum(runs)
    assert [report.bad_rows for report in reports if report.bad_rows] == []


def test_graded_pairs_are_drawn_by_whole_queries(tmp_path: Path, bert_directory: Path) -> None:
    tokenizer = (bert_directory / "tokenizer.json").read_text()
    lists, [report] = graded_lists(tmp_path, tokenizer, [10] * 50, 500, 1000, lists=100)
    assert lists == [(10, 1.0)] * 10
    assert (report.rows, report.bad_rows) == (100, {})


def test_a_bad_pair_is_named_by_its_number_in_the_file(tmp_path: Path, bert_directory: Path) -> None:
    """In the second stretch, whose first rows belong to the first one."""
    table = pa.table({"query": ["q"] * 6 + ["r"] * 4, "document": ["d"] * 8 + [None, "d"], "label": [1.0] * 10})
    pq.write_table(table, tmp_path / "pairs.parquet", row_group_size=4)
    source = Source(str(tmp_path / "pairs.parquet"))
    files, output = stretch_all(tmp_path, source, stretch_rows=4)
    settings = ShardSettings((source,), (bert_directory / "tokenizer.json").read_text(), 32, 0.2, seed=0)
    reports = [prepare(one, settings) for one in stretches(files, [source], output)]
    assert [report.rows for report in reports] == [6, 4, 0]
    assert reports[1].examples == ["row 8: null_document: document is null"]


def test_a_damaged_file_is_a_report(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    [file] = find_input(str(tmp_path / "bad.parquet"))
    assert file_of(0, file).unreadable is not None


def test_a_text_is_read_as_far_as_a_pair_may_be_long(tmp_path: Path, bert_directory: Path) -> None:
    table = pa.table({"query": ["q"], "positive": ["zebra " * 5000]})
    pq.write_table(table, tmp_path / "long.parquet")
    source = Source(str(tmp_path / "long.parquet"))
    files, output = stretch_all(tmp_path, source)
    [stretch] = stretches(files, [source], output)
    prepare(stretch, ShardSettings((source,), (bert_directory / "tokenizer.json").read_text(), 4000, 0.2, seed=0))
    [one] = read_shard(stretch.shard)
    assert len(one.passages[0]) == 4000


def test_equal_queries_are_held_back_together() -> None:
    shares = [share_of(f"query {i}", seed=0) for i in range(2000)]
    assert abs(sum(share < 0.1 for share in shares) / 2000 - 0.1) < 0.03
    assert share_of("query 1", seed=0) == shares[1] != share_of("query 1", seed=1)


def test_the_first_difference_is_named() -> None:
    before = {"asked": {"recipe": {"steps": 5, "max_lengths": (16,)}, "seed": 0}}
    now = {"asked": {"recipe": {"steps": 6, "max_lengths": [16]}, "seed": 0}}
    assert first_difference(before, now) == ("recipe.steps", 5, 6)
    assert first_difference(before, before) is None
