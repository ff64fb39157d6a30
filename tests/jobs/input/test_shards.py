"""Shares of the input: every row in one of them, evenly, whatever the other runs see."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.input.cutting import FilePlan
from jobs.input.partitions import Partitions
from jobs.input.selection import Selection
from jobs.input.shards import SLICE_BYTES, Shard, parse_shard
from jobs.input.survey import Survey
from jobs.records import InputFile
from pipelines.errors import ConfigError

SCHEMA = pa.schema({"query": pa.string()})
LARGE = 1 << 40


@st.composite
def plans(draw: st.DrawFn) -> FilePlan:
    groups = draw(st.lists(st.integers(0, 300), max_size=8))
    excluded = draw(st.frozensets(st.integers(0, max(0, len(groups) - 1)), max_size=len(groups)))
    return FilePlan(sum(groups), tuple(groups), draw(st.floats(0.1, 5_000)), SCHEMA, excluded)


def bounds(plan: FilePlan, size: int, count: int, name: str) -> list[tuple[int, int]]:
    """(start, end) of each share that has a part of the file, in the file's order."""
    shares = [Shard(number, count).rows_of(name, size, plan.rows, plan.kept) for number in range(1, count + 1)]
    return sorted(share for share in shares if share != (0, 0))


@given(plans(), st.integers(0, LARGE), st.integers(1, 12), st.text())
def test_every_row_is_in_one_share(plan: FilePlan, size: int, count: int, name: str) -> None:
    ends = [0, *(end for _, end in bounds(plan, size, count, name))]
    assert [start for start, _ in bounds(plan, size, count, name)] == ends[:-1]
    assert ends[-1] == plan.rows


@given(plans(), st.integers(1, 12), st.text())
def test_the_rows_that_where_leaves_are_dealt_out_evenly(plan: FilePlan, count: int, name: str) -> None:
    kept = {row for start, rows in plan.kept for row in range(start, start + rows)}
    sizes = [sum(row in kept for row in range(*share)) for share in bounds(plan, LARGE, count, name)]
    sizes += [0] * (count - len(sizes))
    assert max(sizes) - min(sizes) <= 1


def test_small_files_go_whole_to_one_share_and_are_spread() -> None:
    rows = [0] * 8
    for i in range(800):
        for number in range(1, 9):
            start, end = Shard(number, 8).rows_of(f"/{i}.parquet", SLICE_BYTES - 1, 10, [(0, 10)])
            assert end - start in (0, 10)
            rows[number - 1] += end - start
    assert sum(rows) == 8_000
    assert 0.7 * 1_000 < min(rows) <= max(rows) < 1.3 * 1_000


@given(st.lists(plans(), min_size=1, max_size=4), st.integers(1, 6), st.data())
def test_the_units_of_all_shares_are_the_input_whatever_each_run_sees(
    file_plans: list[FilePlan], count: int, data: st.DataObject
) -> None:
    """Each run may begin with other files beside these, and so with units of another size."""
    files = [InputFile(f"/in/{i}.parquet", data.draw(st.integers(0, LARGE)), 0) for i in range(len(file_plans))]
    rows: list[tuple[str, int]] = []
    left_out = 0
    for number in range(1, count + 1):
        selection = Selection(Partitions("/in"), shard=Shard(number, count))
        found = Survey(selection, dict(zip(files, file_plans, strict=True)), {})
        for planned in found.planned(files, data.draw(st.integers(1, 100_000))):
            rows += [(unit.path, row) for unit in planned.units() for row in range(unit.start, unit.start + unit.rows)]
            left_out += planned.rows - sum(unit.rows for unit in planned.units())
    assert len(rows) == len(set(rows))
    assert len(rows) + left_out == sum(plan.rows for plan in file_plans)
    read = set(rows)
    for file, plan in zip(files, file_plans, strict=True):
        for start, size in plan.kept:
            assert all((file.path, row) in read for row in range(start, start + size))


@given(st.lists(plans(), max_size=4), st.integers(1, 1_000), st.integers(1, 100_000), st.integers(0, 500))
def test_a_limit_takes_the_first_rows_and_cuts_them_as_without_it(
    file_plans: list[FilePlan], limit: int, target: int, taken: int
) -> None:
    files = [InputFile(f"/in/{i}.parquet", 1, 0) for i in range(len(file_plans))]
    by_file = dict(zip(files, file_plans, strict=True))
    whole = Survey(Selection(), by_file, {}).planned(files, target)
    limited = Survey(Selection(limit=limit), by_file, {}).planned(files, target, taken)
    left = max(0, limit - taken)
    ends = list(accumulate((plan.rows for plan in file_plans), initial=0))
    assert [one.rows for one in limited] == [max(0, min(end, left) - start) for start, end in pairwise(ends)]
    for before, after in zip(whole, limited, strict=True):
        assert after.ranges == tuple(
            (start, min(rows, after.rows - start)) for start, rows in before.ranges if start < after.rows
        ) or any(plan.excluded for plan in file_plans)


def test_shares_as_they_are_written() -> None:
    assert parse_shard("2/8") == Shard(2, 8)
    assert str(Shard(2, 8)) == "2/8"


@pytest.mark.parametrize("text", ["0/8", "9/8", "2", "2/", "/8", "a/b", "-1/8", "2/8/1", "2 of 8", "1.5/2"])
def test_what_is_no_share_is_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match="give I/N with 1 <= I <= N, such as 2/8"):
        parse_shard(text)
