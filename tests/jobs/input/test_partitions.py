"""Columns that directories name: as pyarrow has them, the same for all files and all runs of a job."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from jobs.errors import RefusedError
from jobs.input.partitions import Partitions, continued_types, infer_types, input_root
from jobs.input.reading import read_rows
from jobs.input.selection import Selection
from jobs.records import Unit
from jobs.storage import list_input


def write_tree(root: Path, *directories: str) -> list[str]:
    """A file `x.parquet` with one row in each directory; returns their paths, sorted."""
    for i, directory in enumerate(directories):
        (root / directory).mkdir(parents=True)
        pq.write_table(pa.table({"number": [i]}), root / directory / "x.parquet")
    return [file.path for file in list_input(str(root))]


def selection_over(root: Path, paths: list[str]) -> Selection:
    return Selection(Partitions(str(root), infer_types(str(root), paths)))


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2"],
        ["01", "-2"],
        ["+1"],
        ["2147483647", "-2147483648"],
        ["2147483648"],
        ["2026-11-01"],
        ["de", "1"],
        ["1.5"],
        ["true"],
        ["a%20b", "c%2Fd", "é"],
        ["a=b"],
        ["1_0"],
        ["__HIVE_DEFAULT_PARTITION__", "3"],
        ["__HIVE_DEFAULT_PARTITION__", "x"],
    ],
    ids=" ".join,
)
def test_types_and_values_are_those_of_pyarrow(tmp_path: Path, values: list[str]) -> None:
    paths = write_tree(tmp_path, *(f"key={value}/other=1" for value in values))
    selection = selection_over(tmp_path, paths)
    ours = pa.concat_tables([read_rows(Unit(path, 0, 1), selection) for path in paths])
    theirs = pyarrow.dataset.dataset(tmp_path, partitioning="hive").to_table()
    assert ours.sort_by("number").equals(theirs.sort_by("number"))


def test_nulls_only_are_a_column_of_text(tmp_path: Path) -> None:
    paths = write_tree(tmp_path, "key=__HIVE_DEFAULT_PARTITION__")
    table = read_rows(Unit(paths[0], 0, 1), selection_over(tmp_path, paths))
    assert table.schema.field("key").type == pa.string()
    assert table["key"].to_pylist() == [None]


def test_a_file_that_has_the_column_itself_keeps_its_own(tmp_path: Path) -> None:
    paths = write_tree(tmp_path, "number=7/lang=de")
    table = read_rows(Unit(paths[0], 0, 1), selection_over(tmp_path, paths))
    assert table.to_pylist() == [{"number": 0, "lang": "de"}]


def test_a_file_beside_the_directories_has_no_such_column(tmp_path: Path) -> None:
    paths = write_tree(tmp_path, "day=1", "plain")
    selection = selection_over(tmp_path, paths)
    assert [read_rows(Unit(path, 0, 1), selection).column_names for path in paths] == [["number", "day"], ["number"]]


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        ("/in/logs", "/in/logs"),
        ("/in/logs/", "/in/logs"),
        ("/in/logs/day=1/a.parquet", "/in/logs/day=1"),
        ("/in/logs/day=*/*.parquet", "/in/logs"),
        ("/in/logs/day=1/*.parquet", "/in/logs/day=1"),
        ("/in/**/[ab].parquet", "/in"),
        ("s3://bucket/logs/*/a.parquet", "s3://bucket/logs"),
        ("s3://bucket/logs", "s3://bucket/logs"),
    ],
)
def test_directories_count_below_the_part_of_input_without_wildcards(pattern: str, root: str) -> None:
    base = "s3://bucket" if pattern.startswith("s3") else "/in"
    assert input_root(pattern, [f"{base}/logs/day=1/a.parquet"]) == root


def test_a_file_with_brackets_in_its_name_is_no_glob() -> None:
    assert input_root("/in/a[1]/b.parquet", ["/in/a[1]/b.parquet"]) == "/in/a[1]"
    assert input_root("/in/a[1]", ["/in/a[1]/b.parquet"]) == "/in/a[1]"


def paths_of(*directories: str) -> list[str]:
    return [f"/in/{directory}/x.parquet" for directory in directories]


def test_new_files_keep_the_types_and_may_add_columns() -> None:
    planned = paths_of("day=x")
    now = paths_of("day=x", "day=1", "day=2/lang=de")
    assert continued_types("/in", {"day": "string"}, planned, now) == {"day": "string", "lang": "string"}


def test_a_new_value_that_is_no_integer_is_refused() -> None:
    with pytest.raises(RefusedError, match="partition column 'day' was int32, and new files have other values of it"):
        continued_types("/in", {"day": "int32"}, paths_of("day=1"), paths_of("day=1", "day=x"))


@pytest.mark.parametrize("root", ["/in/day=1", "/"])
def test_an_input_that_gives_the_same_files_other_columns_is_refused(root: str) -> None:
    planned = ["/in/day=1/lang=de/x.parquet"]
    before = {"day": "int32", "lang": "string"} if root != "/" else {"lang": "string"}
    with pytest.raises(RefusedError, match="give INPUT as before, another OUTPUT, or --overwrite to start anew"):
        continued_types(root.rstrip("/"), before, planned, planned)
