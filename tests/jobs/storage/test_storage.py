"""Listing input files; files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage import absolute, is_temporary, list_input, remove_temporaries, write_json, write_table
from jobs.storage.local import temporary_name
from pipelines.errors import ConfigError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(pattern: Path, root: Path) -> list[str]:
    return [str(Path(file.path).relative_to(root)) for file in list_input(str(pattern))]


def test_a_directory_is_its_parquet_files_at_any_depth_sorted_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "b.parquet", "a.parquet", "day=1/c.parquet", "d.pq", "notes.txt", "e.parquet.crc")
    assert listed(tmp_path, tmp_path) == ["a.parquet", "b.parquet", "d.pq", "day=1/c.parquet"]


HIDDEN = ("_SUCCESS", "_a.parquet", ".b.parquet", "_temporary/c.parquet", ".cache/d.parquet")


def test_hidden_names_are_no_data(tmp_path: Path) -> None:
    touch(tmp_path, "x.parquet", *HIDDEN)
    assert listed(tmp_path, tmp_path) == ["x.parquet"]


def test_hidden_names_above_the_input_do_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "_in/a.parquet")
    assert listed(tmp_path / "_in", tmp_path) == ["_in/a.parquet"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("[a].parquet", ["a.parquet"]),
        ("day=*", ["day=1/a.parquet", "day=1/deep/b.pq", "day=2/a.parquet"]),
        ("day=*/*.parquet", ["day=1/a.parquet", "day=2/a.parquet"]),
        ("**/a.parquet", ["a.parquet", "day=1/a.parquet", "day=2/a.parquet"]),
    ],
)
def test_a_glob_matches_files_and_whole_directories(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    days = ("day=1/a.parquet", "day=1/deep/b.pq", "day=1/_temporary/c.parquet", "day=2/a.parquet")
    touch(tmp_path, "a.parquet", "b.parquet", "_c.parquet", *days)
    assert listed(tmp_path / pattern, tmp_path) == expected


def test_a_file_that_is_named_is_read_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "_odd[1]")
    assert listed(tmp_path / "_odd[1]", tmp_path) == ["_odd[1]"]


def test_a_link_to_a_directory_is_followed_and_each_directory_is_read_once(tmp_path: Path) -> None:
    """Also where links lead up, to one another, or to a directory that is below INPUT by its own name."""
    touch(tmp_path, "in/day=1/a.parquet", "far/b.parquet", "far/deep/c.parquet")
    for link, target in (("last", "day=1"), ("far", "../far"), ("again", "../far/deep"), ("up", ".")):
        (tmp_path / "in" / link).symlink_to(target)
    (tmp_path / "far" / "back").symlink_to("../in")
    expected = ["again/c.parquet", "day=1/a.parquet", "far/b.parquet"]
    assert listed(tmp_path / "in", tmp_path / "in") == expected
    assert listed(tmp_path / "in" / "*", tmp_path / "in") == expected
    assert listed(tmp_path / "in" / "la*", tmp_path / "in") == ["last/a.parquet"]


def test_a_glob_finds_a_file_once_although_links_lead_to_its_directory(tmp_path: Path) -> None:
    touch(tmp_path, "day=1/a.parquet")
    for link, target in (("last", "day=1"), ("up", ".")):
        (tmp_path / link).symlink_to(target)
    for pattern in ("**", "*/*.parquet", "**/a.parquet"):
        assert listed(tmp_path / pattern, tmp_path) == ["day=1/a.parquet"]


@pytest.mark.parametrize("pattern", ["**", "**/*.parquet", "**/*", "*/**/*.parquet"])
def test_a_glob_of_any_depth_ends_where_links_lead_in_circles(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "in/day=1/a.parquet", "in/day=1/deep/b.parquet", "far/c.parquet")
    for link, target in (("in/up", "."), ("in/far", "../far"), ("far/back", "../in"), ("in/day=1/top", "..")):
        (tmp_path / link).symlink_to(target)
    expected = ["day=1/a.parquet", "day=1/deep/b.parquet", "far/c.parquet"]
    assert listed(tmp_path / "in" / pattern, tmp_path / "in") == expected


@pytest.mark.parametrize("pattern", ["", "*", "**/*.parquet"])
def test_a_link_that_leads_nowhere_is_an_error_of_its_file(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "a.parquet")
    (tmp_path / "b.parquet").symlink_to("gone.parquet")
    (tmp_path / "c.parquet").symlink_to("c.parquet")
    files = list_input(str(tmp_path / pattern))
    assert [file.fault and file.fault.partition(" (")[0] for file in files] == [None, *["its link leads nowhere"] * 2]


def test_a_link_that_leads_nowhere_is_left_out_where_its_name_says_another_format(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet")
    (tmp_path / "notes.txt").symlink_to("gone.txt")
    (tmp_path / "archive").symlink_to("disk that is not mounted")
    files = list_input(str(tmp_path))
    assert [Path(file.path).name for file in files] == ["a.parquet", "archive"]
    assert [Path(file.path).name for file in files.left_out] == ["notes.txt"]


def test_nothing_to_read_is_a_usage_error(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    for pattern in (tmp_path, tmp_path / "*.parquet", tmp_path / "absent"):
        with pytest.raises(ConfigError, match="has no Parquet files; give a file, a directory or a quoted glob"):
            list_input(str(pattern))


def test_a_file_is_described_by_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR12")
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    [file] = list_input(str(path))
    assert (file.path, file.size, file.version) == (str(path), 5, "1700000000123456789")


@pytest.mark.parametrize(
    "uri",
    [
        "abfss://c@a.dfs.core.windows.net/in?sv=2022-11-02&sig=c2VjcmV0",
        "s3://bucket/in/x.parquet?X-Amz-Signature=c2VjcmV0",
        "gs://bucket/in?x-goog-signature=c2VjcmV0",
    ],
)
def test_a_signed_url_is_refused_and_its_secret_is_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"INPUT: .* has a query string; give the uri without it") as refused:
        absolute(uri, "INPUT")
    assert "c2VjcmV0" not in str(refused.value)


def test_a_question_mark_of_a_glob_is_no_query_string() -> None:
    for pattern in ("s3://bucket/day=2026-11-?/x.parquet", "gs://bucket/x-?.parquet", "s3://b/?/day=1/x.parquet"):
        assert absolute(pattern, "INPUT") == pattern


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("in", "INPUT") == str(tmp_path / "in")
    assert absolute("./x/../in/", "INPUT") == str(tmp_path / "in")
    assert absolute("~/in", "INPUT") == "/home/somebody/in"
    assert absolute("file:///in", "INPUT", allow_relative=False) == "/in"


def test_a_relative_path_is_refused_where_it_would_lead_into_a_cache() -> None:
    with pytest.raises(ConfigError, match="OUTPUT is 'out'; inside a submitted job it must be absolute"):
        absolute("out", "OUTPUT", allow_relative=False)


def test_other_storage_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"INPUT: hdfs://\.\.\. is no place that can be read; write s3://bucket/path, "
    ):
        absolute("hdfs://host/in", "INPUT")


def test_a_table_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    table = pa.table({"number": range(10)})
    write_table(str(tmp_path / "a.parquet"), table)
    write_table(str(tmp_path / "a.parquet"), table)
    assert pq.read_table(tmp_path / "a.parquet").equals(table)
    assert os.listdir(tmp_path) == ["a.parquet"]


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["os.replace", "os.fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_json(str(tmp_path / "a.json"), {"old": 1})
    write_table(str(tmp_path / "a.parquet"), pa.table({"old": [1]}))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(str(tmp_path / "a.json"), {"new": 2})
    with pytest.raises(OSError, match="No space left"):
        write_table(str(tmp_path / "a.parquet"), pa.table({"new": [2]}))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_temporaries_are_recognised_and_removed(tmp_path: Path) -> None:
    left = temporary_name(str(tmp_path / "part-a.parquet"))
    touch(tmp_path, Path(left).name, "part-a.parquet", ".hidden", "notes.tmp")
    assert is_temporary(Path(left).name)
    assert temporary_name(str(tmp_path / "part-a.parquet")) != left
    remove_temporaries(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".hidden", "notes.tmp", "part-a.parquet"]
