"""Jobs over a part of the rows: the first ones, a share, those that pass; and the columns that directories name."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from jobs.errors import RefusedError, StoppedError
from jobs.input.conditions import parse_condition
from jobs.input.shards import SLICE_BYTES, Shard
from jobs.output.parts import write_part
from jobs.records import Counts, Unit
from jobs.table.columns import ColumnMapping
from pipelines.errors import ConfigError
from tests.jobs.conftest import RunJob
from tests.jobs.stubs import POISON, PoisonScorer, RecordingScorer
from tests.jobs.tables import (
    assert_summary_adds_up,
    footers,
    lists_table,
    names,
    parts,
    read_json,
    rows_of_output,
    wide_table,
    write_input,
)


def numbered(start: int, count: int) -> pa.Table:
    """Some 26 rows a unit, with `number` from `start` and `day` of ten numbers each."""
    numbers = range(start, start + count)
    table = wide_table(count).append_column("number", pa.array(numbers))
    return table.append_column("day", pa.array([f"2026-11-{1 + number // 10:02d}" for number in numbers]))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Numbers 0 to 99 in row groups of ten, then 100 to 129 in one."""
    source = write_input(tmp_path / "in", b=numbered(100, 30))
    pq.write_table(numbered(0, 100), source / "a.parquet", row_group_size=10)
    return source


def numbers_of(output: Path) -> list[int]:
    """In the order of the parts, with an answer each."""
    rows = rows_of_output(output)
    assert all(row["error"] is None and len(row["ranking"]) == 3 for row in rows)
    return [row["number"] for row in rows]


def where(*conditions: str) -> dict[str, Any]:
    return {"where": tuple(map(parse_condition, conditions))}


BOUNDS: list[tuple[dict[str, Any], list[int]]] = [
    ({"limit": 27}, list(range(27))),
    ({"limit": 103}, list(range(103))),
    (where("number >= 15", "number != 20", "number < 107"), [*range(15, 20), *range(21, 107)]),
    ({"limit": 50, **where("number in 7, 49, 50, 120")}, [7, 49]),
]


@pytest.mark.parametrize(("bounds", "expected"), BOUNDS, ids=lambda value: str(list(value))[:30])
def test_a_bounded_job_stopped_and_resumed_ranks_its_rows_once(
    source: Path, output: Path, cluster: str, run_job: RunJob, bounds: dict[str, Any], expected: list[int]
) -> None:
    summary = run_job(source, output, **bounds)
    assert numbers_of(output) == expected
    assert_summary_adds_up(output, summary, len(expected))
    before = {part.name: part.read_bytes() for part in parts(output)}
    (output / "_summary.json").unlink()
    parts(output)[0].unlink()
    resumed = run_job(source, output, **bounds)
    assert {part.name: part.read_bytes() for part in parts(output)} == before
    assert resumed["rows"] + resumed["rows_left_out"] == bounds.get("limit", 130)
    assert resumed["rows_not_read"] == 0
    assert [attempt["units"] for attempt in resumed["attempts"]] == [len(before), 1]


@pytest.mark.slow
def test_shares_of_runs_between_which_files_come_make_up_the_input(
    source: Path, tmp_path: Path, cluster: str, run_job: RunJob
) -> None:
    """Every share has its rows of the files it saw; repeated, it has them of all, and together they are the whole."""
    (source / "b.parquet").rename(tmp_path / "b.parquet")
    outputs = [tmp_path / f"out{number}" for number in (1, 2, 3)]
    for number, output in enumerate(outputs, start=1):
        if number == 2:
            (tmp_path / "b.parquet").rename(source / "b.parquet")
            write_input(source, c=pa.concat_tables([numbered(130, 300)] * 4))
        run_job(source, output, shard=Shard(number, 3))
    summaries = [run_job(source, output, shard=Shard(i, 3)) for i, output in enumerate(outputs, start=1)]
    assert sorted(number for output in outputs for number in numbers_of(output)) == sorted(
        [*range(130), *[*range(130, 430)] * 4]
    )
    for output, summary in zip(outputs, summaries, strict=True):
        assert_summary_adds_up(output, summary, len(numbers_of(output)))
    every_part = [str(part) for output in outputs for part in parts(output)]
    assert len({Path(part).name for part in every_part}) == len(every_part)
    assert pyarrow.dataset.dataset(every_part).count_rows() == 1_330


