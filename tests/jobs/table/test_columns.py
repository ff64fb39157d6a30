"""The schemas of a job: which files it reads, what becomes of every row, what comes out beside it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.table.answers import append_rankings, append_scores
from jobs.table.columns import (
    FLAG_OF_COLUMN,
    RANKING_TYPE,
    ColumnMapping,
    Layout,
    check_dropped_columns,
    check_output_names,
)
from jobs.table.faults import detect_layout, why_unusable
from jobs.table.parsing import ParsedRow, parse_lists, parse_pairs
from jobs.table.reasons import Reason, reason_of
from pipelines.errors import ConfigError
from pipelines.records import CandidateList, RankedDocument, Ranking, Usage

DEFAULT = ColumnMapping()
STRICT = ColumnMapping(strict_documents=True)
DOCUMENT_STRUCT = pa.struct({"id": pa.string(), "text": pa.string(), "score": pa.float64()})
LISTS_SCHEMA = pa.schema({"query_id": pa.string(), "query": pa.string(), "documents": pa.list_(pa.string())})
PAIRS_SCHEMA = pa.schema({"query": pa.string(), "document_id": pa.int64(), "document": pa.string()})

TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int16(), pa.large_string()),
]
READ_UNCHECKED = TEXT_TYPES[:-1]
"""pyarrow's Parquet reader refuses a file with invalid UTF-8 in a dictionary whose indices are not int32."""
LIST_TYPES: list[Callable[[pa.DataType], pa.DataType]] = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view]


def lists_table(queries: list[Any], documents: Any, documents_type: pa.DataType | None = None) -> pa.Table:
    documents = documents if isinstance(documents, pa.Array) else pa.array(documents, documents_type)
    return pa.table({"query": queries, "documents": documents})


def unchecked_strings(values: list[bytes | None]) -> pa.Array:
    """A string column with these bytes, valid UTF-8 or not, as other writers leave them in files."""
    return pa.array(values, pa.binary()).cast(pa.string(), safe=False)


def errors_of(rows: list[ParsedRow]) -> list[str | None]:
    return [row.error for row in rows]


def documents_of(row: ParsedRow) -> list[str]:
    assert row.candidates is not None
    return list(row.candidates.documents)


def ranked_backwards(candidates: CandidateList | None) -> Ranking | None:
    """Stands for the reranker: the last document is the best."""
    if candidates is None:
        return None
    documents = [RankedDocument(index, index / 8, text) for index, text in enumerate(candidates.documents)]
    return Ranking(documents[::-1], Usage())


def reranked(table: pa.Table, mapping: ColumnMapping = DEFAULT) -> pa.Table:
    rows = parse_lists(table, mapping)
    return append_rankings(table, rows, [ranked_backwards(row.candidates) for row in rows], mapping)


def rescored(table: pa.Table, mapping: ColumnMapping = DEFAULT) -> pa.Table:
    rows = parse_pairs(table, mapping)
    return append_scores(table, rows, [ranked_backwards(row.candidates) for row in rows], mapping)


def written_and_read(table: pa.Table, folder: Path) -> pa.Table:
    pq.write_table(table, folder / "part.parquet")
    return pq.read_table(folder / "part.parquet")


# Layout


@pytest.mark.parametrize(("schema", "layout"), [(LISTS_SCHEMA, Layout.LISTS), (PAIRS_SCHEMA, Layout.PAIRS)])
def test_layout_follows_from_the_columns(schema: pa.Schema, layout: Layout) -> None:
    assert detect_layout(schema, DEFAULT) == layout


def test_a_schema_with_both_layouts_is_lists_unless_asked_otherwise() -> None:
    both = LISTS_SCHEMA.append(pa.field("document", pa.string()))
    assert detect_layout(both, DEFAULT) == Layout.LISTS
    assert detect_layout(both, DEFAULT, Layout.PAIRS) == Layout.PAIRS


def test_documents_of_an_unusable_type_leave_a_usable_document_column_to_decide() -> None:
    schema = PAIRS_SCHEMA.append(pa.field("documents", pa.int64()))
    assert detect_layout(schema, DEFAULT) == Layout.PAIRS


