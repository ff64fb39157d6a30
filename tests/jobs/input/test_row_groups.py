"""Row groups that are cut into many units: each unit has its rows, however units come, and they are decoded once."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import UnreadableFileError
from jobs.input.conditions import parse_condition
from jobs.input.cutting import MAX_UNIT_BYTES, UNITS_PER_ROW_GROUP, FilePlan, cut
from jobs.input.reading import read_rows
from jobs.input.row_groups import RowGroups, Walk
from jobs.input.selection import Selection
from jobs.records import Unit

ROWS = 1_000


def rows_table() -> pa.Table:
    """Rows of many kinds."""
    texts = [f"text {i} " * (i % 7) for i in range(ROWS)]
    return pa.table(
        {
            "number": range(ROWS),
            "query": texts,
            "documents": [texts[i : i + i % 4] if i % 5 else None for i in range(ROWS)],
            "structs": [[{"id": i, "text": texts[i]}] * (i % 3) for i in range(ROWS)],
            "category": pa.array([f"c{i % 9}" for i in range(ROWS)]).dictionary_encode(),
            "view": pa.array(texts, pa.string_view()),
            "maps": pa.array([[("k", text)] for text in texts], pa.map_(pa.string(), pa.string())),
        }
    )


def random_cuts(generator: random.Random) -> list[tuple[int, int]]:
    bounds = sorted({0, ROWS, *generator.sample(range(ROWS), 20)})
    return [(start, end - start) for start, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize("window", [0, 20_000, 1 << 30], ids=["no window", "small window", "all of it"])
@pytest.mark.parametrize("group_rows", [ROWS, 300], ids=["one row group", "four"])
def test_units_have_their_rows_however_they_are_cut_and_come(tmp_path: Path, group_rows: int, window: int) -> None:
    path, table, generator = str(tmp_path / "a.parquet"), rows_table(), random.Random(5)
    pq.write_table(table, path, row_group_size=group_rows)
    table = pq.read_table(path)
    for order in ("forwards", "backwards", "at random", "side by side"):
        groups, cuts = RowGroups(kept=2, window=window), random_cuts(generator)
        if order == "backwards":
            cuts.reverse()
        elif order != "forwards":
            generator.shuffle(cuts)
        with ThreadPoolExecutor(4 if order == "side by side" else 1) as pool:
            units = list(pool.map(lambda cut, groups=groups: read_rows(Unit(path, *cut), groups=groups), cuts))
        for (start, rows), unit in zip(cuts, units, strict=True):
            assert unit.schema.equals(table.schema, check_metadata=True)
            assert unit.to_pylist() == table.slice(start, rows).to_pylist()


def test_a_condition_reads_rows_of_a_walk(tmp_path: Path) -> None:
    path, table = str(tmp_path / "a.parquet"), rows_table()
    pq.write_table(table, path)
    groups, selection = RowGroups(kept=2, window=0), Selection(where=(parse_condition("number >= 995"),))
    found = [
        read_rows(Unit(path, start, 100), selection, groups)["number"].to_pylist() for start in range(0, ROWS, 100)
    ]
    assert found == [[]] * 9 + [[995, 996, 997, 998, 999]]


class Batches:
    """Batches of ten rows of 80 bytes, and how many of them were decoded."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.decoded = 0

    def begin(self) -> Iterator[pa.RecordBatch]:
        for i in range(self.count):
            self.decoded += 1
            yield pa.record_batch({"number": range(10 * i, 10 * i + 10)})


def walk_over(batches: Batches, window: int) -> Walk:
    return Walk(batches.begin, pa.schema({"number": pa.int64()}), window)


def test_units_that_follow_each_other_are_decoded_once_and_let_go(tmp_path: Path) -> None:
    batches = Batches(100)
    walk = walk_over(batches, window=400)
    numbers = []
    for start in range(0, 1_000, 7):
        numbers += walk.rows(start, min(7, 1_000 - start))["number"].to_pylist()
        assert walk.bytes <= 400 + 80
    assert numbers == list(range(1_000))
    assert batches.decoded == 100


