"""Whole jobs that make lists of pair rows in any order."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import jobs.joins.groups.grouping
import jobs.joins.groups.stage
import jobs.joins.groups.steps
from jobs.audit.facts import look
from jobs.audit.integrity import verify
from jobs.driver.dry_run import dry_run
from jobs.errors import RefusedError, StoppedError
from jobs.input.conditions import parse_condition
from jobs.input.corpus import Corpus
from jobs.input.shards import Shard
from jobs.settings import RerankSettings
from jobs.storage.local import LocalDisk
from jobs.table.columns import ColumnMapping, GroupBy, Layout
from pipelines.errors import ConfigError
from tests.checkpoints import words
from tests.jobs import drive
from tests.jobs.conftest import RunJob
from tests.jobs.driver.test_states import StopAfter
from tests.jobs.stubs import run_stage_here, stub_score
from tests.jobs.tables import assert_summary_adds_up, names, parts, read_json, read_output, rows_of_output, write_input
from tests.jobs.workers.test_death import wait_until
from tests.stores import Bucket, upload

BY_QUERY = GroupBy("query_id")


def pair(query: int, document: int) -> dict[str, Any]:
    return {
        "query_id": f"q{query}",
        "query": f"q{query} {words(3, seed=query)}",
        "document_id": f"d{query}.{document}",
        "document": words(5, seed=1000 * query + document),
        "bm25": 10.0 - document,
    }


def pairs(queries: int, documents: int, seed: int = 0) -> list[dict[str, Any]]:
    """All pairs, shuffled."""
    rows = [pair(query, document) for query in range(queries) for document in range(documents)]
    random.Random(seed).shuffle(rows)
    return rows


def write_rows(directory: Path, rows: list[dict[str, Any]], cuts: list[int]) -> Path:
    """The rows in files that end before each of the cuts."""
    ends = [0, *sorted(cuts), len(rows)]
    schema = pa.Table.from_pylist(rows).schema
    tables = [pa.Table.from_pylist(rows[start:end], schema) for start, end in itertools.pairwise(ends)]
    return write_input(directory, **{f"f{i}": table for i, table in enumerate(tables)})


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pieces, and several buckets in shares."""
    monkeypatch.setattr(jobs.joins.groups.stage, "PIECE_BYTES", 3_000)
    monkeypatch.setattr(jobs.joins.groups.stage, "BUCKET_BYTES", 2_000)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in", pairs(40, 5), [90, 150])


def assert_lists(output: Path, rows: list[dict[str, Any]]) -> None:
    """One row for each query, with its pairs in the order of the rows, ranked."""
    found = {row["query_id"]: row for row in rows_of_output(output)}
    assert len(found) == len(rows_of_output(output))
    assert found.keys() == {row["query_id"] for row in rows}
    for query_id, row in found.items():
        mine = [one for one in rows if one["query_id"] == query_id]
        assert row["query"] == mine[0]["query"]
        wanted = [{"id": one["document_id"], "text": one["document"], "bm25": one["bm25"]} for one in mine]
        assert row["documents"] == wanted
        scores = [stub_score(row["query"], one["text"]) for one in wanted]
        best_first = sorted(range(len(scores)), key=lambda i, scores=scores: -scores[i])  # type: ignore[misc]
        assert [one["index"] for one in row["ranking"]] == best_first
        assert [one["id"] for one in row["ranking"]] == [wanted[i]["id"] for i in best_first]
        assert row["error"] is None


def test_pairs_in_any_order_become_a_ranked_list_for_each_query(
    source: Path, output: Path, run_job: RunJob, without_ray: None, said: StringIO
) -> None:
    summary = run_job(source, output, group_by=BY_QUERY)
    assert_lists(output, pairs(40, 5))
    assert (summary["rows"], summary["pairs"]) == (40, 200)
    assert_summary_adds_up(output, summary, 40)
    assert read_output(output).column_names == ["query_id", "query", "documents", "ranking", "error"]
    assert "grouping: 200 pairs into" in said.getvalue()
    assert verify(look(str(output))) == []
    assert not list(output.glob("_grouped/*/pairs"))
    assert len(list(output.glob("_grouped/*/lists/*"))) > 1


@given(data=st.data())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_any_cut_into_files_give_the_same_lists(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, run_job: RunJob, without_ray: None
) -> None:
    rows = data.draw(st.permutations(pairs(6, 4)))
    directory = tmp_path_factory.mktemp("job")
    cuts = data.draw(st.lists(st.integers(1, len(rows) - 1), max_size=4, unique=True))
    run_job(write_rows(directory / "in", rows, cuts), directory / "out", group_by=BY_QUERY)
    assert_lists(directory / "out", rows)