def test_a_column_of_another_name_is_mapped() -> None:
    schema = pa.schema({"q": pa.string(), "passages": pa.list_(pa.struct({"body": pa.string()}))})
    assert detect_layout(schema, ColumnMapping(query="q", documents="passages", text_field="body")) == Layout.LISTS


def schema_with(**columns: pa.DataType) -> pa.Schema:
    return pa.schema({"query": pa.string()} | columns)


TEXTS = pa.list_(pa.string())
BODIES = pa.list_(pa.struct({"body": pa.string()}))


@pytest.mark.parametrize(
    ("schema", "wanted", "parts"),
    [
        (pa.schema({"q": pa.string(), "documents": TEXTS}), None, ["`query` is missing", "`q`", "--query-column"]),
        (schema_with(query=pa.float32(), documents=TEXTS), None, ["`query` is float"]),
        (schema_with(passages=TEXTS), None, ["`documents`", "`passages`", "--documents-column", "--layout pairs"]),
        (schema_with(documents=pa.list_(pa.int64())), None, ["`documents` is list<item: int64>", "a list of texts"]),
        (schema_with(documents=pa.string()), None, ["`documents` is string", "--layout pairs"]),
        (schema_with(documents=BODIES), None, ["field `text` of `documents` is missing", "`body`", "--text-field"]),
        (schema_with(document=pa.int8()), None, ["`document` is int8", "has to be text", "--document-column"]),
        (LISTS_SCHEMA, Layout.PAIRS, ["`document` is missing", "`documents`", "--layout lists"]),
        (pa.schema([("query", pa.string()), ("query", pa.string())]), None, ["`query` occurs more than once"]),
        (pa.schema({}), None, ["`query` is missing", "there are none"]),
    ],
)
def test_an_unusable_schema_is_refused_with_the_columns_and_the_way_out(
    schema: pa.Schema, wanted: Layout | None, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as refusal:
        detect_layout(schema, DEFAULT, wanted)
    for part in parts:
        assert part in str(refusal.value)


@pytest.mark.parametrize(
    "mapping", [ColumnMapping(query_id="qid"), ColumnMapping(id_field="docno"), ColumnMapping(document_id="docno")]
)
def test_an_optional_column_must_exist_once_the_caller_names_it(mapping: ColumnMapping) -> None:
    """A misspelt name would else be ignored in silence."""
    if mapping.document_id == "docno":
        schema = PAIRS_SCHEMA
    else:
        schema = pa.schema({"query": pa.string(), "documents": pa.list_(DOCUMENT_STRUCT)})
    assert detect_layout(schema, DEFAULT)
    with pytest.raises(ConfigError, match=r"docno|qid"):
        detect_layout(schema, mapping)


def test_an_id_of_a_type_without_one_text_is_refused() -> None:
    schema = pa.schema(
        {"query": pa.string(), "documents": pa.list_(pa.struct({"text": pa.string(), "id": pa.date32()}))}
    )
    with pytest.raises(
        ConfigError, match=r"`id` is date32\[day\], but it has to be text, integer, .*; name another with --id-field"
    ):
        detect_layout(schema, DEFAULT)


def test_why_unusable_says_nothing_of_a_usable_schema() -> None:
    assert why_unusable(LISTS_SCHEMA, DEFAULT, Layout.LISTS) is None


@pytest.mark.parametrize(
    ("documents", "reason"),
    [(pa.array([[1], []]), Reason.UNUSABLE_TYPE), (None, Reason.MISSING_COLUMN)],
    ids=["wrong type", "missing"],
)
def test_every_row_of_a_file_without_usable_documents_gets_the_error(
    documents: pa.Array | None, reason: Reason
) -> None:
    """Other files of the same job are not affected, so this is no reason to stop."""
    columns = {"query": ["a", "b"]} | ({} if documents is None else {"documents": documents})
    table = pa.table(columns)
    answers = reranked(table)
    expected = why_unusable(table.schema, DEFAULT, Layout.LISTS)
    assert expected is not None
    assert reason_of(expected) == reason
    assert answers["error"].to_pylist() == [expected, expected]
    assert answers["ranking"].to_pylist() == [None, None]


def test_every_row_of_a_file_without_a_document_column_gets_the_error() -> None:
    assert [reason_of(error) for error in errors_of(parse_pairs(pa.table({"query": ["a"]}), DEFAULT)) if error] == [
        Reason.MISSING_COLUMN
    ]


# Names of the output


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("ranking", Layout.LISTS),
        ("error", Layout.LISTS),
        ("relevance_score", Layout.PAIRS),
        ("error", Layout.PAIRS),
    ],
)
def test_an_output_name_that_is_taken_is_refused(name: str, layout: Layout) -> None:
    schema = pa.schema({name: pa.int8()})
    with pytest.raises(ConfigError, match=f"`{name}`.*--output-prefix"):
        check_output_names(schema, DEFAULT, layout)
    check_output_names(schema, ColumnMapping(output_prefix="new_"), layout)
    check_output_names(schema, ColumnMapping(drop=(name,)), layout)


