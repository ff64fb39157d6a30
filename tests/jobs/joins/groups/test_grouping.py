"""Pairs to lists: what a loop over the rows would make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.joins.groups.grouping
from jobs.joins.groups.grouping import grouped, numbered_pairs, oversize_groups, without_oversize
from jobs.joins.groups.pair_columns import pair_columns
from jobs.joins.keys import SEED, hashes, mix
from jobs.table.columns import ColumnMapping, GroupBy
from pipelines.errors import ConfigError

MAPPING = ColumnMapping()
Pairs = st.lists(
    st.fixed_dictionaries(
        {
            "query_id": st.none() | st.sampled_from(["a", "b", "c", ""]),
            "query": st.sampled_from(["q", "q", "q", "other", None]),
            "document_id": st.none() | st.text(max_size=2),
            "document": st.none() | st.text(max_size=3),
            "rank": st.none() | st.integers(0, 3),
        }
    ),
    max_size=20,
)
SCHEMA = pa.schema(
    {
        "query_id": pa.string(),
        "query": pa.string(),
        "document_id": pa.string(),
        "document": pa.string(),
        "rank": pa.int64(),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def lists_of(rows: list[dict[str, Any]], **options: Any) -> pa.Table:
    columns = pair_columns({"f": SCHEMA}, GroupBy("query_id", **options), MAPPING)
    pairs = numbered_pairs(table_of(rows), 0, np.arange(len(rows)), columns)
    return grouped(pairs, columns, ["f.parquet"], {})


def naive_lists(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with dictionaries."""
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row["query_id"] if row["query_id"] is not None else ("null", i), []).append(i)
    found = []
    for members in groups.values():
        first = rows[members[0]]
        others = [i for i in members if rows[i]["query"] != first["query"]]
        places = " and ".join(f"row {i} of f.parquet" for i in [members[0], *others[:1]])
        problem = (
            f"different_queries: query_id {first['query_id']!r} has different queries in {places}" if others else None
        )
        if first["query_id"] is None:
            problem = f"null_group: query_id is null in row {members[0]} of f.parquet"
        ranked = sorted(members, key=lambda i: (rows[i]["rank"] is None, rows[i]["rank"] or 0, i))
        documents = [
            {"id": rows[i]["document_id"], "text": rows[i]["document"], "rank": rows[i]["rank"]} for i in ranked
        ]
        found.append(
            {
                "query_id": first["query_id"],
                "query": first["query"],
                "documents": documents,
                "__crossray_problem__": problem,
            }
        )
    return found


@given(Pairs)
def test_groups_are_those_of_a_loop_over_the_rows(rows: list[dict[str, Any]]) -> None:
    lists = lists_of(rows)
    assert lists.to_pylist() == naive_lists(rows)
    assert lists.schema.field("documents").type.value_type.names == ["id", "text", "rank"]


def test_without_ranks_a_list_has_the_order_of_the_rows() -> None:
    rows = [{"query_id": "a", "query": "q", "document": text} for text in "cab"]
    assert [one["text"] for one in lists_of(rows)["documents"][0].as_py()] == ["c", "a", "b"]


