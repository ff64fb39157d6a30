"""How files are cut into units, and how a unit's rows are read back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import UnreadableFileError
from jobs.input.conditions import Condition, parse_condition
from jobs.input.cutting import (
    MAX_UNIT_BYTES,
    MAX_UNITS_OF_FILE,
    MIN_UNIT_BYTES,
    UNIT_BYTES,
    UNITS_PER_ROW_GROUP,
    FilePlan,
    cut,
    cut_evenly,
    read_plan,
    unit_bytes,
    unit_bytes_alone,
)
from jobs.input.reading import read_rows
from jobs.input.row_groups import RowGroups
from jobs.input.selection import Selection
from jobs.records import Unit

SCHEMA = pa.schema({"query": pa.string()})
plans = st.builds(
    lambda groups, bytes_per_row: FilePlan(sum(groups), tuple(groups), bytes_per_row, SCHEMA),
    st.lists(st.integers(0, 3_000), max_size=12),
    st.just(0.0) | st.floats(0.01, 10_000),
)
targets = st.integers(1, 1_000_000)


@given(plans, targets)
def test_ranges_cover_every_row_once_and_in_order(plan: FilePlan, target: int) -> None:
    ranges = cut(plan, target)
    ends = list(accumulate(rows for _, rows in ranges))
    assert [start for start, _ in ranges] == [0, *ends][: len(ranges)]
    assert (ends or [0])[-1] == plan.rows
    assert all(rows > 0 for _, rows in ranges)


@given(plans, targets)
def test_a_range_never_holds_parts_of_two_row_groups(plan: FilePlan, target: int) -> None:
    ends = {0, *accumulate(plan.row_groups)}
    for start, rows in cut(plan, target):
        inside = [end for end in ends if start < end < start + rows]
        whole = start in ends and start + rows in ends
        assert whole or not inside


@given(plans, targets)
def test_cutting_depends_on_nothing_but_the_plan(plan: FilePlan, target: int) -> None:
    same = FilePlan(plan.rows, plan.row_groups, plan.bytes_per_row, SCHEMA)
    assert cut(plan, target) == cut(same, target)


@given(plans, targets)
def test_no_row_group_is_decoded_more_than_64_times(plan: FilePlan, target: int) -> None:
    ranges = cut(plan, target)
    start = 0
    for rows in plan.row_groups:
        touching = sum(first < start + rows and start < first + size for first, size in ranges)
        assert touching <= UNITS_PER_ROW_GROUP
        start += rows


@given(st.integers(1, 5_000), st.integers(1, 500))
def test_an_even_cut_has_as_few_ranges_as_can_be(rows: int, most: int) -> None:
    sizes = [size for _, size in cut_evenly(0, rows, most)]
    assert sum(sizes) == rows
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-rows // most)


def test_small_row_groups_are_joined_and_large_ones_are_cut() -> None:
    plan = FilePlan(1_250, (100, 100, 1_000, 50), bytes_per_row=10.0, schema=SCHEMA)
    assert cut(plan, 2_500) == [(0, 200), (200, 250), (450, 250), (700, 250), (950, 250), (1_200, 50)]


def test_rows_larger_than_a_unit_get_a_unit_each() -> None:
    assert cut(FilePlan(3, (3,), bytes_per_row=1e9, schema=SCHEMA), 1_000) == [(0, 1), (1, 1), (2, 1)]


def test_a_file_without_rows_has_no_units() -> None:
    assert cut(FilePlan(0, (), 0.0, SCHEMA), 1_000) == []
    assert cut(FilePlan(0, (0, 0), 0.0, SCHEMA), 1_000) == []


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, MIN_UNIT_BYTES),
        (1 << 20, MIN_UNIT_BYTES),
        (1 << 24, UNIT_BYTES),
        (1 << 32, 1 << 20),
        (1 << 50, MAX_UNIT_BYTES),
    ],
)
def test_units_grow_with_the_corpus_between_two_bounds(total: int, expected: int) -> None:
    assert unit_bytes(total) == expected


def test_the_plan_of_a_file_sees_through_dictionaries_and_compression(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["same words " * 1_000] * 500}), path, row_group_size=200, compression="zstd")
    plan = read_plan(path)
    assert (plan.rows, plan.row_groups) == (500, (200, 200, 100))
    assert plan.bytes_per_row >= 11_000
    assert Path(path).stat().st_size < 100_000


@pytest.mark.parametrize("row_group_size", [1, 7, 100, 1_000])
def test_a_unit_reads_its_slice_of_the_file(tmp_path: Path, row_group_size: int) -> None:
    path = str(tmp_path / "a.parquet")
    table = pa.table({"number": range(100), "texts": [[str(i)] * (i % 3) for i in range(100)]})
    pq.write_table(table, path, row_group_size=row_group_size)
    for start, rows in [(0, 100), (0, 1), (99, 1), (6, 2), (7, 7), (13, 50), (20, 0)]:
        assert read_rows(Unit(path, start, rows)).equals(table.slice(start, rows))


@pytest.mark.parametrize(
    ("where", "most"),
    [((), 2), ((parse_condition("number >= 30"),), 9)],  # whose column is read for itself, and threads pass on in turn
    ids=["all rows", "where"],
)
def test_units_side_by_side_read_their_row_group_once(tmp_path: Path, where: tuple[Condition, ...], most: int) -> None:
    path = str(tmp_path / "a.parquet")
    table = pa.table({"number": range(100), "text": [str(i) for i in range(100)]})
    pq.write_table(table, path, row_group_size=50)
    groups, selection = RowGroups(kept=2), Selection(where=where)
    iter_batches = pq.ParquetFile.iter_batches

    def slowly_read(*arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        time.sleep(0.05)  # so that other threads come while it is under way
        return iter_batches(*arguments, **options)

    reading = patch.object(pq.ParquetFile, "iter_batches", autospec=True, side_effect=slowly_read)
    with reading as reads, ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: read_rows(Unit(path, 5 * i, 5), selection, groups), range(20)))
    assert pa.concat_tables(parts).equals(table.slice(30 if where else 0))
    assert reads.call_count <= most


def test_row_groups_are_read_again_when_they_failed_or_the_file_is_another(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    groups = RowGroups(kept=2)
    pq.write_table(pa.table({"number": range(10)}), path)
    failing = patch.object(pq.ParquetFile, "iter_batches", side_effect=OSError("gone for a moment"))
    with failing, pytest.raises(UnreadableFileError, match="gone for a moment"):
        read_rows(Unit(path, 0, 5), groups=groups)
    assert read_rows(Unit(path, 0, 5), groups=groups)["number"].to_pylist() == [0, 1, 2, 3, 4]
    pq.write_table(pa.table({"number": range(100, 120)}), path)
    assert read_rows(Unit(path, 0, 5), groups=groups)["number"].to_pylist() == [100, 101, 102, 103, 104]


def test_row_groups_that_a_unit_reads_whole_are_not_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"number": range(10)}), path, row_group_size=5)
    groups = RowGroups(kept=2)
    read_rows(Unit(path, 0, 10), groups=groups)
    assert not groups.walks


def test_a_file_that_shrank_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"number": range(10)}), path)
    with pytest.raises(UnreadableFileError, match=r"a\.parquet has no rows 5 to 15 any more"):
        read_rows(Unit(path, 5, 10))


def test_units_of_different_files_with_one_name_have_different_parts() -> None:
    assert Unit("/in/x/a.parquet", 0, 5).name != Unit("/in/y/a.parquet", 0, 5).name
    assert Unit("/in/x/a.parquet", 0, 5).name != Unit("/in/x/a.parquet", 5, 5).name


def test_the_name_of_a_part_tells_file_and_rows_and_fits_every_file_system() -> None:
    name = Unit(f"/in/a b:c*{'ü' * 200}.parquet", 7, 5).name
    assert name.startswith("part-a_b_c_")
    assert name.endswith("-000000000007-5.parquet")
    assert len(name.encode()) < 200
    assert not set(name) & set('/\\:*?"<>| ')


def test_names_of_parts_sort_like_rows() -> None:
    names = [Unit("/in/a.parquet", start, 1).name for start in (0, 9, 10, 100, 2_000_000)]
    assert names == sorted(names)


@given(plans)
def test_a_unit_of_a_file_alone_is_no_smaller_than_a_usual_one_and_of_few(plan: FilePlan) -> None:
    """Whatever else comes: years of small files are not cut into crumbs, nor a large one into too many."""
    size = unit_bytes_alone(plan)
    assert UNIT_BYTES <= size <= MAX_UNIT_BYTES
    assert size == MAX_UNIT_BYTES or plan.rows * plan.bytes_per_row / size < MAX_UNITS_OF_FILE + 1
