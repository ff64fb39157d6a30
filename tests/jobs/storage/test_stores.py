"""Object stores over their own protocols: what is listed, read, written and removed, and what their failures cost."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from jobs import storage
from jobs.errors import AccessError, StoreError, UnreadableFileError
from pipelines.errors import ConfigError
from tests.stores import AZURE_ACCOUNT, AZURE_KEY, FAULTS, Bucket, Stores, upload

TREE = (
    "a.parquet",
    "b.pq",
    "_c.parquet",
    ".d.parquet",
    "notes.txt",
    "day=1/a.parquet",
    "day=1/deep/b.pq",
    "day=1/_temporary/c.parquet",
    "day=2/a.parquet",
    "day=2/notes.txt",
    "_day/a.parquet",
    ".day/a.parquet",
    "_day=1/a.parquet",
    "_day=1/_x/a.parquet",
    "day=10.parquet",
    "B.PARQUET",
    "c.parq",
    "part-0",
    "part-1.parquet.gz",
    "day=2/000000_0",
    "short",
    "wrong",
    "a[1].parquet",
)
PATTERNS = (
    "",
    "a.parquet",
    "notes.txt",
    "_c.parquet",
    "a[1].parquet",
    "_day",
    "*",
    "*.parquet",
    "?.parquet",
    "[ab].*",
    "[!a].*",
    "day=*",
    "day=?",
    "day=*/*.parquet",
    "day=1*",
    "*/",
    "*/deep",
    "**",
    "**/",
    "**/a.parquet",
    "**/*.pq",
    "day=1/**",
    "**/deep/**",
    ".*",
    ".d*",
    ".day/*",
    "_*",
    "*/_temporary/*",
    "_day=*",
    "_day=1/*",
    "p*",
    "*.PARQUET",
)
PARQUET_BY_MAGIC = ("part-0", "part-1.parquet.gz", "day=2/000000_0", "notes.txt")


def listed(root: str, pattern: str) -> list[str]:
    """Relative paths of what a pattern finds."""
    try:
        return [file.path.removeprefix(root) for file in storage.find_input(f"{root}/{pattern}".rstrip("/"))]
    except ConfigError:
        return []


def test_a_store_lists_what_a_disk_lists(bucket: Bucket, tmp_path: Path) -> None:
    """The same tree on both, and each pattern in both."""
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        magic = b"PAR1" if name in PARQUET_BY_MAGIC else b""
        (tmp_path / name).write_bytes(magic + name.encode().ljust(9) + magic)
    (tmp_path / "short").write_bytes(b"PAR1PAR1")
    root = upload(tmp_path, bucket, "in/put")
    bucket.put("in/put-and-more.parquet", b"")
    bucket.put("other.parquet", b"")
    found = {pattern: listed(root, pattern) for pattern in PATTERNS}
    assert found == {pattern: listed(str(tmp_path), pattern) for pattern in PATTERNS}
    assert sum(map(bool, found.values())) > len(PATTERNS) / 2
    left_out = [file.path.removeprefix(f"{root}/") for file in storage.find_input(root).left_out]
    assert left_out == ["day=2/notes.txt", "notes.txt", "short", "wrong"]
    assert {f"/{name}" for name in PARQUET_BY_MAGIC[:3]} < set(found[""])


def test_a_whole_bucket_is_a_directory(bucket: Bucket) -> None:
    bucket.put("a.parquet", b"")
    bucket.put("day/b.parquet", b"")
    assert [file.path for file in storage.find_input(bucket.uri)] == [
        f"{bucket.uri}/a.parquet",
        f"{bucket.uri}/day/b.parquet",
    ]


@pytest.mark.slow
def test_more_objects_than_an_answer_holds_are_listed(s3_bucket: Bucket) -> None:
    for number in range(1_005):
        s3_bucket.put(f"in/{number:04}.parquet", b"")
    assert len(storage.find_input(f"{s3_bucket.uri}/in")) == 1_005
    storage.remove_below(f"{s3_bucket.uri}/in")
    assert s3_bucket.names() == []


def test_the_version_of_an_object_follows_its_content(bucket: Bucket) -> None:
    location = f"{bucket.uri}/a.parquet"
    bucket.put("a.parquet", b"123")
    [before] = storage.find_input(location)
    assert (before.path, before.size) == (location, 3)
    assert storage.find_input(bucket.uri) == [before]
    bucket.put("a.parquet", b"456")
    [after] = storage.find_input(location)
    assert after.version != before.version


def test_markers_of_directories_are_no_files(bucket: Bucket) -> None:
    bucket.put("in/", b"")
    bucket.put("in/day.parquet/", b"")
    bucket.put("in/a.parquet", b"")
    assert listed(f"{bucket.uri}/in", "") == ["/a.parquet"]
    assert sorted(storage.names(f"{bucket.uri}/in")) == ["a.parquet", "day.parquet"]


def test_what_is_written_is_read(bucket: Bucket) -> None:
    table = pa.table({"number": range(1_000)})
    for _ in range(2):
        storage.write_table(f"{bucket.uri}/out/a.parquet", table)
        storage.write_json(f"{bucket.uri}/out/deep/b.json", {"ä": 1})
    assert storage.read_parquet(f"{bucket.uri}/out/a.parquet", lambda file: file.read()).equals(table)
    assert pq.read_table(pa.BufferReader(bucket.get("out/a.parquet"))).equals(table)
    assert storage.read_json(f"{bucket.uri}/out/deep/b.json") == {"ä": 1}
    assert sorted(storage.names(f"{bucket.uri}/out")) == ["a.parquet", "deep"]
    assert bucket.names() == ["out/a.parquet", "out/deep/b.json"]


def test_what_is_not_there(bucket: Bucket) -> None:
    bucket.put("out/a", b"")
    assert storage.exists(f"{bucket.uri}/out/a")
    assert storage.is_directory(f"{bucket.uri}/out")
    for name in ("out", "ou", "out/b"):
        assert not storage.exists(f"{bucket.uri}/{name}")
        with pytest.raises(FileNotFoundError):
            storage.read(f"{bucket.uri}/{name}")
        with pytest.raises(UnreadableFileError) as error:
            storage.read_parquet(f"{bucket.uri}/{name}", lambda file: file.read())
        assert error.value.is_gone
    assert not storage.is_directory(f"{bucket.uri}/ou")
    assert storage.names(f"{bucket.uri}/ou") == []


def test_removing(bucket: Bucket) -> None:
    for name in ("a", "b", "c/d", "c/e/f", "cd"):
        bucket.put(name, b"")
    storage.remove(f"{bucket.uri}/a", f"{bucket.uri}/absent")
    storage.remove_below(f"{bucket.uri}/c")
    assert bucket.names() == ["b", "cd"]


def test_swapping_happens_only_over_what_was_seen(bucket: Bucket) -> None:
    location = f"{bucket.uri}/lease"
    assert not storage.swap(location, b"seen", b"1")
    assert storage.swap(location, None, b"1")
    assert not storage.swap(location, None, b"2")
    assert not storage.swap(location, b"seen", b"2")
    assert bucket.get("lease") == b"1"
    assert storage.swap(location, b"1", b"2")
    assert bucket.get("lease") == b"2"


@pytest.mark.parametrize("before", [None, b"abandoned"])
def test_of_many_that_swap_at_once_one_is_let_in(bucket: Bucket, before: bytes | None) -> None:
    if before is not None:
        bucket.put("lease", before)
    contents = [f"driver {number}".encode() for number in range(8)]
    with ThreadPoolExecutor(8) as drivers:
        told = list(drivers.map(lambda mine: storage.swap(f"{bucket.uri}/lease", before, mine), contents))
    assert told.count(True) == 1
    assert bucket.get("lease") == contents[told.index(True)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_faults_change_nothing_but_the_time(s3_bucket: Bucket, seed: int) -> None:
    """Every third request fails in one of six ways."""
    table = pa.table({"number": range(10_000)})
    location = f"{s3_bucket.uri}/out/lease"
    with s3_bucket.proxy.failing(1 / 3, seed) as injected, ThreadPoolExecutor(8) as pool:

        def use(number: int) -> None:
            storage.write_table(f"{s3_bucket.uri}/out/{number}.parquet", table)
            assert storage.read_parquet(f"{s3_bucket.uri}/out/{number}.parquet", lambda file: file.read()).equals(table)
            storage.write_json(f"{s3_bucket.uri}/out/{number}.json", number)
            assert storage.read_json(f"{s3_bucket.uri}/out/{number}.json") == number

        list(pool.map(use, range(10)))
        assert storage.swap(location, None, b"1")
        assert storage.swap(location, b"1", b"2")
        assert not storage.swap(location, b"1", b"3")
        assert len(storage.list_input(f"{s3_bucket.uri}/out")) == 10
        assert len(storage.names(f"{s3_bucket.uri}/out")) == 21
        storage.remove_below(f"{s3_bucket.uri}/out")
    assert set(injected) == set(FAULTS)
    assert s3_bucket.names() == []


@pytest.mark.slow
# Azure's client leaves a socket to the garbage collector when an answer breaks off.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_faults_of_azure_change_nothing_either(azure_container: Bucket) -> None:
    table = pa.table({"number": range(10_000)})
    out = f"{azure_container.uri}/out"
    with azure_container.proxy.failing(1 / 5, seed=3) as injected, ThreadPoolExecutor(8) as pool:

        def use(number: int) -> None:
            storage.write_table(f"{out}/{number}.parquet", table)
            assert storage.read_parquet(f"{out}/{number}.parquet", lambda file: file.read()).equals(table)
            assert storage.swap(f"{out}/{number}.json", None, b"1")
            assert storage.swap(f"{out}/{number}.json", b"1", b"2")
            assert storage.read_json(f"{out}/{number}.json") == 2

        list(pool.map(use, range(8)))
        assert len(storage.names(out)) == 16
    assert len(set(injected)) > len(FAULTS) / 2
    assert len(azure_container.names()) == 16


def test_a_store_that_stays_away_is_an_error_of_the_location(s3_bucket: Bucket, impatient: None) -> None:
    location = f"{s3_bucket.uri}/b.json"
    for kind in ("500", "503", "reset", "lost"):
        with (
            s3_bucket.proxy.failing(1.0, kinds=(kind,)) as injected,
            pytest.raises(StoreError, match=f"{location}: ") as error,
        ):
            storage.write_json(location, {})
        assert len(injected) == 2
        with s3_bucket.proxy.failing(1.0, kinds=(kind,)), pytest.raises(StoreError, match=f"{location}: "):
            storage.read_parquet(location, lambda file: file.read())
        assert not isinstance(error.value, AccessError)
        assert "testing-secret" not in str(error.value)


def test_a_missing_bucket_is_named(bucket: Bucket) -> None:
    missing = bucket.uri.replace("bucket-", "bucket-missing-").replace("container-", "container-x-")
    for use in (
        lambda: storage.list_input(f"{missing}/in"),
        lambda: storage.names(f"{missing}/out"),
        lambda: storage.swap(f"{missing}/out/lease", None, b""),
    ):
        with pytest.raises(AccessError, match=r"there is no such (bucket|container)") as error:
            use()
        assert missing in str(error.value)


LIST = "storage.list_input(sys.argv[1])"
READ = "storage.read_parquet(sys.argv[1], lambda file: file.read())"


def fail_in_a_process(uri: str, environment: dict[str, str | None], code: str = LIST) -> str:
    """What is said when `uri` is listed or read with other variables."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    command = [sys.executable, "-c", f"import sys; from jobs import storage; storage.READINGS = 1; {code}", uri]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stderr


