"""Tiny files that decode to gigabytes: the driver plans them in bounded memory, or says why it does not."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import UnreadableFileError
from jobs.input.cutting import read_plan
from jobs.input.sampling import Sample, TooLargeError, bytes_per_row, measured_apart, most_bytes, nothing_besides
from jobs.input.survey import survey
from jobs.storage import list_input
from tests.jobs.tables import write_too_large

MEGABYTE = 1 << 20
ROWS = 3_000
PEAK_OF_A_PLAN = """
import sys
from jobs.input.cutting import read_plan
size = read_plan(sys.argv[1]).bytes_per_row
with open("/proc/self/status") as status:  # getrusage would count the test's own memory too
    print(size, 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1]))
"""


def long_text(rows: int) -> pa.ChunkedArray:
    """Texts of 12 MB, all the same."""
    indices = pa.array([0] * rows, pa.int32())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(indices, pa.array(["x" * (12 * MEGABYTE)]))])


def lists_of_long_text(rows: int) -> pa.ChunkedArray:
    """Four such texts in each list."""
    offsets = pa.array(range(0, 4 * rows + 1, 4), pa.int32())
    return pa.chunked_array([pa.ListArray.from_arrays(offsets, long_text(4 * rows).chunk(0))])


def structs_of_long_text(rows: int) -> pa.ChunkedArray:
    texts = long_text(rows).chunk(0)
    return pa.chunked_array([pa.StructArray.from_arrays([texts], ["text"])])


def write_small(path: Path, **columns: pa.ChunkedArray) -> Path:
    """A file of one row group, with every text once in a dictionary; returns `path`."""
    table = pa.table({"query": pa.chunked_array([["q"] * len(next(iter(columns.values())))])} | columns)
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    return path


@pytest.mark.parametrize(("column", "copies"), [(long_text, 1), (lists_of_long_text, 4), (structs_of_long_text, 1)])
def test_a_file_of_a_kilobyte_that_decodes_to_gigabytes_is_planned_in_little_memory(
    tmp_path: Path, column: Callable[[int], pa.ChunkedArray], copies: int
) -> None:
    path = write_small(tmp_path / "a.parquet", documents=column(ROWS), another=column(ROWS))
    assert path.stat().st_size < 20_000
    done = subprocess.run([sys.executable, "-c", PEAK_OF_A_PLAN, path], capture_output=True, text=True, check=True)
    size, peak = map(float, done.stdout.split())
    assert size == pytest.approx(2 * copies * 12 * MEGABYTE, rel=1e-3)
    assert peak < 300 * MEGABYTE  # 256 rows are 6 GB, and 24 in lists


def test_a_file_that_cannot_be_sampled_in_bounded_memory_is_an_error_of_that_file(tmp_path: Path) -> None:
    path = write_too_large(tmp_path / "b.parquet")
    pq.write_table(pa.table({"query": ["q"], "documents": [["d"]]}), tmp_path / "a.parquet")
    files = list_input(str(tmp_path))
    found = survey(files)
    assert path.stat().st_size < 20_000
    assert [file.path for file in found.plans] == [str(tmp_path / "a.parquet")]
    assert found.errors[files[1]] == "its first 255 rows take more than 2 GiB to decode"


def test_what_may_take_much_memory_and_does_not_is_measured_apart(tmp_path: Path) -> None:
    """Of a large row group the footer tells no more than its whole size."""
    path = str(tmp_path / "a.parquet")
    text = pa.array([f"{i:0100}" for i in range(1_000)])
    pq.write_table(pa.table({"text": text}), path)
    sample = Sample(path, 256, (0,), None, nothing_besides, ("text",))
    assert measured_apart(sample) == sample.bytes_per_row() == pytest.approx(104.25, abs=0.25)


def test_a_process_apart_says_what_it_could_not_read(tmp_path: Path) -> None:
    (tmp_path / "beside.parquet").touch()  # where nothing is left in a directory, it counts as away
    sample = Sample(str(tmp_path / "gone.parquet"), 256, (0,), None, nothing_besides, ())
    with pytest.raises(UnreadableFileError, match="FileNotFoundError") as refusal:
        measured_apart(sample)
    assert refusal.value.is_gone
    assert not isinstance(refusal.value, TooLargeError)


TEXTS = ["short", None, "a longer text " * 5, ""] * 100
IDS = pa.array([uuid.uuid4().bytes for _ in TEXTS], pa.uuid())
DOCUMENTS = pa.StructArray.from_arrays([IDS, pa.array(["{}"] * 400, pa.json_())], ["id", "meta"])
KINDS = {
    "text": pa.array(TEXTS),
    "large text": pa.array(TEXTS, pa.large_string()),
    "view": pa.array(TEXTS, pa.string_view()),
    "bytes": pa.array([text and text.encode() for text in TEXTS]),
    "categories": pa.array(TEXTS).dictionary_encode(),
    "JSON": pa.array(['{"a": 1}'] * 400, pa.json_()),
    "UUIDs": IDS,
    "UUIDs and JSON in lists": pa.ListArray.from_arrays(range(401), DOCUMENTS),
    "list": pa.array([[text, text] for text in TEXTS]),
    "large list": pa.array([[text, text] for text in TEXTS], pa.large_list(pa.large_string())),
    "fixed list": pa.array([[text, text] for text in TEXTS], pa.list_(pa.string(), 2)),
    "structs": pa.array([[{"id": i, "text": text}] for i, text in enumerate(TEXTS)]),
    "map": pa.array([[("key", text)] for text in TEXTS], pa.map_(pa.string(), pa.string())),
    "numbers": pa.array(range(400)),
    "nothing": pa.nulls(400),
}


@pytest.mark.parametrize("has_arrow_schema", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_a_row_is_that_of_a_row_read_plainly(tmp_path: Path, kind: str, has_arrow_schema: bool) -> None:
    """Within what views, bitmaps and offsets take; also of a file without Arrow's schema, as DuckDB writes UUIDs."""
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({kind: KINDS[kind]}), path, store_schema=has_arrow_schema)
    plain = next(pq.ParquetFile(path).iter_batches(batch_size=256))
    assert read_plan(path).bytes_per_row == pytest.approx(plain.nbytes / 256, rel=0.15, abs=18)


@pytest.mark.parametrize("options", [{"row_group_size": 20}, {"dictionary_pagesize_limit": 100, "data_page_size": 100}])
def test_a_sample_of_several_row_groups_and_of_dictionaries_that_overflow_is_measured(
    tmp_path: Path, options: dict[str, int]
) -> None:
    """Rather than taken for damaged, which would make units by their stored size."""
    path = str(tmp_path / "a.parquet")
    lists = pa.array([[f"text {i} " * 20, f"text {i % 3} " * 20] for i in range(400)])
    pq.write_table(pa.table({"documents": lists, "flat": lists.flatten()[:400]}), path, write_batch_size=8, **options)
    plain = next(pq.ParquetFile(path).iter_batches(batch_size=256))
    assert read_plan(path).bytes_per_row == pytest.approx(plain.nbytes / 256, rel=0.05)


def test_only_the_columns_that_are_asked_for_count(tmp_path: Path) -> None:
    path = str(write_small(tmp_path / "a.parquet", text=pa.chunked_array([["ab"] * 100]), payload=long_text(100)))
    metadata = pq.read_metadata(path)
    assert bytes_per_row(path, metadata, 256, [0], ["text"]) < 10
    sample = Sample(path, 256, (0,), ("text",), nothing_besides, ("text",))
    assert most_bytes(metadata, sample) < MEGABYTE