def test_on_ray_it_is_the_same(source: Path, output: Path, cluster: str, run_job: RunJob) -> None:
    run_job(source, output, group_by=BY_QUERY)
    assert_lists(output, pairs(40, 5))


def test_in_a_store_it_is_the_same(
    source: Path, output: Path, run_job: RunJob, without_ray: None, s3_bucket: Bucket
) -> None:
    run_job(source, output, group_by=BY_QUERY)
    run_job(upload(source, s3_bucket, "in"), f"{s3_bucket.uri}/out", group_by=BY_QUERY)
    there = [name for name in s3_bucket.names() if name.startswith("out/part-")]
    remote = [row for name in there for row in pq.read_table(pa.BufferReader(s3_bucket.get(name))).to_pylist()]
    key = lambda row: row["query_id"]  # noqa: E731
    assert sorted(remote, key=key) == sorted(rows_of_output(output), key=key)


def test_a_rank_orders_each_list_and_ties_keep_the_order_of_the_rows(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    ranks = [3, None, 1, 2, 1]
    rows = [pair(0, i) | {"rank": rank} for i, rank in enumerate(ranks)]
    run_job(write_rows(tmp_path / "in", rows, [2]), output, group_by=BY_QUERY)
    assert [one["rank"] for one in rows_of_output(output)[0]["documents"]] == [1, 1, 2, 3, None]
    assert [one["id"] for one in rows_of_output(output)[0]["documents"]] == ["d0.2", "d0.4", "d0.3", "d0.0", "d0.1"]


def test_groups_by_the_query_itself_need_no_id(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    rows = [{"query": query, "document": f"{i}"} for i, query in enumerate(["a", "b", "a"])]
    run_job(write_rows(tmp_path / "in", rows, []), output, group_by=GroupBy("query"), top_n=1)
    assert read_output(output).column_names == ["query", "documents", "ranking", "error"]
    assert {row["query"]: len(row["documents"]) for row in rows_of_output(output)} == {"a": 2, "b": 1}
    assert all(len(row["ranking"]) == 1 for row in rows_of_output(output))


def test_pairs_that_belong_to_no_list_are_rows_with_errors_and_none_is_lost(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    rows = pairs(5, 4)
    rows[3] |= {"query_id": None}
    rows[7] |= {"query_id": None}
    of_first = next(i for i, row in enumerate(rows) if row["query_id"] == "q1" and i > 8)
    rows[of_first] |= {"query": "another"}
    source = write_rows(tmp_path / "in", rows, [])
    summary = run_job(source, output, group_by=BY_QUERY)
    assert summary["errors"] == {"different_queries": 1, "null_group": 2}
    assert sum(len(row["documents"]) for row in rows_of_output(output)) == len(rows)
    errors = sorted(row["error"] for row in rows_of_output(output) if row["error"])
    first = next(i for i, row in enumerate(rows) if row["query_id"] == "q1")
    assert errors[1:] == [f"null_group: query_id is null in row {i} of {source}/f0.parquet" for i in (3, 7)]
    assert f"different_queries: query_id 'q1' has different queries in row {first} of {source}/f0.parquet" in errors[0]
    assert all((row["ranking"] is None) == (row["error"] is not None) for row in rows_of_output(output))


def test_a_group_that_does_not_fit_into_memory_is_its_own_error_alone(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.joins.groups.grouping, "GROUP_BYTES", 3_000)
    monkeypatch.setattr(jobs.joins.groups.steps, "GROUP_BYTES", 3_000)
    rows = pairs(10, 4) + [pair(99, i) for i in range(200)]
    random.Random(1).shuffle(rows)
    summary = run_job(write_rows(tmp_path / "in", rows, [100]), output, group_by=BY_QUERY)
    assert summary["errors"] == {"group_too_large": 1}
    wrong = next(row for row in rows_of_output(output) if row["error"])
    assert wrong["query_id"] == "q99"
    assert wrong["documents"] is None
    assert wrong["error"].startswith("group_too_large: query_id 'q99' has 200 pairs of ")
    assert (summary["rows"], summary["pairs"]) == (11, 40)


def test_a_part_of_the_pairs_and_shares_of_the_groups(
    source: Path, tmp_path: Path, run_job: RunJob, without_ray: None
) -> None:
    run_job(source, tmp_path / "part", group_by=BY_QUERY, limit=120, where=(parse_condition("bm25 > 7"),))
    rows = [row for row in pairs(40, 5)[:120] if row["bm25"] > 7]
    assert_lists(tmp_path / "part", rows)
    shares = []
    for number in (1, 2, 3):
        run_job(source, tmp_path / f"{number}", group_by=BY_QUERY, shard=Shard(number, 3))
        shares.append({row["query_id"]: len(row["documents"]) for row in rows_of_output(tmp_path / f"{number}")})
    assert all(shares)
    assert sum(map(len, shares)) == 40
    assert dict.fromkeys(shares[0] | shares[1] | shares[2], 5) == shares[0] | shares[1] | shares[2]


def test_a_job_that_leaves_out_all_pairs_ends_well(
    source: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    summary = run_job(source, output, group_by=BY_QUERY, where=(parse_condition("query_id = none"),))
    assert summary["rows"] == 0


def test_names_of_columns_and_directories_and_dropped_columns(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    table = pa.table(
        {"topic": [2, 1, 2], "q": ["x", "y", "x"], "pid": [7, 8, 9], "body": ["a", "b", "c"], "z": [1, 2, 3]}
    )
    write_input(tmp_path / "in" / "day=3", a=table)
    mapping = ColumnMapping(query="q", document_id="pid", document="body", drop=("z",))
    run_job(tmp_path / "in", output, group_by=GroupBy("topic"), mapping=mapping)
    rows = {row["topic"]: row for row in rows_of_output(output)}
    assert rows[2]["documents"] == [{"id": "7", "text": "a", "day": 3}, {"id": "9", "text": "c", "day": 3}]
    assert read_output(output).schema.field("topic").type == pa.int64()


def test_ids_and_a_corpus_make_lists_with_texts(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    rows = [{name: row[name] for name in ("query_id", "query", "document_id")} for row in pairs(6, 4)]
    texts = [{"id": row["document_id"], "text": row["document"]} for row in pairs(6, 4)][:-1]
    corpus = Corpus(str(write_input(tmp_path / "corpus", a=pa.Table.from_pylist(texts))))
    summary = run_job(write_rows(tmp_path / "in", rows, [9]), output, group_by=BY_QUERY, corpus=corpus)
    assert summary["errors"] == {"unknown_document": 1}
    by_id = {one["id"]: one["text"] for one in texts}
    for row in rows_of_output(output):
        for one in row["ranking"] or []:
            assert one["relevance_score"] == pytest.approx(stub_score(row["query"], by_id[one["id"]]))


def stop(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """The stage fails when it has done so many pieces of work."""
    real, done = getattr(jobs.joins.groups.steps, name), []

    def failing(*arguments: Any) -> None:
        if len(done) == after:
            raise StoppedError("stopped by the test")
        done.append(real(*arguments))

    monkeypatch.setattr(jobs.joins.groups.steps, name, failing)


@pytest.mark.parametrize(("stage", "place"), [("cut_piece", "pairs"), ("group_bucket", "lists")])
def test_a_stage_that_was_stopped_goes_on_with_what_is_missing(
    source: Path, output: Path, run_job: RunJob, without_ray: None, stage: str, place: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop(patch, stage, after=3)
        with pytest.raises(StoppedError, match="stopped by the test"):
            run_job(source, output, group_by=BY_QUERY)
    finished = {path.name: path.stat().st_mtime_ns for path in output.glob(f"_grouped/*/{place}/*")}
    assert len(finished) == 3
    done: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        real = getattr(jobs.joins.groups.steps, stage)
        patch.setattr(jobs.joins.groups.steps, stage, lambda grouping, one: (done.append(one), real(grouping, one)))
        run_job(source, output, group_by=BY_QUERY)
    assert finished.keys().isdisjoint({one.name for one in done})
    assert_lists(output, pairs(40, 5))


def test_complete_and_nothing_new_changes_nothing(
    source: Path, output: Path, run_job: RunJob, without_ray: None, said: StringIO
) -> None:
    run_job(source, output, group_by=BY_QUERY)
    before = names(output)
    run_job(source, output, group_by=BY_QUERY)
    assert "is complete" in said.getvalue()
    assert names(output) == before


def test_a_missing_part_is_scored_again_from_the_lists(
    source: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    run_job(source, output, group_by=BY_QUERY)
    before = {part.name: part.read_bytes() for part in parts(output)}
    parts(output)[0].unlink()
    run_job(source, output, group_by=BY_QUERY)
    assert {part.name: part.read_bytes() for part in parts(output)} == before


@pytest.mark.parametrize("change", ["is new", "was removed", "has changed"])
def test_an_input_that_has_changed_is_refused(
    source: Path, output: Path, run_job: RunJob, without_ray: None, change: str
) -> None:
    run_job(source, output, group_by=BY_QUERY)
    if change == "was removed":
        (source / "f1.parquet").unlink()
    else:
        file = source / ("f9.parquet" if change == "is new" else "f1.parquet")
        pq.write_table(pa.Table.from_pylist(pairs(2, 2)), file)
    with pytest.raises(RefusedError, match=rf"input file .*parquet {change} since pairs were grouped"):
        run_job(source, output, group_by=BY_QUERY)
    run_job(source, output, group_by=BY_QUERY, overwrite=True)


def test_other_groups_or_none_are_refused(source: Path, output: Path, run_job: RunJob, without_ray: None) -> None:
    run_job(source, output, group_by=BY_QUERY)
    with pytest.raises(RefusedError, match=r"group_by was \{'column': 'query_id', .*\}, is \{'column': 'query', "):
        run_job(source, output, group_by=GroupBy("query"))
    with pytest.raises(RefusedError, match=r"group_by was \{.*\}, is None"):
        run_job(source, output)


def test_overwriting_leaves_nothing_of_the_groups(
    source: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    run_job(source, output, group_by=BY_QUERY)
    summary = run_job(source, output, overwrite=True)
    assert summary["rows"] == 200
    assert not (output / "_grouped").exists()


OTHER_PAIRS = {"where": (parse_condition("bm25 > 7"),)}
"""Makes another job of the same input and groups, whose files below `_grouped` have the same names."""


def run_other_job(run_job: RunJob, source: Path, output: Path) -> None:
    """Takes over OUTPUT for another job, and checks that nothing of the job before is in it."""
    run_job(source, output, group_by=BY_QUERY, overwrite=True, **OTHER_PAIRS)
    assert_lists(output, [row for row in pairs(40, 5) if row["bm25"] > 7])
    assert len(list((output / "_grouped").iterdir())) == 1
    assert verify(look(str(output))) == []


def test_lists_that_workers_of_another_job_write_late_are_not_taken(
    source: Path, output: Path, run_job: RunJob, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They outlive their driver, and go on when OUTPUT was overwritten and the new job has planned its pieces."""
    late: list[Any] = []

    def remember(*work: Any) -> None:
        late.append(work)
        run_stage_here(*work)

    def after_the_late(*work: Any) -> None:
        while late:
            stage, argument, items = late.pop(0)
            for place in ("pairs", "lists"):
                Path(argument.directory, place).mkdir(parents=True, exist_ok=True)  # where there are no directories
            run_stage_here(stage, argument, items)
        run_stage_here(*work)

    monkeypatch.setattr(jobs.joins.groups.stage, "run_stage", remember)
    run_job(source, output, group_by=BY_QUERY)
    assert len(late) == 2
    monkeypatch.setattr(jobs.joins.groups.stage, "run_stage", after_the_late)
    run_other_job(run_job, source, output)
    assert late == []


def test_lists_of_another_job_that_could_not_be_removed_are_not_taken(
    source: Path, output: Path, run_job: RunJob, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(source, output, group_by=BY_QUERY)
    with monkeypatch.context() as patch:
        patch.setattr(LocalDisk, "remove_below", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            run_job(source, output, StopAfter(0), group_by=BY_QUERY, overwrite=True, **OTHER_PAIRS)
    run_job(source, output, group_by=BY_QUERY, **OTHER_PAIRS)
    assert_lists(output, [row for row in pairs(40, 5) if row["bm25"] > 7])
    assert len(list((output / "_grouped").iterdir())) == 1


def test_an_output_whose_groups_an_earlier_version_made_goes_on(
    source: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    """It had no directory of its own for a job, and its manifest names none."""
    run_job(source, output, group_by=BY_QUERY)
    [stage] = (output / "_grouped").iterdir()
    for path in stage.iterdir():
        path.rename(output / "_grouped" / path.name)
    stage.rmdir()
    manifest = read_json(output / "_manifest.json")
    del manifest["grouped"]
    for file in manifest["files"]:
        file["path"] = file["path"].replace(stage.name + "/", "")
    (output / "_manifest.json").write_text(json.dumps(manifest))
    for part in [output / "_summary.json", *parts(output)]:
        part.unlink()
    lists = finished_in(output, "_grouped/lists")
    run_job(source, output, group_by=BY_QUERY)
    assert_lists(output, pairs(40, 5))
    assert finished_in(output, "_grouped/lists") == lists


def test_a_file_that_cannot_be_read_stops_the_stage_since_groups_would_lack_its_pairs(
    source: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    (source / "f2.parquet").write_bytes(b"PAR1 it is not")
    with pytest.raises(ConfigError, match=r"f2\.parquet cannot be read .*, and groups would lack its pairs"):
        run_job(source, output, group_by=BY_QUERY)


def test_rows_that_are_no_pairs_are_a_usage_error(
    tmp_path: Path, output: Path, run_job: RunJob, without_ray: None
) -> None:
    source = write_input(tmp_path / "in", a=pa.table({"query_id": ["a"], "query": ["q"], "documents": [["d"]]}))
    with pytest.raises(
        ConfigError, match=r"--group-by takes pair rows, and .* has none: missing_column: column `document`"
    ):
        run_job(source, output, group_by=BY_QUERY)
    with pytest.raises(ConfigError, match="leave out --layout lists"):
        run_job(source, output, group_by=BY_QUERY, layout=Layout.LISTS)


def test_a_dry_run_counts_the_pairs(
    source: Path, output: Path, settings_of: Callable[..., RerankSettings], said: StringIO
) -> None:
    settings = settings_of(source, output, group_by=BY_QUERY, dry_run=True, pairs_per_second=100.0, top_n=3)
    estimate = dry_run(settings, Console(file=said))
    assert estimate["pairs"] == 200
    assert not output.exists()


def kill_at(driver: subprocess.Popen[str], output: Path, place: str, files: int) -> dict[str, tuple[int, int]]:
    """Kills the driver when a place of OUTPUT has so many files; returns which they are, and which copy of each."""
    with driver:
        wait_until(lambda: len(finished_in(output, place)) >= files, driver)
        driver.kill()
    return finished_in(output, place)


def finished_in(output: Path, place: str) -> dict[str, tuple[int, int]]:
    found = [path for path in output.glob(f"{place}/*.parquet") if not path.name.startswith(".")]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in found}


@pytest.mark.endurance
@pytest.mark.parametrize("seed", [1, 2])
def test_a_driver_killed_in_every_stage_loses_and_doubles_nothing(
    tmp_path: Path, output: Path, bert_directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """While it cuts, while it groups, while it scores; what is finished is not done again."""
    monkeypatch.setenv("TINY_PIECES", "4000")
    rows = pairs(150, 6, seed)
    source = write_rows(tmp_path / "in", rows, [300, 301, 700])
    moments = random.Random(seed)
    arguments = [source, output, "--model", bert_directory, "--replicas", "2", "--group-by", "query_id"]
    cells, lists, here = "_grouped/*/pairs", "_grouped/*/lists", "."
    cut = kill_at(drive.start("SlowScorer", *arguments), output, cells, moments.randint(1, 8))
    assert not list(output.glob("_grouped/*/lists.json"))
    made = kill_at(drive.start("SlowScorer", *arguments), output, lists, moments.randint(1, 8))
    assert {name: version for name, version in finished_in(output, cells).items() if name in cut} == cut
    scored = kill_at(drive.start("SlowScorer", *arguments), output, here, moments.randint(1, 8))
    assert {name: version for name, version in finished_in(output, lists).items() if name in made} == made
    with drive.start("SlowScorer", *arguments) as driver:
        told, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, told
    assert {name: version for name, version in finished_in(output, here).items() if name in scored} == scored
    assert_lists(output, rows)
    assert_summary_adds_up(output, json.loads((output / "_summary.json").read_text()), 150)


@pytest.mark.usefixtures("without_ray")
def test_bytes_stay_bytes(tmp_path: Path, output: Path, run_job: RunJob) -> None:
    """Since a text that is not UTF-8 would make its column unreadable for all rows of a part."""
    rows = {"query_id": [b"\xff", b"\xff", b"a"], "query": [b"q", b"q", b"\xfe"], "document": [b"d", b"\xfd", b"e"]}
    source = write_input(tmp_path / "in", a=pa.table(rows), b=pa.table({name: ["a"] for name in rows}))
    summary = run_job(source, output, group_by=BY_QUERY)
    assert summary["errors"] == {"invalid_utf8": 1, "different_queries": 1}
    found = sorted(rows_of_output(output), key=lambda row: row["query_id"])
    assert [(row["query_id"], row["query"]) for row in found] == [(b"a", b"\xfe"), (b"\xff", b"q")]
    assert [[one["text"] for one in row["documents"]] for row in found] == [[b"e", b"a"], [b"d", b"\xfd"]]


def test_a_column_that_occurs_twice_is_a_usage_error(tmp_path: Path, output: Path, run_job: RunJob) -> None:
    names = ["query_id", "query", "document", "rank", "rank"]
    source = write_input(tmp_path / "in", a=pa.table([pa.array(["a"])] * 5, names=names))
    with pytest.raises(ConfigError, match=r"column `rank` occurs more than once in .*/a\.parquet"):
        run_job(source, output, group_by=BY_QUERY)
    assert not output.exists()