@given(Pairs, st.integers(0, 20), st.integers(0, 20))
def test_a_group_that_is_too_large_is_one_row_that_says_so(rows: list[dict[str, Any]], one: int, two: int) -> None:
    """Whatever cells its pairs come in; the other groups are as if it were not there."""
    rows = [row | {"query_id": row["query_id"] or "x"} for row in rows]
    columns = pair_columns({"f": SCHEMA}, GroupBy("query_id"), MAPPING)
    pairs = numbered_pairs(table_of(rows), 0, np.arange(len(rows)), columns)
    first, second = sorted((min(one, len(rows)), min(two, len(rows))))
    cells = [pairs[:first], pairs[first:second], pairs[second:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.joins.groups.grouping, "GROUP_BYTES", int(max([0, *pairs["size"].to_pylist()])) * 3)
        oversize = oversize_groups(lambda: cells)
        lists = grouped(pa.concat_tables(without_oversize(cells, oversize)), columns, ["f.parquet"], oversize)
    expected = naive_lists(rows)
    assert len(lists) == len(expected)
    large = 0
    for row, whole in zip(lists.to_pylist(), expected, strict=True):
        if row["documents"] is None:
            large += 1
            count = len(whole["documents"])
            assert (
                f"group_too_large: query_id {whole['query_id']!r} has {count} pairs of" in row["__crossray_problem__"]
            )
        else:
            assert row == whole
    assert large == len(oversize)


def test_ids_of_integers_stay_integers_and_those_of_two_types_become_texts() -> None:
    one, two = SCHEMA.set(0, pa.field("query_id", pa.int32())), SCHEMA
    assert pair_columns({"a": one, "b": one}, GroupBy("query_id"), MAPPING).lists.field("query_id").type == pa.int32()
    columns = pair_columns({"a": one, "b": two}, GroupBy("query_id"), MAPPING)
    rows = {"query": ["q"], "document_id": ["x"], "document": ["d"], "rank": [1]}
    tables = [pa.table({"query_id": pa.array([17], pa.int32()), **rows}), pa.table({"query_id": ["17"], **rows})]
    pairs = [numbered_pairs(table, i, np.arange(1), columns) for i, table in enumerate(tables)]
    assert grouped(pa.concat_tables(pairs), columns, ["a", "b"], {}).to_pylist()[0]["query_id"] == "17"


def test_columns_that_files_lack_or_have_in_other_types_are_brought_together() -> None:
    files = {
        "a": SCHEMA.append(pa.field("score", pa.float32())),
        "b": SCHEMA.append(pa.field("score", pa.int16())),
        "c": SCHEMA,
    }
    columns = pair_columns(files, GroupBy("query_id"), MAPPING)
    assert columns.document_type.field("score").type == pa.float32()


@pytest.mark.parametrize(
    ("schemas", "group_by", "mapping", "message"),
    [
        ([SCHEMA], GroupBy("qid"), MAPPING, "--group-by is 'qid', which is missing in a file; there are `query_id`"),
        (
            [SCHEMA.append(pa.field("x", pa.float64()))],
            GroupBy("x"),
            MAPPING,
            "which is double; give texts, integers or UUIDs",
        ),
        ([SCHEMA], GroupBy("query_id", "document"), MAPPING, "--rank-column is 'document', which is string; it has to"),
        ([SCHEMA], GroupBy("query_id", "no"), MAPPING, "--rank-column is 'no', which is missing"),
        ([SCHEMA.append(pa.field("id", pa.string()))], GroupBy("query_id"), MAPPING, "column `id` would be twice in"),
        ([SCHEMA], GroupBy("query_id"), ColumnMapping(drop=("document",)), "--drop document with --group-by"),
        (
            [SCHEMA.append(pa.field("x", pa.string())), SCHEMA.append(pa.field("x", pa.int64()))],
            GroupBy("query_id"),
            MAPPING,
            "column `x` is string in a and int64 in b, and no type holds the values of both; .* --drop x",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_columns_that_cannot_be_grouped_are_usage_errors(
    schemas: list[pa.Schema], group_by: GroupBy, mapping: ColumnMapping, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pair_columns(dict(zip("ab", schemas, strict=False)), group_by, mapping)


def key_with_the_hash_of(key: bytes) -> bytes:
    """Another key of 16 ASCII bytes with the same public hash: the second word makes up for what the first changes."""
    first, second = np.frombuffer(key, "<u8")
    mixed = SEED ^ np.uint64(len(key))
    for number in range(100_000):
        other = np.frombuffer(f"{number:08d}".encode(), "<u8")[0]
        rest = mix(mixed ^ np.array([other])) ^ mix(mixed ^ np.array([first])) ^ second
        found = np.array([other, rest[0]], "<u8").tobytes()
        if found.isascii() and found != key:
            return found
    raise AssertionError("no such key")


def test_a_group_with_the_hash_of_one_that_is_too_large_keeps_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = b"a query of users"
    evil = key_with_the_hash_of(victim)
    keys = pa.array([victim, evil], pa.large_binary())
    assert len(set(hashes(keys).tolist())) == 1
    rows = [{"query_id": evil.decode(), "query": "evil", "document": "x" * 400, "rank": 0} for _ in range(3)]
    rows.insert(1, {"query_id": victim.decode(), "query": "good", "document": "small", "rank": 0})
    columns = pair_columns({"f": SCHEMA}, GroupBy("query_id"), MAPPING)
    pairs = numbered_pairs(table_of(rows), 0, np.arange(len(rows)), columns)
    monkeypatch.setattr(jobs.joins.groups.grouping, "GROUP_BYTES", 1_000)
    cells = [pairs[:2], pairs[2:]]
    oversize = oversize_groups(lambda: cells)
    lists = grouped(pa.concat_tables(without_oversize(cells, oversize)), columns, ["f.parquet"], oversize).to_pylist()
    assert [one["query"] for one in lists] == ["evil", "good"]
    assert "has 3 pairs of" in lists[0]["__crossray_problem__"]
    assert lists[0]["documents"] is None
    assert [one["text"] for one in lists[1]["documents"]] == ["small"]
    assert lists[1]["__crossray_problem__"] is None


def test_a_pair_without_a_group_may_be_too_large_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.joins.groups.grouping, "GROUP_BYTES", 1_000)
    rows = [{"query_id": None, "query": "q", "document": text} for text in ("small", "x" * 2_000)]
    small, large = lists_of(rows).to_pylist()
    assert small["__crossray_problem__"].startswith("null_group: ")
    assert [one["text"] for one in small["documents"]] == ["small"]
    assert large["documents"] is None
    assert large["__crossray_problem__"].startswith("group_too_large: ")


def test_ranks_beyond_what_floats_tell_apart_are_ordered_right() -> None:
    """Nanoseconds since 1970."""
    ranks = [1_700_000_000_000_000_003, 1_700_000_000_000_000_001, None, 1_700_000_000_000_000_002]
    rows = [{"query_id": "a", "query": "q", "document": str(rank), "rank": rank} for rank in ranks]
    texts = [one["text"] for one in lists_of(rows)["documents"][0].as_py()]
    assert texts == [*map(str, sorted(rank for rank in ranks if rank is not None)), "None"]
