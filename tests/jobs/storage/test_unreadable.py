"""What cannot be read, on disks and in stores, is one error that names the file. A disk that is away is another one."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.errors import StoppedError, StoreError, UnreadableFileError, disk_failures_as_stops
from jobs.input.cutting import read_plan
from jobs.input.reading import read_rows
from jobs.records import Unit
from jobs.storage import find_input, list_input, read_parquet
from pipelines.errors import ConfigError
from tests.jobs.permissions import as_nobody
from tests.stores import Bucket

ROWS = 20_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A Parquet file whose pages have checksums."""
    path = tmp_path_factory.mktemp("whole") / "a.parquet"
    table = pa.table({"number": range(ROWS), "text": [f"text {number}" for number in range(ROWS)]})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return path.read_bytes()


def without_end(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_damaged_footer(content: bytes) -> bytes:
    """The length and the magic bytes at the end are right, the footer between them is not."""
    length = int.from_bytes(content[-8:-4], "little")
    return content[: -8 - length] + b"\xff" * length + content[-8:]


def with_damaged_page(content: bytes) -> bytes:
    return content[:1000] + bytes(byte ^ 0xFF for byte in content[1000:1100]) + content[1100:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "no bytes": lambda _: b"",
    "no Parquet": lambda _: b"query,documents\n" * 10,
    "truncated": without_end,
    "footer": with_damaged_footer,
    "page": with_damaged_page,
}
WHYS = {
    "no bytes": "ArrowInvalid: Parquet file size is 0 bytes",
    "no Parquet": "ArrowInvalid: Parquet magic bytes not found in footer",
    "truncated": "ArrowInvalid: Parquet magic bytes not found in footer",
    "footer": "OSError: Couldn't deserialize thrift",
    "page": "OSError: could not verify page integrity, CRC checksum verification failed",
}


def read_all(location: str) -> pa.Table:
    return read_parquet(location, lambda file: file.read(), check_pages=True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_was_wrong(tmp_path: Path, whole: bytes, damage: str) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(DAMAGES[damage](whole))
    with pytest.raises(UnreadableFileError) as error:
        read_all(str(path))
    assert (error.value.path, error.value.is_gone) == (str(path), False)
    assert error.value.why.startswith(WHYS[damage])
    assert str(error.value) == f"{path} cannot be read: {error.value.why}"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_named_with_what_was_wrong(bucket: Bucket, whole: bytes, damage: str) -> None:
    bucket.put("in/x.parquet", DAMAGES[damage](whole))
    with pytest.raises(UnreadableFileError) as error:
        read_all(f"{bucket.uri}/in/x.parquet")
    assert (error.value.path, error.value.is_gone) == (f"{bucket.uri}/in/x.parquet", False)
    assert error.value.why.startswith(WHYS[damage])


def test_what_is_gone_is_told_from_what_is_damaged(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "y.parquet").touch()
    for location in (f"{bucket.uri}/in/x.parquet", str(tmp_path / "x.parquet")):
        with pytest.raises(UnreadableFileError, match=r"x\.parquet cannot be read: FileNotFoundError: ") as error:
            read_all(location)
        assert error.value.is_gone


def test_what_is_gone_with_all_that_was_beside_it_is_away(tmp_path: Path) -> None:
    """As a disk that is not mounted any more: its directory is gone, or an empty one is in its place."""
    for location in (tmp_path / "no" / "x.parquet", tmp_path / "x.parquet"):
        with pytest.raises(StoreError, match=r"x\.parquet and all that was beside it are away; is its disk mounted"):
            read_all(str(location))


def test_a_directory_with_the_name_of_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").mkdir()
    with pytest.raises(UnreadableFileError, match="is a directory"):
        read_all(str(tmp_path / "x.parquet"))


def test_a_file_that_we_may_not_read_is_named(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(whole)
    path.chmod(0)
    with as_nobody(), pytest.raises(UnreadableFileError, match=r"PermissionError: .*Permission denied") as error:
        read_all(str(path))
    assert error.value.path == str(path)


@pytest.mark.parametrize("pattern", ["", "*", "**", "*/*.parquet", "*/x.parquet", "closed/x.*"])
@pytest.mark.parametrize("mode", [0, 0o444, 0o111])
def test_a_directory_that_we_may_not_look_into_is_not_passed_over(
    shared_directory: Path, pattern: str, mode: int
) -> None:
    """It is reported as a file that cannot be read, unless its file is found all the same, by a name that is known."""
    for directory in (shared_directory / "open", shared_directory / "closed"):
        directory.mkdir()
        (directory / "x.parquet").touch()
    (shared_directory / "closed").chmod(mode)
    try:
        with as_nobody():
            found = {file.path: file.fault for file in find_input(str(shared_directory / pattern))}
    finally:
        (shared_directory / "closed").chmod(0o755)
    inside = {path: fault for path, fault in found.items() if path.startswith(str(shared_directory / "closed"))}
    assert inside
    assert all(inside.values()) or (mode, pattern) == (0o111, "*/x.parquet")
    assert pattern == "closed/x.*" or found[str(shared_directory / "open" / "x.parquet")] is None


def test_input_that_we_may_not_list_is_a_usage_error(shared_directory: Path) -> None:
    directory = shared_directory / "in"
    directory.mkdir(mode=0)
    with as_nobody(), pytest.raises(ConfigError, match=r"has no Parquet files; .*/in cannot be read: we may not list"):
        list_input(str(directory))


def test_every_reader_says_the_same(tmp_path: Path, whole: bytes) -> None:
    """A plan needs the footer alone, rows need pages; a file with fewer rows than planned cannot be read either."""
    path = tmp_path / "x.parquet"
    path.write_bytes(without_end(whole))
    for read in (read_plan, lambda one: read_rows(Unit(one, 0, 10))):
        with pytest.raises(UnreadableFileError, match=f"{path} cannot be read: ArrowInvalid"):
            read(str(path))
    path.write_bytes(whole)
    assert read_plan(str(path)).rows == ROWS
    with pytest.raises(UnreadableFileError, match=f"ValueError: {path} has no rows 0 to {ROWS + 1} any more"):
        read_rows(Unit(str(path), 0, ROWS + 1))


def raising(error: Exception) -> Callable[[pq.ParquetFile], None]:
    """A reader that fails with this error."""

    def read(_file: pq.ParquetFile) -> None:
        raise error

    return read


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC, errno.ENODEV, errno.EMFILE])
def test_a_disk_that_is_away_is_no_fault_of_the_file(tmp_path: Path, whole: bytes, number: int) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(whole)
    with pytest.raises(StoreError) as error:
        read_parquet(str(path), raising(OSError(number, os.strerror(number))))
    assert str(error.value).startswith(f"{path}: ")
    assert os.strerror(number) in str(error.value)


def test_what_a_reader_finds_is_the_files_fault_and_a_wrong_command_is_not(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(whole)
    with pytest.raises(UnreadableFileError, match="ValueError: has no ids"):
        read_parquet(str(path), raising(ValueError("has no ids")))
    with pytest.raises(ConfigError, match="no such column"):
        read_parquet(str(path), raising(ConfigError("no such column")))
    with pytest.raises(TypeError, match="a bug"):
        read_parquet(str(path), raising(TypeError("a bug")))


def test_the_error_comes_whole_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(UnreadableFileError("/in/x.parquet", "OSError: no", is_gone=True)))
    assert (error.path, error.why, error.is_gone) == ("/in/x.parquet", "OSError: no", True)
    assert str(error) == "/in/x.parquet cannot be read: OSError: no"


def test_a_file_that_a_job_cannot_do_without_stops_it() -> None:
    with pytest.raises(StoppedError, match=r"/out/a\.parquet cannot be read: OSError: no"), disk_failures_as_stops():
        raise UnreadableFileError("/out/a.parquet", "OSError: no")