def test_a_column_that_the_other_layout_would_add_may_be_there() -> None:
    check_output_names(pa.schema({"relevance_score": pa.float32()}), DEFAULT, Layout.LISTS)


def test_a_prefix_renames_what_is_added_and_nothing_else() -> None:
    table = lists_table(["q"], [["a"]])
    assert reranked(table, ColumnMapping(output_prefix="new_")).column_names == [
        "query",
        "documents",
        "new_ranking",
        "new_error",
    ]


def test_a_dropped_column_does_not_come_out_and_the_rows_are_still_scored() -> None:
    answers = reranked(lists_table(["q"], [["a"]]), ColumnMapping(drop=("documents",)))
    assert answers.column_names == ["query", "ranking", "error"]
    assert answers["ranking"].to_pylist() == [[{"id": None, "index": 0, "relevance_score": 0.0}]]


def test_dropping_every_column_keeps_the_rows() -> None:
    answers = reranked(lists_table(["q", None], [["a"], ["b"]]), ColumnMapping(drop=("query", "documents")))
    assert answers.column_names == ["ranking", "error"]
    assert answers.num_rows == 2


def test_a_column_to_drop_must_be_in_some_file() -> None:
    check_dropped_columns([LISTS_SCHEMA, PAIRS_SCHEMA], ColumnMapping(drop=("document_id",)))
    with pytest.raises(ConfigError, match=r"--drop is 'documint'.*`document`"):
        check_dropped_columns([LISTS_SCHEMA, PAIRS_SCHEMA], ColumnMapping(drop=("documint",)))


def test_every_field_of_the_mapping_has_a_flag() -> None:
    assert list(FLAG_OF_COLUMN) == [field.name for field in dataclasses.fields(ColumnMapping)]


# List rows


@pytest.mark.parametrize(
    ("query", "documents", "error"),
    [
        (None, ["a"], "null_query: query is null"),
        ("", ["a"], "blank_query: query has nothing but white space"),
        (" \t\n\u3000", ["a"], "blank_query: query has nothing but white space"),
        ("q", None, "null_documents: documents is null"),
        (None, None, "null_query: query is null"),
    ],
)
def test_a_list_row_that_cannot_be_scored_says_why(query: str | None, documents: Any, error: str) -> None:
    rows = parse_lists(lists_table([query, "q"], [documents, ["fine"]]), DEFAULT)
    assert rows == [ParsedRow(None, None, error), ParsedRow(CandidateList("q", ["fine"]), None, None)]


@pytest.mark.parametrize("document", [None, {"id": "7", "text": None}], ids=["null struct", "null text"])
def test_a_null_struct_and_a_null_text_come_last_or_are_errors_with_the_index(document: Any) -> None:
    documents = [[document, {"id": "1", "text": "a"}, document, {"id": "2", "text": "b"}]]
    table = lists_table(["q"], documents, pa.list_(DOCUMENT_STRUCT))
    null_id = None if document is None else "7"
    ranking = [
        {"id": "2", "index": 3, "relevance_score": 0.125},
        {"id": "1", "index": 1, "relevance_score": 0.0},
        {"id": null_id, "index": 0, "relevance_score": None},
        {"id": null_id, "index": 2, "relevance_score": None},
    ]
    assert reranked(table)["ranking"].to_pylist() == [ranking]
    assert errors_of(parse_lists(table, STRICT)) == ["null_document: documents[0] is null"]


