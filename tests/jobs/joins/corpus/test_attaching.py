"""The texts of documents that are ids, beside the rows they belong to."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from jobs.joins.corpus.attaching import TextsById
from jobs.joins.corpus.broadcast import BroadcastTexts
from jobs.records import Unit
from jobs.table.columns import ATTACHED, ATTACHED_TYPE, ColumnMapping, Layout
from jobs.table.parsing import parse_lists, parse_pairs
from tests.jobs.joins.corpus.test_lookup import segment

BY_ID = ColumnMapping(by_id=True)
CORPUS = BroadcastTexts([segment("a", [("1", "one"), ("2", "two")]), segment("b", [("3", "three"), ("4", None)])])
UNIT = Unit("x.parquet", 0, 3)
LISTS = pa.list_(pa.string())


def attached(table: pa.Table, layout: Layout = Layout.LISTS, mapping: ColumnMapping = BY_ID) -> pa.Table:
    return TextsById(mapping, 100.0, layout, CORPUS).attach(table, UNIT)


def lists(documents: pa.Array | pa.ChunkedArray) -> pa.Table:
    return pa.table({"query": [f"q{i}" for i in range(len(documents))], "documents": documents})


STRUCTS = [[{"id": one} for one in row or []] if row is not None else None for row in [["3", "1"], [], None]]


@pytest.mark.parametrize(
    "documents",
    [
        pa.array([["3", "1"], [], None]),
        pa.array([["3", "1"], [], None], pa.large_list(pa.large_string())),
        pa.array([["3", "1"], [], None], pa.list_view(pa.string_view())),
        pa.array([[3, 1], [], None], pa.list_(pa.int32())),
        pa.array([[b"3", b"1"], [], None]),
        pa.array([["3", "1"], [], None], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        pa.array(STRUCTS),
        pa.array(STRUCTS, pa.list_(pa.struct({"score": pa.float64(), "id": pa.dictionary(pa.int8(), pa.string())}))),
        pa.chunked_array([pa.array([["3", "1"]]), pa.array([[]], LISTS), pa.array([None], LISTS)]),
        pa.array([["no", "such"], ["3", "1"], [], None])[1:],
    ],
    ids=lambda documents: str(documents.type)[:40],
)
def test_ids_of_any_type_get_their_texts(documents: pa.Array) -> None:
    table = attached(lists(documents))
    assert table.schema.field(ATTACHED).type == ATTACHED_TYPE
    rows = parse_lists(table, BY_ID)
    assert rows[0].candidates is not None
    assert rows[0].candidates.documents == ["three", "one"]
    assert rows[0].ids == ["3", "1"]
    assert rows[1].candidates is not None
    assert rows[1].candidates.documents == []
    assert rows[2].error == "null_documents: documents is null"


def test_an_id_without_text_is_the_error_of_its_row_alone_the_first_one_counts() -> None:
    table = lists(pa.array([["1"], [None, "x", "y"], ["4"], ["2", None], ["2"]]))
    unknown = "unknown_document: documents[1] is 'x', which is not in the corpus"
    rows = parse_lists(attached(table), BY_ID)
    assert [row.error for row in rows] == [None, unknown, None, None, None]
    assert [row.null_documents for row in rows] == [(), (), (0,), (1,), ()]
    strict = replace(BY_ID, strict_documents=True)
    assert [row.error for row in parse_lists(attached(table, mapping=strict), strict)] == [
        None,
        "null_document: documents[0] is null",
        "null_document: documents[0] is '4', whose text in the corpus is null",
        "null_document: documents[1] is null",
        None,
    ]


def test_pairs_get_the_text_of_their_document_id() -> None:
    table = pa.table({"query": ["q", "q", None, "q"], "document_id": [2, 7, 1, None]})
    rows = parse_pairs(attached(table, Layout.PAIRS), BY_ID)
    assert rows[0].candidates is not None
    assert rows[0].candidates.documents == ["two"]
    assert [row.error for row in rows[1:]] == [
        "unknown_document: document_id is '7', which is not in the corpus",
        "null_query: query is null",
        "null_document: document_id is null",
    ]


def test_a_text_that_is_no_utf8_is_the_error_of_rows_that_use_it() -> None:
    broken = segment("a", [("1", "one"), ("2", "two")])
    object.__setattr__(broken, "texts", pa.array([b"\xff"] * 2, pa.large_binary()))
    table = TextsById(BY_ID, 1.0, Layout.LISTS, BroadcastTexts([broken])).attach(lists(pa.array([["2"]])), UNIT)
    assert parse_lists(table, BY_ID)[0].error == "invalid_utf8: documents[0] is not valid UTF-8 at byte 0"


def test_rows_of_a_file_without_ids_have_that_as_their_error() -> None:
    table = attached(pa.table({"query": ["q"], "documents": [[{"key": "1"}]]}))
    error = parse_lists(table, BY_ID)[0].error
    assert error is not None
    assert error.startswith("missing_column: field `id` of `documents` is missing; there are `key`")


def test_a_row_counts_with_its_texts_when_units_are_cut() -> None:
    texts = TextsById(BY_ID, 100.0)
    two_lists = lists(pa.array([["1", "2"], ["3"]])).to_batches()[0]
    assert texts.expected_bytes(two_lists) == 300.0
    assert texts.expected_bytes(two_lists.select(["query"])) == 200.0
