"""Files as other systems write them: what a job makes of them, and what their own readers see in its parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import RefusedError
from jobs.input.conditions import parse_condition
from jobs.input.corpus import Corpus
from jobs.settings import RerankSettings
from jobs.storage import read_parquet
from jobs.table.columns import ColumnMapping, GroupBy
from pipelines.errors import ConfigError
from tests.jobs.conftest import RunJob
from tests.jobs.tables import lists_table, parts, read_json, read_output, rows_of_output, wide_table, write_input
from tests.stores import Bucket, upload

pytestmark = pytest.mark.usefixtures("without_ray")

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
PAST = datetime(2020, 1, 1, 12, 30, tzinfo=UTC)
UTC_US, UTC_NS = pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "in"


def write_int96(path: Path, table: pa.Table) -> Path:
    """As Spark writes timestamps by default; returns the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, store_schema=False, row_group_size=2)
    return path.parent


def with_times(values: list[Any], data_type: pa.DataType = UTC_US) -> pa.Table:
    return lists_table(len(values)).append_column("valid_to", pa.array(values, data_type))


def nanoseconds(column: pa.ChunkedArray) -> list[int | None]:
    return column.cast(pa.timestamp("ns", "UTC")).cast(pa.int64()).to_pylist()  # type: ignore[no-any-return]