@pytest.mark.parametrize(("top_n", "indexes"), [(1, [2]), (2, [2, 0]), (3, [2, 0, 1]), (9, [2, 0, 1])])
def test_null_documents_fill_up_what_is_kept_of_a_ranking(top_n: int, indexes: list[int]) -> None:
    table = lists_table(["q"], [["a", None, "b"]])
    rows = parse_lists(table, DEFAULT)
    ranking = ranked_backwards(rows[0].candidates)
    assert ranking is not None
    cut = dataclasses.replace(ranking, documents=ranking.documents[:top_n])
    [answer] = append_rankings(table, rows, [cut], DEFAULT, top_n)["ranking"].to_pylist()
    assert [one["index"] for one in answer] == indexes


def test_errors_name_the_callers_columns() -> None:
    table = pa.table({"frage": ["q", None], "texte": [[None], ["a"]]})
    rows = parse_lists(table, ColumnMapping(query="frage", documents="texte", strict_documents=True))
    assert errors_of(rows) == ["null_document: texte[0] is null", "null_query: frage is null"]


def test_no_documents_are_an_empty_ranking_and_no_error() -> None:
    answers = reranked(lists_table(["q"], [[]], pa.list_(pa.string())))
    assert answers["ranking"].to_pylist() == [[]]
    assert answers["error"].to_pylist() == [None]


def test_an_empty_document_is_scored() -> None:
    answers = reranked(lists_table(["q"], [["", "a"]]))
    assert [entry["index"] for entry in answers["ranking"][0].as_py()] == [1, 0]


def test_a_null_query_id_is_kept() -> None:
    answers = reranked(lists_table(["q"], [["a"]]).append_column("query_id", pa.nulls(1, pa.string())))
    assert answers["query_id"].to_pylist() == [None]
    assert answers["error"].to_pylist() == [None]


def test_ids_come_back_with_the_index_in_the_callers_list_best_first() -> None:
    documents = [[{"id": "x", "text": "a"}, {"id": None, "text": "b"}, {"id": "z", "text": "c"}]]
    answers = reranked(lists_table(["q"], documents, pa.list_(DOCUMENT_STRUCT)))
    assert answers["ranking"].to_pylist() == [
        [
            {"id": "z", "index": 2, "relevance_score": 0.25},
            {"id": None, "index": 1, "relevance_score": 0.125},
            {"id": "x", "index": 0, "relevance_score": 0.0},
        ]
    ]


@pytest.mark.parametrize("id_type", [pa.int64(), pa.uint8(), pa.dictionary(pa.int8(), pa.int64())])
def test_integer_ids_become_strings(id_type: pa.DataType) -> None:
    documents = [[{"id": 12, "text": "a"}, {"id": None, "text": "b"}]]
    struct = pa.struct({"text": pa.string(), "id": id_type})
    rows = parse_lists(lists_table(["q"], documents, pa.list_(struct)), DEFAULT)
    assert rows == [ParsedRow(CandidateList("q", ["a", "b"]), ["12", None], None)]


def test_documents_without_ids_have_null_ids() -> None:
    struct = pa.struct({"text": pa.string(), "language": pa.string()})
    table = lists_table(["q"], [[{"text": "a", "language": "en"}]], pa.list_(struct))
    assert parse_lists(table, DEFAULT)[0].ids is None
    assert reranked(table)["ranking"].to_pylist() == [[{"id": None, "index": 0, "relevance_score": 0.0}]]


def test_a_field_name_is_no_path() -> None:
    """pyarrow reads names that begin with a dot as paths into the struct."""
    struct = pa.struct({".text": pa.string(), "a.id": pa.string()})
    table = lists_table(["q"], [[{".text": "a", "a.id": "1"}]], pa.list_(struct))
    rows = parse_lists(table, ColumnMapping(text_field=".text", id_field="a.id"))
    assert rows == [ParsedRow(CandidateList("q", ["a"]), ["1"], None)]


