"""A job from its input to its output, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.conftest import RunJob
from tests.jobs.stubs import stub_score
from tests.jobs.tables import (
    assert_nothing_left_over,
    assert_summary_adds_up,
    lists_table,
    read_output,
    wide_table,
    write_input,
)

pytestmark = pytest.mark.usefixtures("cluster")


def test_lists_of_texts_come_out_ranked_one_row_for_each_row_in_in_order(tmp_path: Path, run_job: RunJob) -> None:
    table = wide_table(100)
    source = write_input(tmp_path / "in", a=table)
    output = tmp_path / "out"
    summary = run_job(source, output, replicas=(2, 2))
    answered = read_output(output)
    assert answered.select(table.column_names).equals(table)
    for row in answered.to_pylist():
        expected = sorted((-stub_score(row["query"], document), i) for i, document in enumerate(row["documents"]))
        assert [(-one["relevance_score"], one["index"]) for one in row["ranking"]] == expected
        assert row["error"] is None
    assert summary["parts"] == 4
    assert_summary_adds_up(output, summary, 100)
    assert_nothing_left_over(output)
