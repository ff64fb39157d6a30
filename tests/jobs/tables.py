"""Input tables for jobs, and what the output of one says, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.input.cutting import MIN_UNIT_BYTES
from jobs.output.parts import METADATA_KEY
from jobs.table.reasons import Reason
from tests.checkpoints import words

PADDING = "x" * (MIN_UNIT_BYTES // 40)
"""In each row it makes some 26 rows a unit, as long as the corpus is small."""


def queries(count: int, tag: str = "q") -> list[str]:
    """Distinct queries."""
    return [f"{tag}{i} {words(3, seed=i)}" for i in range(count)]


def lists_table(count: int, documents: int = 3, tag: str = "q") -> pa.Table:
    """`count` queries with `documents` short texts each."""
    return pa.table(
        {
            "query_id": [f"{tag}{i}" for i in range(count)],
            "query": queries(count, tag),
            "documents": [[words(6, seed=1000 * i + j) for j in range(documents)] for i in range(count)],
        }
    )


def wide_table(count: int, tag: str = "q") -> pa.Table:
    """Like `lists_table`, with a column that makes some 26 rows a unit."""
    return lists_table(count, tag=tag).append_column("padding", pa.array([PADDING] * count))


def write_input(directory: Path, **tables: pa.Table) -> Path:
    """`<name>.parquet` for each table; returns `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, directory / f"{name}.parquet")
    return directory


def write_too_large(path: Path) -> Path:
    """A file of a kilobyte, of rows of 16 MB of a fixed width, which no reader has as a dictionary; returns `path`."""
    row = pa.array([b"x" * (16 << 20)], pa.binary(16 << 20))
    lists, payload = pa.chunked_array([[["d"]] * 256]), pa.chunked_array([row] * 256)
    table = pa.table({"query": ["q"] * 256, "documents": lists, "payload": payload})
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    return path


def parts(output: Path) -> list[Path]:
    """The parts of a job, in the order of their names: file by file, row by row."""
    return sorted(output.glob("part-*.parquet"))


def read_output(output: Path) -> pa.Table:
    """All parts, which need the same schema."""
    return pa.concat_tables([pq.read_table(part) for part in parts(output)])


def rows_of_output(output: Path) -> list[dict[str, Any]]:
    """All rows, whatever the schemas of their parts."""
    return [row for part in parts(output) for row in pq.read_table(part).to_pylist()]


def footers(output: Path) -> list[dict[str, Any]]:
    """The counts that each part carries."""
    return [json.loads(pq.read_metadata(part).metadata[METADATA_KEY]) for part in parts(output)]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def names(output: Path) -> list[str]:
    """Everything in a directory and below it, hidden files too."""
    return sorted(str(path.relative_to(output)) for path in output.rglob("*"))


def assert_nothing_left_over(output: Path) -> None:
    """Neither temporaries nor a lease: only parts, manifest, summary and the attempts' records."""
    left = [path for path in names(output) if not path.startswith(("part-", "_attempts"))]
    assert left == ["_manifest.json", "_summary.json"]
    assert not [path for path in names(output) if path.split("/")[-1].startswith(".")]


def assert_summary_adds_up(output: Path, summary: dict[str, Any], rows: int) -> None:
    """The summary is the sum of the footers, and the footers say what the rows say."""
    counts = footers(output)
    read = rows_of_output(output)
    assert len(read) == rows
    assert summary["parts"] == len(counts)
    for name in ("rows", "pairs", "chunks", "tokens", "cut_queries", "cut_documents"):
        assert summary[name] == sum(one[name] for one in counts)
    assert summary["rows"] == rows
    assert summary["rows_with_errors"] == sum(row["error"] is not None for row in read)
    assert sum(summary["errors"].values()) == summary["rows_with_errors"]
    assert set(summary["errors"]) <= set(Reason)
    assert read_json(output / "_summary.json") == summary


def select_rows(table: pa.Table, picked: Sequence[int]) -> pa.Table:
    return table.take(pa.array(picked))