@pytest.mark.parametrize("documents_type", [pa.null(), pa.list_(pa.null())], ids=str)
def test_columns_of_nulls_only_have_no_type_and_are_read(documents_type: pa.DataType) -> None:
    """pandas and Spark write them so."""
    rows = parse_lists(lists_table(["q"], [None], documents_type), DEFAULT)
    assert errors_of(rows) == ["null_documents: documents is null"]
    rows = parse_lists(lists_table(["q", "q"], [[], [None]], pa.list_(pa.null())), DEFAULT)
    assert rows == [ParsedRow(CandidateList("q", []), None, None, nulls) for nulls in ((), (0,))]
    rows = parse_lists(pa.table({"query": pa.nulls(1), "documents": [["a"]]}), DEFAULT)
    assert errors_of(rows) == ["null_query: query is null"]


# Pair rows


@pytest.mark.parametrize(
    ("query", "document", "error"),
    [
        (None, "a", "null_query: query is null"),
        (" ", "a", "blank_query: query has nothing but white space"),
        ("q", None, "null_document: document is null"),
    ],
)
def test_a_pair_row_that_cannot_be_scored_says_why(query: str | None, document: str | None, error: str) -> None:
    table = pa.table({"query": [query, "q"], "document": [document, ""]})
    assert parse_pairs(table, DEFAULT) == [
        ParsedRow(None, None, error),
        ParsedRow(CandidateList("q", [""]), None, None),
    ]
    answers = rescored(table)
    assert answers["relevance_score"].to_pylist() == [None, 0.0]
    assert answers["error"].to_pylist() == [error, None]


def test_pair_rows_come_out_as_they_are_with_a_float32_score() -> None:
    table = pa.table({"query_id": [1, None], "query": ["q", "q"], "document_id": [None, "d"], "document": ["a", "b"]})
    answers = rescored(table)
    assert answers.select(table.column_names).equals(table)
    assert answers.schema.field("relevance_score").type == pa.float32()
    assert answers.schema.field("error").type == pa.string()


# Text that is not UTF-8


def test_invalid_utf8_costs_only_its_own_row_and_says_where() -> None:
    queries = unchecked_strings([b"caf\xc3\xa9", b"caf\xe9", b"fine", b"fine"])
    texts = unchecked_strings([b"a", b"b", b"ok", b"x\xff", b"c"])
    documents = pa.ListArray.from_arrays(pa.array([0, 1, 2, 4, 5], pa.int32()), texts)
    rows = parse_lists(lists_table(queries, documents), DEFAULT)
    assert errors_of(rows) == [
        None,
        "invalid_utf8: query is not valid UTF-8 at byte 3",
        "invalid_utf8: documents[1] is not valid UTF-8 at byte 1",
        None,
    ]
    assert rows[0].candidates == CandidateList("café", ["a"])


def test_invalid_utf8_in_an_id_is_an_error_because_the_ranking_repeats_it() -> None:
    structs = pa.StructArray.from_arrays([unchecked_strings([b"1", b"\xff"]), pa.array(["a", "b"])], ["id", "text"])
    documents = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), structs)
    assert errors_of(parse_lists(lists_table(["q", "q"], documents), DEFAULT)) == [
        None,
        "invalid_utf8: documents[0].id is not valid UTF-8 at byte 0",
    ]


@pytest.mark.parametrize("text_type", READ_UNCHECKED, ids=str)
def test_invalid_utf8_is_found_in_every_text_type(text_type: pa.DataType, tmp_path: Path) -> None:
    document = unchecked_strings([b"\xed\xa0\x80", None, b"fine"]).cast(text_type, safe=False)
    table = written_and_read(pa.table({"query": ["q"] * 3, "document": document}), tmp_path)
    assert table["document"].type == text_type
    assert errors_of(parse_pairs(table, DEFAULT)) == [
        "invalid_utf8: document is not valid UTF-8 at byte 0",
        "null_document: document is null",
        None,
    ]


def test_invalid_utf8_in_a_column_that_rides_along_does_not_matter(tmp_path: Path) -> None:
    table = lists_table(["q"], [["a"]]).append_column("note", unchecked_strings([b"\xff"]))
    answers = written_and_read(reranked(written_and_read(table, tmp_path)), tmp_path)
    assert answers["error"].to_pylist() == [None]
    assert answers["note"].cast(pa.binary()).to_pylist() == [b"\xff"]