def test_missing_credentials_are_named(s3_bucket: Bucket) -> None:
    absent = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_CONFIG_FILE": "/dev/null"}
    said = fail_in_a_process(f"{s3_bucket.uri}/in", absent | {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
    assert f"jobs.errors.AccessError: {s3_bucket.uri}/in: Unable to locate credentials; set AWS_ACCESS" in said


def test_a_profile_that_is_not_there_is_named(s3_bucket: Bucket) -> None:
    said = fail_in_a_process(f"{s3_bucket.uri}/in", {"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": "/dev/null"})
    assert "AccessError" in said
    assert "nobody" in said


@pytest.mark.parametrize("variable", ["AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"])
def test_who_is_not_let_in_hears_why_and_no_secret_is_told(azure_container: Bucket, variable: str) -> None:
    azure_container.put("a.parquet", b"")
    secret = {"AZURE_STORAGE_KEY": "c2VjcmV0", "AZURE_STORAGE_SAS_TOKEN": "?sv=2022-11-02&sig=c2VjcmV0"}[variable]
    environment = {"AZURE_STORAGE_KEY": None, variable: secret}
    said = fail_in_a_process(f"{azure_container.uri}/in", environment)
    assert f"AccessError: {azure_container.uri}/in: " in said
    assert "c2VjcmV0" not in said
    said = fail_in_a_process(f"{azure_container.uri}/a.parquet", environment, READ)
    assert f"AccessError: {azure_container.uri}/a.parquet: " in said
    assert "c2VjcmV0" not in said


def test_a_shared_access_signature_is_enough(azure_container: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    permission = AccountSasPermissions(read=True, write=True, list=True)
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    token = generate_account_sas(
        AZURE_ACCOUNT, AZURE_KEY, ResourceTypes(container=True, object=True), permission, until
    )
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    storage.write_table(f"{azure_container.uri}/a.parquet", pa.table({"number": [1]}))
    assert storage.names(azure_container.uri) == ["a.parquet"]
    assert storage.read_parquet(f"{azure_container.uri}/a.parquet", lambda file: file.read()).num_rows == 1


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:c2VjcmV0@bucket/in",
        "abfss://x:c2VjcmV0@a.dfs.core.windows.net/in",
        "gs://k:c2VjcmV0@b/in",
        "s3://",
        "s3:///in",
        "az:///",
    ],
)
def test_a_uri_that_is_none_is_refused_without_repeating_what_may_be_secret(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"INPUT: .* write s3://bucket/path, ") as error:
        storage.absolute(uri, "INPUT")
    assert "c2VjcmV0" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "spelling"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://bucket/2026-*/[ab]?.parquet", "s3://bucket/2026-*/[ab]?.parquet"),
        ("gs://bucket/", "gs://bucket"),
        ("gs://bucket/a/*/b//", "gs://bucket/a/*/b"),
        ("az://box/a/", "abfss://box@devstoreaccount1.dfs.core.windows.net/a"),
        ("abfss://box@other.dfs.core.windows.net/a/", "abfss://box@other.dfs.core.windows.net/a"),
    ],
)
def test_a_place_has_one_spelling(stores: Stores, given: str, spelling: str) -> None:
    assert storage.absolute(given, "INPUT", allow_relative=False) == spelling
    assert storage.absolute(spelling, "INPUT") == spelling


def test_az_needs_an_account(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT")
    with pytest.raises(ConfigError, match="'az://box/in' names no storage account; set AZURE_STORAGE_ACCOUNT"):
        storage.absolute("az://box/in", "INPUT")


def test_without_the_extra_the_way_to_azure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jobs.storage.azure", None)
    with pytest.raises(
        ConfigError, match=r"pip install azure-identity azure-storage-blob \(the extra azure of crossray\)$"
    ):
        storage.list_input("abfss://box@never-used.dfs.core.windows.net/in".replace("never-used", "neverused"))