class TestInt96:
    """Spark's timestamps."""

    def test_years_that_nanoseconds_cannot_hold_come_out_and_are_compared_right(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        write_int96(source / "a.parquet", with_times([FOREVER, PAST, None, FOREVER]))
        where = (parse_condition("valid_to >= 2026-11-01"),)
        assert run_job(source, output, where=where)["rows_left_out"] == 2
        table = read_output(output)
        assert table.schema.field("valid_to").type == UTC_US
        assert table["valid_to"].to_pylist() == [FOREVER, FOREVER]
        assert table["query_id"].to_pylist() == ["q0", "q3"]

    def test_they_are_right_inside_documents_too(self, source: Path, output: Path, run_job: RunJob) -> None:
        seen = [[{"text": "a", "seen": FOREVER}, {"text": "b", "seen": None}], None, [{"text": "c", "seen": PAST}]]
        kind = pa.list_(pa.struct({"text": pa.string(), "seen": UTC_US}))
        table = lists_table(3).set_column(2, "documents", pa.array(seen, kind))
        run_job(write_int96(source / "a.parquet", table), output)
        assert read_output(output)["documents"].to_pylist() == seen

    def test_digits_below_a_microsecond_are_kept_where_the_whole_column_fits(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        values = [1, 1_700_000_000_123_456_789, None, 5_000]
        summary = run_job(write_int96(source / "a.parquet", with_times(values, UTC_NS)), output)
        table = read_output(output)
        assert table.schema.field("valid_to").type == UTC_NS
        assert nanoseconds(table["valid_to"]) == values
        assert summary["cut_timestamps"] == 0

    def test_else_they_are_cut_and_counted(
        self, source: Path, output: Path, run_job: RunJob, said: StringIO, tmp_path: Path
    ) -> None:
        """pyarrow cannot write such a column, so its values are put into a file of the same length."""
        write_int96(source / "a.parquet", with_times([1, 2_001, 5_000, 7], UTC_NS))
        content = (source / "a.parquet").read_bytes()
        day, forever = (2_440_588).to_bytes(4, "little"), (2_440_588 + 2_932_896).to_bytes(4, "little")
        old = (7).to_bytes(8, "little") + day
        assert content.count(old) == 1, "the file is not as this test needs it"
        (source / "a.parquet").write_bytes(content.replace(old, (0).to_bytes(8, "little") + forever))
        summary = run_job(source, output)
        table = read_output(output)
        assert table.schema.field("valid_to").type == UTC_US
        assert table["valid_to"].cast(pa.int64()).to_pylist() == [0, 2, 5, int(FOREVER.timestamp()) * 1_000_000]
        assert summary["cut_timestamps"] == 2
        assert f"cut to microseconds: `valid_to` of {source}/a.parquet has 2 timestamps" in said.getvalue()
        assert run_job(source, output)["cut_timestamps"] == 2

    def test_they_are_right_where_pairs_are_grouped(self, source: Path, output: Path, run_job: RunJob) -> None:
        columns = {"query_id": ["a", "a"], "query": ["q", "q"], "document": ["x", "y"]}
        table = pa.table({**columns, "seen": pa.array([FOREVER, PAST], UTC_US)})
        run_job(write_int96(source / "a.parquet", table), output, group_by=GroupBy("query_id"))
        [documents] = read_output(output)["documents"].to_pylist()
        assert [one["seen"] for one in documents] == [FOREVER, PAST]

    def test_they_are_right_in_every_store(self, bucket: Bucket, tmp_path: Path) -> None:
        table = with_times([FOREVER, PAST, None])
        fine = with_times([1, 2_001, 5], UTC_NS)
        write_int96(tmp_path / "in" / "a.parquet", table)
        write_int96(tmp_path / "in" / "b.parquet", fine)
        uri = upload(tmp_path / "in", bucket, "in")
        assert read_parquet(f"{uri}/a.parquet", lambda file: file.read()).equals(table)
        assert read_parquet(f"{uri}/b.parquet", lambda file: file.read_row_groups([0, 1])).equals(fine)
        batches = read_parquet(f"{uri}/b.parquet", lambda file: list(file.iter_batches(2)))
        assert pa.Table.from_batches(batches).equals(fine)

    def test_every_way_to_read_gives_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        table = with_times([1, 2_001, 5], UTC_NS).append_column("other", pa.array([FOREVER, None, PAST], UTC_US))
        write_int96(path, table.select(["query", "other"]))
        expected = table.select(["query", "other"])
        assert read_parquet(str(path), lambda file: file.schema_arrow) == expected.schema
        assert read_parquet(str(path), lambda file: file.read()).equals(expected)
        assert read_parquet(str(path), lambda file: file.read(["other"])).equals(expected.select(["other"]))
        assert read_parquet(str(path), lambda file: file.read_row_group(0)).equals(expected[:2])
        batches = read_parquet(str(path), lambda file: list(file.iter_batches(2, [1], ["other"])))
        assert pa.Table.from_batches(batches).equals(expected[2:].select(["other"]))


class TestMetadata:
    """What other writers say of a file in its footer."""

    SPARK = b"org.apache.spark.sql.parquet.row.metadata"

    def test_a_description_of_all_columns_does_not_come_along(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        """Spark and Avro's readers take it for the file's schema, and would not see the new columns."""
        described = {
            "type": "struct",
            "fields": [{"name": "query", "type": "string", "nullable": True, "metadata": {}}],
        }
        said = {
            self.SPARK: json.dumps(described).encode(),
            b"parquet.avro.schema": b'{"type": "record"}',
            b"iceberg.schema": b"{}",
            b"writer.model.name": b"avro",
            b"org.apache.spark.version": b"4.0.0",
            b"team": b"search",
        }
        write_input(source, a=lists_table(3).replace_schema_metadata(said))
        run_job(source, output)
        metadata = pq.read_schema(parts(output)[0]).metadata
        assert {key for key in metadata if key != b"crossray"} == {b"org.apache.spark.version", b"team"}

    def test_ids_of_fields_come_along(self, source: Path, output: Path, run_job: RunJob) -> None:
        table = lists_table(3)
        fields = [field.with_metadata({b"PARQUET:field_id": str(7 + i)}) for i, field in enumerate(table.schema)]
        write_input(source, a=table.cast(pa.schema(fields)))
        run_job(source, output)
        schema = pq.read_schema(parts(output)[0])
        assert [schema.field(name).metadata[b"PARQUET:field_id"] for name in table.column_names] == [b"7", b"8", b"9"]

    def test_pandas_reads_its_index_and_the_new_columns(self, source: Path, output: Path, run_job: RunJob) -> None:
        source.mkdir()
        frame = lists_table(3).to_pandas().set_index(pd.Index([30, 10, 20], name="row"))
        frame.to_parquet(source / "a.parquet")
        run_job(source, output)
        back = pd.read_parquet(parts(output)[0])
        assert back.index.tolist() == [30, 10, 20]
        assert back.columns.tolist() == ["query_id", "query", "documents", "ranking", "error"]
        assert back["query"].tolist() == frame["query"].tolist()

    def test_pandas_reads_parts_of_a_file_with_an_index_of_all_rows(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        source.mkdir()
        frame = wide_table(60).to_pandas()
        frame.to_parquet(source / "a.parquet")
        run_job(source, output)
        back = pd.concat([pd.read_parquet(part) for part in parts(output)])
        assert back["query_id"].tolist() == frame["query_id"].tolist()
        assert back.columns.tolist()[-2:] == ["ranking", "error"]

    def test_what_huggingface_says_of_its_columns_stays(self, source: Path, output: Path, run_job: RunJob) -> None:
        """`datasets` takes columns that this does not name by their Arrow types (Features.from_arrow_schema)."""
        features = {"query": {"dtype": "string", "_type": "Value"}}
        said = json.dumps({"info": {"features": features}}).encode()
        write_input(source, a=lists_table(3).replace_schema_metadata({b"huggingface": said}))
        run_job(source, output)
        assert pq.read_schema(parts(output)[0]).metadata[b"huggingface"] == said


class TestNamesOfColumns:
    """Columns that the output has already."""

    @pytest.mark.parametrize("name", ["error", "ranking", "__crossray_attached__", "__crossray_problem__"])
    def test_a_later_file_that_has_one_is_reported_and_costs_no_other(
        self, source: Path, output: Path, run_job: RunJob, name: str
    ) -> None:
        write_input(source, a=lists_table(3, tag="a"))
        run_job(source, output)
        write_input(
            source,
            b=lists_table(3, tag="b").append_column(name, pa.array(["x"] * 3)),
            c=lists_table(2, tag="c"),
        )
        summary = run_job(source, output)
        [(path, why)] = summary["unreadable"].items()
        assert path == f"{source}/b.parquet"
        assert why == f"has a column `{name}`, and the output of this job has one of its own; rename it in the file"
        assert [row["query_id"] for row in rows_of_output(output)] == ["a0", "a1", "a2", "c0", "c1"]
        write_input(source, b=lists_table(1, tag="b"))
        assert run_job(source, output)["unreadable"] == {}
        assert len(rows_of_output(output)) == 6

    def test_a_name_that_only_we_give_is_refused(self, source: Path, output: Path, run_job: RunJob) -> None:
        write_input(source, a=lists_table(3).append_column("__crossray_problem__", pa.array(["x"] * 3)))
        with pytest.raises(ConfigError, match="a column `__crossray_problem__`, a name that is reserved; rename it"):
            run_job(source, output)
        assert not output.exists()


class TestFiles:
    """Files whose names do not end in `.parquet`, and files that are none."""

    def test_parquet_of_any_name_is_ranked_and_the_rest_is_named(
        self, source: Path, output: Path, run_job: RunJob, said: StringIO
    ) -> None:
        names = {
            "a.parquet": 1,
            "B.PARQUET": 2,
            "c.parq": 3,
            "d.snappy.parquet": 4,
            "20261101_120000_00001_abcde_0a1b": 5,
            "e.parquet.gz": 6,
            "000000_0": 7,
            "_day=1/f.parquet": 8,
        }
        for name, rows in names.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(lists_table(rows, tag=name), source / name)
        whole = (source / "a.parquet").read_bytes()
        left_out = {"g.csv": whole, "half": whole[:-1], "notes": b"nothing", "old.parquet.bak": whole, "empty": b""}
        hidden = {"_SUCCESS": b"", ".a.parquet.crc": b"crc", "_temporary/x.parquet": whole}
        for name, content in (left_out | hidden).items():
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(content)
        summary = run_job(source, output)
        assert summary["rows"] == sum(names.values())
        assert summary["unreadable"] == {}
        paths = sorted(f"{source}/{name}" for name in left_out)
        assert summary["left_out"] == {"files": 5, "first": paths}
        assert f"left out: 5 file(s) of {source} that are no Parquet: {', '.join(paths)}" in said.getvalue()
        assert {row["_day"] for row in rows_of_output(output) if "_day" in row} >= {1}
        assert read_json(output / "_summary.json") == summary

    def test_of_many_ten_are_named(self, source: Path, output: Path, run_job: RunJob, said: StringIO) -> None:
        write_input(source, a=lists_table(1))
        for i in range(30):
            (source / f"{i:02}.csv").touch()
        summary = run_job(source, output)
        assert summary["left_out"] == {"files": 30, "first": [f"{source}/{i:02}.csv" for i in range(10)]}
        assert f"{source}/09.csv, ..." in said.getvalue()

    def test_a_store_does_the_same(self, bucket: Bucket, tmp_path: Path, output: Path, run_job: RunJob) -> None:
        source = write_input(tmp_path / "in", a=lists_table(1, tag="a"), b=lists_table(2, tag="b"))
        (source / "b.parquet").rename(source / "20261101_athena")
        (source / "x").write_bytes((source / "a.parquet").read_bytes()[:-1])
        uri = upload(source, bucket, "in")
        summary = run_job(uri, output)
        assert summary["rows"] == 3
        assert summary["left_out"] == {"files": 1, "first": [f"{uri}/x"]}

    def test_a_corpus_names_its_other_files_too(
        self, source: Path, output: Path, run_job: RunJob, said: StringIO, tmp_path: Path
    ) -> None:
        corpus = write_input(tmp_path / "corpus", a=pa.table({"id": ["x"], "text": ["a text"]}))
        (corpus / "b.csv").touch()
        write_input(source, a=pa.table({"query": ["q"], "documents": [["x"]]}))
        run_job(source, output, corpus=Corpus(str(corpus)))
        assert f"left out: 1 file(s) of {corpus} that are no Parquet: {corpus}/b.csv" in said.getvalue()


def with_ids(values: Any, data_type: pa.DataType | None = None) -> pa.Table:
    """One list of a document for each id."""
    ids = pa.array(values, data_type) if data_type is not None else values
    texts = pa.array([f"text {i}" for i in range(len(ids))])
    documents = pa.StructArray.from_arrays([ids, texts], ["id", "text"])
    lists = pa.ListArray.from_arrays(pa.array(range(len(ids) + 1), pa.int32()), documents)
    return lists_table(len(ids)).set_column(2, "documents", lists)


ID = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


class TestIds:
    """Ids that are neither texts nor integers."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ID.bytes, None], pa.binary(16))), [str(ID), None]),
            (pa.array([17, None]).cast(pa.decimal128(38, 0)), ["17", None]),
            (pa.array([17.0, None, -0.0, 2.0**53]), ["17", None, "0", "9007199254740992"]),
            (pa.array([17.0], pa.float32()), ["17"]),
        ],
        ids=["uuid", "decimal", "float64", "float32"],
    )
    def test_ids_with_one_obvious_text_have_it(
        self, source: Path, output: Path, run_job: RunJob, values: pa.Array, expected: list[str | None]
    ) -> None:
        write_input(source, a=with_ids(values))
        run_job(source, output)
        assert [row["ranking"][0]["id"] for row in rows_of_output(output)] == expected

    def test_floats_that_stand_for_no_one_integer_cost_their_rows(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        write_input(source, a=with_ids([17.5, 17.0, float("nan"), 2.0**54], pa.float64()))
        summary = run_job(source, output)
        errors = [row["error"] for row in rows_of_output(output)]
        assert errors[0] == "unusable_id: documents[0].id is 17.5, a float that stands for no one integer"
        assert errors[1] is None
        assert summary["errors"] == {"unusable_id": 3}

    @pytest.mark.parametrize(
        ("ids", "asked"),
        [
            (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ID.bytes], pa.binary(16))), [str(ID)]),
            (pa.array([17]).cast(pa.decimal128(38, 0)), [17]),
            (pa.array([17.0]), ["17"]),
            (pa.array([17]), pa.array([17.0])),
        ],
        ids=["uuid", "decimal", "float", "float in the list"],
    )
    def test_a_corpus_finds_them(
        self, source: Path, output: Path, run_job: RunJob, tmp_path: Path, ids: pa.Array, asked: Any
    ) -> None:
        corpus = write_input(tmp_path / "corpus", a=pa.table({"id": ids, "text": ["a text"]}))
        documents = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(asked))
        write_input(source, a=pa.table({"query": ["q"], "documents": documents}))
        assert run_job(source, output, corpus=Corpus(str(corpus)))["errors"] == {}

    def test_an_integer_that_a_float_cannot_hold_is_not_taken_for_its_neighbour(
        self, source: Path, output: Path, run_job: RunJob, tmp_path: Path
    ) -> None:
        corpus = write_input(tmp_path / "corpus", a=pa.table({"id": [2**54], "text": ["another text"]}))
        write_input(source, a=pa.table({"query": ["q"], "documents": [[float(2**54 + 1)]]}))
        assert run_job(source, output, corpus=Corpus(str(corpus)))["errors"] == {"unknown_document": 1}

    def test_documents_may_have_no_ids_although_a_field_has_that_name(
        self, source: Path, output: Path, run_job: RunJob
    ) -> None:
        write_input(source, a=with_ids([PAST, FOREVER], UTC_US))
        with pytest.raises(ConfigError, match=r"`id` is timestamp.*; where documents have no ids, give --id-field ''"):
            run_job(source, output)
        run_job(source, output, mapping=ColumnMapping(id_field=""))
        rows = rows_of_output(output)
        assert [row["ranking"][0]["id"] for row in rows] == [None, None]
        assert [row["documents"][0]["id"] for row in rows] == [PAST, FOREVER]

    @pytest.mark.parametrize("needs", [{"corpus": Corpus("c")}, {"group_by": GroupBy("query_id")}])
    def test_no_ids_go_with_nothing_that_needs_them(
        self, needs: dict[str, Any], settings_of: Callable[..., RerankSettings]
    ) -> None:
        with pytest.raises(ConfigError, match="--id-field is '', no ids"):
            settings_of("in", "out", mapping=ColumnMapping(id_field=""), **needs)

    def test_a_struct_of_lists_is_refused_with_the_way_out(self, source: Path, output: Path, run_job: RunJob) -> None:
        """MS MARCO on the hub."""
        passages = [{"is_selected": [0, 1], "passage_text": ["a", "b"]}]
        write_input(source, a=pa.table({"query": ["q"], "passages": passages}))
        with pytest.raises(
            ConfigError, match=r"one struct with the lists `is_selected`, `passage_text`, but .* SELECT"
        ):
            run_job(source, output, mapping=ColumnMapping(documents="passages"))


def test_a_group_by_over_files_of_types_without_a_common_one_names_both(
    source: Path, output: Path, run_job: RunJob
) -> None:
    columns = {"query_id": ["a"], "query": ["q"], "document": ["x"]}
    write_input(
        source,
        a=pa.table({**columns, "seen": pa.array([datetime(3000, 1, 1)], pa.timestamp("us"))}),
        b=pa.table({**columns, "seen": pa.array([1], pa.timestamp("ns"))}),
    )
    message = (
        rf"column `seen` is timestamp\[us\] in {source}/a.parquet and timestamp\[ns\] in {source}/b.parquet, and no"
    )
    with pytest.raises(ConfigError, match=message):
        run_job(source, output, group_by=GroupBy("query_id"))
    run_job(source, output, group_by=GroupBy("query_id"), mapping=ColumnMapping(drop=("seen",)))
    assert [one["text"] for one in rows_of_output(output)[0]["documents"]] == ["x", "x"]


def test_another_layout_of_the_checkpoint_is_another_job(
    source: Path, output: Path, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_input(source, a=lists_table(3))
    run_job(source, output)
    manifest = read_json(output / "_manifest.json")
    assert manifest["fingerprint"]["layout"] == "bert"
    manifest["fingerprint"] |= {"layout": "jina-v2", "hash": "another"}
    (output / "_manifest.json").write_text(json.dumps(manifest))
    (output / "_summary.json").unlink()
    with pytest.raises(RefusedError, match="layout of the model's checkpoint was 'jina-v2', is 'bert'; give the same"):
        run_job(source, output)