# Types and encodings


@pytest.mark.parametrize("list_type", LIST_TYPES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("text_type", TEXT_TYPES, ids=str)
def test_every_string_and_list_type_is_read_from_parquet(
    list_type: Callable[[pa.DataType], pa.DataType], text_type: pa.DataType, tmp_path: Path
) -> None:
    documents = [["ä", "b"], [], None, ["b"]]
    table = pa.table({"query": pa.array(["q"] * 4, text_type), "documents": pa.array(documents, list_type(text_type))})
    table = written_and_read(table, tmp_path)
    assert detect_layout(table.schema, DEFAULT) == Layout.LISTS
    rows = parse_lists(table, DEFAULT)
    assert [row.candidates and row.candidates.documents for row in rows] == documents
    answers = written_and_read(reranked(table), tmp_path)
    assert answers.select(table.column_names).equals(table)


@pytest.mark.parametrize("list_type", LIST_TYPES, ids=lambda make: make.__name__)
def test_lists_of_structs_of_every_list_type_are_read_from_parquet(
    list_type: Callable[[pa.DataType], pa.DataType], tmp_path: Path
) -> None:
    documents = [[{"id": "1", "text": "a", "score": 0.5}], [], None]
    table = written_and_read(lists_table(["q"] * 3, documents, list_type(DOCUMENT_STRUCT)), tmp_path)
    rows = parse_lists(table, DEFAULT)
    assert [row.ids for row in rows] == [["1"], [], None]


def test_lists_of_fixed_size_are_read_from_parquet(tmp_path: Path) -> None:
    documents = [["a", "b"], None, ["c", "d"]]
    table = written_and_read(lists_table(["q"] * 3, documents, pa.list_(pa.string(), 2)), tmp_path)
    assert [row.candidates and row.candidates.documents for row in parse_lists(table, DEFAULT)] == documents


def test_dictionary_encoded_lists_and_structs_are_read() -> None:
    lists = pa.array([[{"id": "1", "text": "a"}], []], pa.list_(DOCUMENT_STRUCT))
    rows = parse_lists(lists_table(["q"] * 3, pa.DictionaryArray.from_arrays(pa.array([0, None, 1]), lists)), DEFAULT)
    assert [row.candidates and row.candidates.documents for row in rows] == [["a"], None, []]
    structs = pa.DictionaryArray.from_arrays(pa.array([0, 0]), lists.flatten())
    rows = parse_lists(
        lists_table(["q"], pa.ListArray.from_arrays(pa.array([0, 2]).cast(pa.int32()), structs)), DEFAULT
    )
    assert rows == [ParsedRow(CandidateList("q", ["a", "a"]), ["1", "1"], None)]


def test_an_extension_type_around_strings_is_read() -> None:
    text = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}']))
    table = pa.table({"query": ["q"], "document": text})
    assert documents_of(parse_pairs(table, DEFAULT)[0]) == ['{"a": 1}']


def test_list_views_may_overlap_and_be_out_of_order() -> None:
    values = pa.array(["a", "b", "c"])
    views = pa.ListViewArray.from_arrays(pa.array([1, 0], pa.int32()), pa.array([2, 2], pa.int32()), values)
    rows = parse_lists(lists_table(["q", "q"], views), DEFAULT)
    assert [documents_of(row) for row in rows] == [["b", "c"], ["a", "b"]]


def test_a_null_list_over_values_does_not_shift_the_others() -> None:
    offsets, values = pa.array([0, 2, 4, 5], pa.int32()), pa.array(["a", "b", "hidden", "hidden", "c"])
    lists = pa.ListArray.from_arrays(offsets, values, mask=pa.array([False, True, False]))
    rows = parse_lists(lists_table(["q"] * 3, lists), DEFAULT)
    assert [row.candidates and row.candidates.documents for row in rows] == [["a", "b"], None, ["c"]]