@pytest.mark.slow
def test_rows_that_kill_their_replica_are_found_among_those_that_pass(
    tmp_path: Path, output: Path, cluster: str, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.workers.quarantine.PAUSE_SECONDS", 0.01)
    table = numbered(0, 30)
    queries = table["query"].to_pylist()
    queries[3], queries[25] = POISON, POISON
    source = write_input(tmp_path / "in", a=table.set_column(1, "query", pa.array(queries)))
    summary = run_job(source, output, scorer_class=PoisonScorer, **where("number >= 20"))
    assert_summary_adds_up(output, summary, 10)
    assert summary["errors"] == {"killed_replica": 1}
    assert [row["number"] for row in rows_of_output(output) if row["error"] is not None] == [25]
    assert summary["rows_left_out"] == 20


def test_columns_of_directories_come_out_and_are_filtered_on(
    tmp_path: Path, output: Path, cluster: str, run_job: RunJob
) -> None:
    tree = tmp_path / "in"
    for i, (day, lang) in enumerate([(1, "de"), (1, "en"), (2, "de"), (3, "fr")]):
        write_input(tree / f"day={day}" / f"lang={lang}", x=lists_table(4, tag=f"{i}."))
    summary = run_job(tree, output, mapping=ColumnMapping(drop=("lang",)), **where("day <= 2", "lang = de"))
    rows = rows_of_output(output)
    assert sorted((row["query_id"], row["day"]) for row in rows) == [
        (f"{i}.{j}", day) for i, day in ((0, 1), (2, 2)) for j in range(4)
    ]
    assert list(rows[0]) == ["query_id", "query", "documents", "day", "ranking", "error"]
    assert (summary["rows_left_out"], summary["parts"]) == (8, 2)


@pytest.mark.usefixtures("without_ray")
class TestWithoutRay:
    """What Ray adds nothing to."""

    def test_units_that_statistics_exclude_are_not_in_the_plan(
        self, source: Path, output: Path, run_job: RunJob, said: StringIO
    ) -> None:
        """Of the first file one unit of two row groups is left, of the other file all: it has one row group."""
        summary = run_job(source, output, scorer_class=RecordingScorer, **where("number >= 95", "number <= 101"))
        assert [(one["unit"]["start"], one["rows"], one["rows_left_out"]) for one in footers(output)] == [
            (80, 5, 15),
            (0, 2, 13),
            (15, 0, 15),
        ]
        assert summary["rows_left_out"] == 123
        assert "80 of the rows are in no unit: --where leaves out their row groups" in said.getvalue()

    def test_a_unit_without_a_row_that_passes_has_a_part_without_rows(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        """Only reading can tell: each value lies within its row group's range."""
        summary = run_job(source, output, **where("day = 2026-11-12", "number = 105"))
        assert [pq.read_metadata(part).num_rows for part in parts(output)] == [0, 0]
        assert pq.read_schema(parts(output)[0]).names[-2:] == ["ranking", "error"]
        assert_summary_adds_up(output, summary, 0)
        assert summary["rows_left_out"] == 130
        before = read_json(output / "_summary.json")
        assert run_job(source, output, **where("number = 105", "day = 2026-11-12")) == before

    @pytest.mark.parametrize(
        ("first", "second", "named"),
        [
            ({"limit": 5}, {"limit": 6}, "--limit was 5, is 6"),
            ({"limit": 5}, {}, "--limit was 5, is None"),
            ({"shard": Shard(1, 2)}, {"shard": Shard(2, 2)}, "--shard was '1/2', is '2/2'"),
            ({}, where("number = 1"), r"--where was None, is \['number = 1'\]"),
            (where("number = 1"), where("number = 2"), r"--where was \['number = 1'\], is \['number = 2'\]"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_other_bounds_are_refused_with_both_values(
        self,
        source: Path,
        output: Path,
        run_job: RunJob,
        first: dict[str, Any],
        second: dict[str, Any],
        named: str,
    ) -> None:
        run_job(source, output, **first)
        before = names(output)
        with pytest.raises(RefusedError, match=f"OUTPUT was begun with other settings: {named}; give the same"):
            run_job(source, output, **second)
        assert names(output) == before

    def test_files_that_come_later_get_what_is_left_of_the_limit(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        (source / "a.parquet").unlink()
        run_job(source, output, limit=40)
        assert numbers_of(output) == list(range(100, 130))
        write_input(source, a=numbered(0, 8), c=numbered(200, 8))
        assert run_job(source, output, limit=40)["rows"] == 40
        assert sorted(numbers_of(output)) == [*range(8), *range(100, 130), 200, 201]

    def test_a_share_of_nothing_is_a_finished_job_without_parts(
        self, tmp_path: Path, output: Path, run_job: RunJob
    ) -> None:
        source = write_input(tmp_path / "in", a=lists_table(4))
        assert (source / "a.parquet").stat().st_size < SLICE_BYTES
        rows = [run_job(source, tmp_path / f"out{i}", shard=Shard(i, 3))["rows"] for i in (1, 2, 3)]
        assert sorted(rows) == [0, 0, 4]

    @pytest.mark.parametrize(
        ("condition", "message"),
        [
            ("lnag = de", r"--where 'lnag = de': there is no column `lnag`; there are `day`, `documents`, `number`"),
            (
                "number > many",
                r"--where 'number > many': `number` of .*a.parquet is int64, and 'many' is no such value",
            ),
            (
                "documents = a",
                r"--where 'documents = a': `documents` of .*a.parquet is list<.*>; conditions can be put",
            ),
        ],
    )
    def test_a_condition_that_cannot_hold_is_a_usage_error_and_touches_nothing(
        self, source: Path, output: Path, run_job: RunJob, condition: str, message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            run_job(source, output, **where(condition))
        assert not output.exists()

    def test_a_file_without_the_column_has_no_row_that_passes(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        write_input(source, c=lists_table(5))
        summary = run_job(source, output, **where("number != 0"))
        assert numbers_of(output) == list(range(1, 130))
        assert (summary["rows_left_out"], summary["rows_not_read"]) == (6, 0)

    def test_rows_of_views_are_filtered_too(self, tmp_path: Path, output: Path, run_job: RunJob) -> None:
        table = numbered(0, 10)
        views = table["query"].cast(pa.string_view())
        source = write_input(tmp_path / "in", a=table.set_column(1, "query", views))
        run_job(source, output, **where("number in 3, 4, 8"))
        assert numbers_of(output) == [3, 4, 8]

    def test_new_directories_may_add_a_column_and_not_another_type(
        self, tmp_path: Path, output: Path, run_job: RunJob
    ) -> None:
        tree = tmp_path / "in"
        write_input(tree / "day=1", x=lists_table(2))
        run_job(tree, output)
        write_input(tree / "day=2" / "lang=de", x=lists_table(2))
        run_job(tree, output)
        assert read_json(output / "_manifest.json")["options"]["partitions"] == {"day": "int32", "lang": "string"}
        assert {(row["day"], row.get("lang")) for row in rows_of_output(output)} == {(1, None), (2, "de")}
        before = names(output)
        write_input(tree / "day=x", x=lists_table(2))
        with pytest.raises(RefusedError, match="partition column 'day' was int32"):
            run_job(tree, output)
        assert names(output) == before

    def test_the_same_files_without_their_directories_are_refused(
        self, tmp_path: Path, output: Path, run_job: RunJob
    ) -> None:
        write_input(tmp_path / "in" / "day=1", x=lists_table(2))
        run_job(tmp_path / "in", output)
        with pytest.raises(
            RefusedError, match=r"the partition columns were \['day'\], and with this INPUT they are \[\]"
        ):
            run_job(tmp_path / "in" / "day=1", output)

    def test_a_directory_named_as_an_added_column_is_a_usage_error(
        self, tmp_path: Path, output: Path, run_job: RunJob
    ) -> None:
        write_input(tmp_path / "in" / "error=1", x=lists_table(2))
        with pytest.raises(ConfigError, match="the input has a column `error` and the output adds one"):
            run_job(tmp_path / "in", output)

    def test_a_part_that_lacks_rows_stops_the_summary(self, source: Path, output: Path, run_job: RunJob) -> None:
        bounds = where("number < 20")
        run_job(source, output, **bounds)
        (output / "_summary.json").unlink()
        part = parts(output)[0]
        table = pq.read_table(part)
        pq.write_table(table.slice(1), part)
        with pytest.raises(StoppedError, match="is not a part of this job"):
            run_job(source, output, **bounds)


def test_a_part_takes_exactly_the_rows_that_were_read(tmp_path: Path) -> None:
    unit, table = Unit("/in/a.parquet", 0, 10), pa.table({"a": range(4)})
    counts = write_part(str(tmp_path), "f", unit, 4, table, Counts(rows=4))
    assert (counts.rows, counts.rows_left_out) == (4, 6)
    for rows, counted in ((5, 4), (4, 5), (10, 10)):
        with pytest.raises(StoppedError, match="please report this bug"):
            write_part(str(tmp_path), "f", unit, rows, table, Counts(rows=counted))


def test_settings_refuse_what_cannot_work(settings_of: Callable[..., Any]) -> None:
    for settings, message in (
        ({"limit": 0}, "--limit is 0; it is at least 1 row, or left out for all"),
        ({"price": 2.0}, "--price is 2; only a dry run makes use of it: give --dry-run too"),
        ({"dry_run": True, "price": -1.0}, "--price is -1; a replica for an hour costs 0 or more"),
        ({"dry_run": True, "pairs_per_second": 0.0}, "--pairs-per-second is 0; a replica scores more than 0"),
        ({"dry_run": True, "app": "a", "replicas": None}, "--dry-run with --app a: it uses this machine alone"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings_of("in", "out", **settings)


def test_conditions_that_no_row_passes_are_said_with_the_values_that_there_are(
    source: Path, tmp_path: Path, run_job: RunJob, said: StringIO
) -> None:
    (source / "lang=de").mkdir()
    (source / "a.parquet").rename(source / "lang=de" / "a.parquet")
    summary = run_job(source, tmp_path / "out", **where("day = 2026-12-01", "lang = en", "number >= 0"))
    assert (summary["rows"], summary["rows_left_out"]) == (0, 130)
    days = "'2026-11-11', '2026-11-12', '2026-11-13', '2026-11-01', '2026-11-02', ..."
    assert f"no row passes: --where 'day = 2026-12-01'; the first values of `day` are {days}" in said.getvalue()
    assert "no row passes: --where 'lang = en'; the first values of `lang` are 'de'\n" in said.getvalue()
