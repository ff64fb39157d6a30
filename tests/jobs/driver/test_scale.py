"""A corpus larger than the memory a job may use."""

from __future__ import annotations

from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.conftest import RunJob
from tests.jobs.stubs import SlowScorer
from tests.jobs.tables import assert_summary_adds_up

MEBIBYTE = 1 << 20


@pytest.mark.slow
def test_three_times_the_object_store_is_ranked_in_bounded_memory(
    tmp_path: Path, cluster: str, run_job: RunJob
) -> None:
    """600 MiB of decoded rows, an object store of 200 MiB, and a driver that holds none of them."""
    source = tmp_path / "in"
    source.mkdir()
    for i in range(3):
        padding = pa.array([chr(97 + i) * (2 * MEBIBYTE)] * 100)
        table = pa.table({"query": [f"q{i}-{j}" for j in range(100)], "documents": [["a", "b"]] * 100, "pad": padding})
        pq.write_table(table, source / f"{i}.parquet", row_group_size=10)
    before = psutil.Process().memory_info().rss

    summary = run_job(source, tmp_path / "out", scorer_class=SlowScorer, replicas=(2, 2))

    assert_summary_adds_up(tmp_path / "out", summary, 300)
    assert summary["parts"] == 300
    assert psutil.Process().memory_info().rss - before < 300 * MEBIBYTE