def test_slices_and_chunks_are_read_from_their_offsets() -> None:
    table = lists_table(list("pqrs"), [["a"], ["b", "c"], None, ["d"]])
    rows = parse_lists(pa.concat_tables([table.slice(1, 2), table.slice(3), table.slice(0, 1)]), DEFAULT)
    assert [row.candidates for row in rows] == [
        CandidateList("q", ["b", "c"]),
        None,
        CandidateList("s", ["d"]),
        CandidateList("p", ["a"]),
    ]


# What comes out


def test_the_answer_columns_have_the_documented_types() -> None:
    answers = reranked(lists_table(["q"], [["a"]]))
    assert answers.schema.field("ranking").type == RANKING_TYPE
    assert str(RANKING_TYPE) == "list<item: struct<id: string, index: int32, relevance_score: float>>"
    assert answers.schema.field("error").type == pa.string()
    assert answers.column_names[-2:] == ["ranking", "error"]
    answers.validate(full=True)


def test_a_table_without_rows_comes_out_with_all_columns() -> None:
    answers = reranked(LISTS_SCHEMA.empty_table())
    assert answers.num_rows == 0
    assert answers.column_names == [*LISTS_SCHEMA.names, "ranking", "error"]
    assert rescored(PAIRS_SCHEMA.empty_table()).column_names == [*PAIRS_SCHEMA.names, "relevance_score", "error"]


def test_columns_of_any_type_and_the_metadata_come_out_unchanged() -> None:
    table = pa.table(
        {
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
            "query": ["q"],
            "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16))),
            "documents": [["a"]],
            "coded": pa.array(["x"]).dictionary_encode(),
            "nested": [{"deep": [[{"time": 1}]]}],
        }
    ).replace_schema_metadata({"writer": "someone"})
    answers = reranked(table)
    assert answers.schema.metadata == {b"writer": b"someone"}
    assert answers.select(table.column_names).equals(table, check_metadata=True)


def test_an_error_of_the_reranker_is_the_rows_error() -> None:
    table = lists_table(["q", "q"], [["a"], ["b"]])
    rows = parse_lists(table, DEFAULT)
    broken = Ranking([], Usage(), "non_finite_score: the model gave nan for documents[0]")
    answers = append_rankings(table, rows, [broken, ranked_backwards(rows[1].candidates)], DEFAULT)
    assert answers["ranking"].to_pylist() == [None, [{"id": None, "index": 0, "relevance_score": 0.0}]]
    assert answers["error"].to_pylist() == ["non_finite_score: the model gave nan for documents[0]", None]


def test_a_row_that_got_no_ranking_says_so() -> None:
    table = pa.table({"query": ["q"], "document": ["a"]})
    answers = append_scores(table, parse_pairs(table, DEFAULT), [None], DEFAULT)
    assert answers["error"].to_pylist() == ["not_ranked: no scores came back"]


def test_rankings_that_do_not_fit_the_rows_are_a_bug_and_raise() -> None:
    table = lists_table(["q"], [["a"]])
    with pytest.raises(ValueError, match="zip"):
        append_rankings(table, parse_lists(table, DEFAULT), [], DEFAULT)


def test_the_ranking_keeps_what_top_n_left() -> None:
    table = lists_table(["q"], [["a", "b", "c"]])
    best = Ranking([RankedDocument(2, 0.5, "c")], Usage())
    answers = append_rankings(table, parse_lists(table, DEFAULT), [best], DEFAULT)
    assert answers["ranking"].to_pylist() == [[{"id": None, "index": 2, "relevance_score": 0.5}]]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("null_document: documents[3] is null", "null_document"),
        ("non_finite_score: the model gave nan", "non_finite_score"),
        ("CUDA error: out of memory", "not_ranked"),
        ("something broke", "not_ranked"),
        ("", "not_ranked"),
    ],
)
def test_the_reason_is_the_word_before_the_colon(error: str, reason: str) -> None:
    assert reason_of(error) == reason


def test_neither_torch_nor_ray_is_imported() -> None:
    code = "import jobs.table.parsing, sys; assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Any table

RAW_TEXTS = st.none() | st.sampled_from([b"", b" ", b"a", "ü€".encode(), b"\xff", b"ab\xc3", b"\xed\xa0\x80"])
TEXT_CASTS = st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.binary()])