def test_a_unit_a_little_behind_is_in_the_window_and_one_far_behind_begins_anew() -> None:
    batches = Batches(100)
    walk = walk_over(batches, window=400)
    walk.rows(500, 10)
    assert walk.rows(470, 10)["number"].to_pylist() == list(range(470, 480))
    assert batches.decoded == 51
    assert walk.rows(3, 2)["number"].to_pylist() == [3, 4]
    assert batches.decoded == 52


def test_a_walk_goes_on_after_a_failure() -> None:
    batches = Batches(3)
    walk = walk_over(batches, window=0)
    with pytest.raises(ValueError, match="end after 30 rows"):
        walk.rows(25, 10)
    assert walk.rows(25, 5)["number"].to_pylist() == [25, 26, 27, 28, 29]


def test_a_damaged_page_costs_the_units_behind_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{i:0200}" for i in range(ROWS)]})
    pq.write_table(table, path, use_dictionary=False, compression="zstd", data_page_size=10_000, write_batch_size=10)
    content = path.read_bytes()
    path.write_bytes(content[:-8_000] + bytes(byte ^ 0xFF for byte in content[-8_000:-6_000]) + content[-6_000:])
    groups = RowGroups(kept=2)
    assert read_rows(Unit(str(path), 0, 50), groups=groups)["text"].to_pylist() == table["text"].to_pylist()[:50]
    with pytest.raises(UnreadableFileError):
        read_rows(Unit(str(path), 950, 50), groups=groups)


def test_a_large_row_group_has_more_units_so_that_none_is_too_large() -> None:
    """A usual one has 64 at most: each may go to another replica, which has to get there."""
    usual, large = (FilePlan(100_000, (100_000,), size, pa.schema([])) for size in (1_000.0, 1_000_000.0))
    assert len(cut(usual, 1)) == UNITS_PER_ROW_GROUP
    ranges = cut(large, 1 << 20)
    assert (max(rows for _, rows in ranges) - 1) * 1_000_000 < MAX_UNIT_BYTES
    assert sum(rows for _, rows in ranges) == 100_000


WRITE = """
import sys
import pyarrow as pa, pyarrow.parquet as pq
passages = pa.array([f"{i % 1000:04} " * 200 for i in range(1_100_000)])
lists = pa.ListArray.from_arrays(pa.array(range(0, 1_100_001, 100), pa.int32()), passages)
queries = pa.array([f"query {i}" for i in range(22_000)])
table = pa.table({"query": queries, "documents": pa.chunked_array([lists, lists])})
pq.write_table(table, sys.argv[1], compression="zstd", use_dictionary=False, row_group_size=22_000)
"""
READ = """
import sys
import pyarrow.compute as pc
from jobs.input.cutting import UNIT_BYTES, planned_ranges, read_plan
from jobs.input.reading import read_rows
from jobs.input.row_groups import RowGroups
from jobs.records import Unit
plan, groups, row = read_plan(sys.argv[1]), RowGroups(2), 0
assert plan.row_groups == (22_000,), plan.row_groups
for start, rows in planned_ranges(plan, UNIT_BYTES, 0, plan.rows):
    table = read_rows(Unit(sys.argv[1], start, rows), groups=groups)
    assert table["query"].to_pylist() == [f"query {row + i}" for i in range(rows)]
    passages = pc.list_flatten(table["documents"])
    assert len(passages) == 100 * rows and pc.sum(pc.binary_length(passages)).as_py() == 100_000 * rows
    row += rows
assert row == 22_000
with open("/proc/self/status") as status:  # getrusage would count the test's own memory too
    print(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) >> 10)
"""


@pytest.mark.slow
def test_a_row_group_of_more_than_2_gib_of_text_in_lists_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    subprocess.run([sys.executable, "-c", WRITE, path], check=True)
    with pytest.raises(pa.ArrowNotImplementedError):
        pq.ParquetFile(path).read_row_group(0)  # the reason for all this
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_500  # MiB