@st.composite
def columns_of_texts(draw: st.DrawFn, length: int) -> tuple[list[bytes | None], pa.Array]:
    values = draw(st.lists(RAW_TEXTS, min_size=length, max_size=length))
    column = pa.array(values, pa.binary()).cast(draw(TEXT_CASTS), safe=False)
    encodable = column.type in (pa.string(), pa.large_string(), pa.binary())
    return values, column.dictionary_encode() if encodable and draw(st.booleans()) else column


@st.composite
def columns_of_documents(draw: st.DrawFn, length: int) -> tuple[list[list[bytes | None] | None], pa.Array]:
    sizes = draw(st.lists(st.none() | st.integers(0, 3), min_size=length, max_size=length))
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + (size or 0))
    values, texts = draw(columns_of_texts(ends[-1]))
    if draw(st.booleans()):
        texts = pa.StructArray.from_arrays([pa.array(range(ends[-1]), pa.int64()), texts], ["id", "text"])
    lists = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), texts, mask=pa.array([size is None for size in sizes], pa.bool_())
    )
    expected = [
        None if size is None else values[start : start + size] for start, size in zip(ends, sizes, strict=False)
    ]
    return expected, lists


def is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def can_be_scored(query: bytes | None, documents: list[bytes | None] | None) -> bool:
    are_read = all(text is None or is_utf8(text) for text in [query, *(documents or [])])
    return documents is not None and are_read and bool(query and query.strip())


def cut_up(table: pa.Table, first: int, second: int) -> pa.Table:
    """The rows from `first` on, in two chunks with offsets of their own; the second starts at row `second`."""
    return pa.concat_tables([table.slice(first, second - first), table.slice(second)])


@given(st.data())
def test_any_table_gives_one_answer_or_error_per_row_and_comes_out_unchanged(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 5))
    queries, query_column = data.draw(columns_of_texts(length))
    lists, documents_column = data.draw(columns_of_documents(length))
    _, note_column = data.draw(columns_of_texts(length))
    whole = pa.table({"note": note_column, "documents": documents_column, "query": query_column})
    first, second = sorted([data.draw(st.integers(0, length)), data.draw(st.integers(0, length))])
    table = cut_up(whole, first, second)

    rows = parse_lists(table, DEFAULT)
    answers = reranked(table)

    assert [row.error is None for row in rows] == [
        can_be_scored(query, documents) for query, documents in zip(queries[first:], lists[first:], strict=True)
    ]
    assert all((row.candidates is None) != (row.error is None) for row in rows)
    assert [documents_of(row) for row in rows if row.error is None] == [
        [text.decode() for text in documents if text is not None]
        for row, documents in zip(rows, lists[first:], strict=True)
        if row.error is None and documents is not None
    ]
    assert answers.select(table.column_names).equals(table)
    assert answers["error"].is_null().to_pylist() == answers["ranking"].is_valid().to_pylist()
    for ranking, documents in zip(answers["ranking"].to_pylist(), lists[first:], strict=True):
        if ranking is not None and documents is not None:
            present = [index for index, text in enumerate(documents) if text is not None]
            absent = [index for index, text in enumerate(documents) if text is None]
            assert [one["index"] for one in ranking] == [*present[::-1], *absent]
            assert [one["relevance_score"] is None for one in ranking] == [False] * len(present) + [True] * len(absent)
    assert {reason_of(row.error) for row in rows if row.error} <= set(Reason)
    answers.validate()


@given(st.data())
def test_any_pair_table_gives_one_score_or_error_per_row_and_comes_out_unchanged(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 5))
    queries, query_column = data.draw(columns_of_texts(length))
    documents, document_column = data.draw(columns_of_texts(length))
    first, second = sorted([data.draw(st.integers(0, length)), data.draw(st.integers(0, length))])
    table = cut_up(pa.table({"document": document_column, "query": query_column}), first, second)

    answers = rescored(table)

    assert answers["error"].is_null().to_pylist() == [
        document is not None and can_be_scored(query, [document])
        for query, document in zip(queries[first:], documents[first:], strict=True)
    ]
    assert answers["error"].is_null().to_pylist() == answers["relevance_score"].is_valid().to_pylist()
    assert answers.select(table.column_names).equals(table)
